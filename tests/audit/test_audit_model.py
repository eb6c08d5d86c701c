"""Audits of models and trainers: one frozen pass over data sets of every kind, latents as the head is fed them."""

import copy

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from peft import get_peft_model
from planted_audit import planted, table
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    CLIPModel,
    PrinterCallback,
)

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments, LatentClassifier
from aifs_peft.audit import audit_model, audit_trainer
from aifs_peft.audit.encoding import column_of, encode
from aifs_peft.audit.model import labels_of
from aifs_peft.data import load
from aifs_peft.errors import HeadError, InvalidInputError
from aifs_peft.models import TabularClassifier, load_model, load_processor, resolve_model


@pytest.fixture(scope="module")
def rows():
    """Feature vectors with a mark, as a data set with names and metadata."""
    Z, y, mark = planted(n=600, width=24)
    columns = {"features": Z.astype(np.float32).tolist(), "label": y.tolist(), **table(mark)}
    return Dataset.from_dict(columns).cast_column("label", ClassLabel(names=["benign", "malignant"]))


@pytest.fixture(scope="module")
def tabular(rows):
    torch.manual_seed(0)  # of its head, whatever tests ran before
    return TabularClassifier.for_features(torch.tensor(rows["features"][:]), ["benign", "malignant"], "identity")


def test_a_data_set_of_features_with_names_and_metadata(rows, tabular):
    result = audit_model(tabular, rows)
    _, y, mark = planted(n=600, width=24)
    assert result.found
    assert set(result.conflicting["label"]) == {"benign", "malignant"}
    assert set(result.conflicting["row"]) <= {*np.flatnonzero(mark != y)}
    assert result.associations["column"][0] == "scanner"
    assert result.looked_at["d"] == 24
    assert result.model_harm is None
    assert result.names is None


def test_judging_uses_the_models_own_head(rows, tabular):
    result = audit_model(tabular, rows, judge=True, harm=False)
    encoded = encode(tabular, rows)
    right = encoded.logits.argmax(axis=1) == np.asarray(rows["label"][:])
    assert result.model_harm.aligned.correct + result.model_harm.conflicting.correct == right.sum()


def test_latents_are_what_the_head_is_fed_and_the_model_is_left_alone(rows, tabular):
    tabular.train()
    state = torch.get_rng_state()
    encoded = encode(tabular, rows, batch_size=100, rows=[5, 3])
    inputs = torch.tensor(rows["features"][:])[[5, 3]]
    assert torch.allclose(torch.tensor(encoded.Z), tabular.encoder(inputs), atol=1e-6)
    assert torch.allclose(torch.tensor(encoded.logits), tabular(inputs).logits, atol=1e-6)
    assert torch.equal(state, torch.get_rng_state())
    assert tabular.training
    assert not tabular.classifier._forward_pre_hooks
    tabular.eval()


def test_adapters_encode_like_their_base(rows, tabular):
    before = encode(tabular, rows).Z
    adapted = get_peft_model(copy.deepcopy(tabular), AIFSConfig())
    assert np.allclose(encode(adapted, rows).Z, before)


def test_map_style_sets_of_tensors_and_of_ragged_texts():
    examples = [{"features": torch.full((3,), float(i)), "label": i % 2, "weight": 0.5} for i in range(7)]
    model = LatentClassifier(nn.Linear(3, 4), dim=4)
    assert encode(model, examples, batch_size=3).Z.shape == (7, 4)
    ragged = [{"input_ids": [1] * (2 + i), "label": i % 2} for i in range(4)]
    with pytest.raises(InvalidInputError, match="texts of different lengths need processor="):
        encode(model, ragged)


def test_images_by_a_models_name_by_the_model_and_by_a_clip():
    scenes = load("spurious_scenes", n_train=60, n_validation=10, n_test=10, image_size=16)["train"]
    by_name = audit_model("tiny_clip", scenes, clip=False)
    assert by_name.looked_at["d"] == 160
    assert "factor_scanner_mark" in by_name.looked_at["metadata"]["tested"]
    processor = load_processor("tiny_clip", modality="image")
    model = load_model("tiny_clip", modality="image", label_names=["a", "b"])
    given = encode(model, scenes, processor=processor)
    assert given.Z.shape == (60, 160)
    assert given.logits.shape == (60, 2)
    with pytest.raises(InvalidInputError, match="pass processor="):
        encode(model, scenes)
    clip = CLIPModel.from_pretrained(resolve_model("tiny_clip"))
    projected = audit_model(clip, scenes, processor=processor, clip=False)
    assert projected.looked_at["d"] == 128
    with pytest.raises(InvalidInputError, match="has no head that predicts"):
        audit_model(clip, scenes, processor=processor, judge=True)


def test_texts_are_tokenised_and_cut(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt"), model_max_length=8).save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForSequenceClassification(
        BertConfig(vocab_size=len(words), max_position_embeddings=8, num_labels=2, **sizes)
    ).save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(["good", "bad", "film"], rng.integers(1, 40))) for _ in range(60)]
    texts = Dataset.from_dict({"text": lines, "label": ["pos", "neg"] * 30})
    with pytest.warns(UserWarning, match=r"\d+ of 60 texts are longer than the model's 8 positions and were cut"):
        result = audit_model(str(tmp_path), texts)
    assert result.looked_at["n"] == 60
    assert result.looked_at["classes"] == {"neg": 30, "pos": 30}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    short = texts.map(lambda row: {"text": row["text"][:20]})
    with pytest.raises(InvalidInputError, match="configuration has none"):
        audit_model(model, short, processor=tokenizer, judge=True)


def test_labels_are_found_or_asked_for():
    assert labels_of(Dataset.from_dict({"x": [1.0, 2.0], "labels": ["a", "b"]})) == (["a", "b"], None)
    with pytest.raises(InvalidInputError, match="no label column"):
        labels_of(Dataset.from_dict({"x": [1.0], "y": [0]}))
    with pytest.raises(InvalidInputError, match="needed is an input among"):
        column_of(Dataset.from_dict({"x": [1.0], "label": [0]}))
    with pytest.raises(InvalidInputError, match="no model is loaded by name"):
        audit_model("tiny_clip", Dataset.from_dict({"features": [[1.0], [2.0]], "label": [0, 1]}))


def test_a_forward_pass_without_its_head_is_told():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.classifier = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, features):
            return self.body(features)

    with pytest.raises(HeadError, match="does not use its head"):
        encode(Odd(), [{"features": torch.zeros(3), "label": 0}] * 2)


def test_trainers_are_audited_before_and_after_training(rows, tabular, tmp_path):
    trainer = AIFSTrainer(
        model=get_peft_model(copy.deepcopy(tabular), AIFSConfig(recipe="erm")),
        args=AIFSTrainingArguments(
            output_dir=str(tmp_path), num_train_epochs=3, learning_rate=0.02, use_cpu=True, disable_tqdm=True,
            per_device_train_batch_size=64, report_to="none", save_strategy="no", seed=0,
        ),
        train_dataset=rows.select_columns(["features", "label", "site", "scanner"]).with_format("torch"),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    before = audit_trainer(trainer, harm=False)
    assert before.found
    assert before.model_harm is None
    assert before.associations["column"][0] == "scanner"
    assert set(before.conflicting["label"]) == {"benign", "malignant"}
    trainer.train()
    after = audit_trainer(trainer, harm=False)
    assert after.conflicting["row"].tolist() == before.conflicting["row"].tolist()
    assert after.model_harm.leans
    with pytest.raises(InvalidInputError, match="split='eval'"):
        audit_trainer(trainer, split="eval")
