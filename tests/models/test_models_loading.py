"""Model loading: the embedded encoder, local directories, and errors with a remedy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import RobertaConfig, ViTConfig, ViTForImageClassification

from aifs_peft.errors import InvalidConfigError, InvalidInputError, ModelNotFoundError
from aifs_peft.experiments import FinetuneSpec
from aifs_peft.experiments.evaluation import evaluate_groups, group_counts, group_definition
from aifs_peft.experiments.prepare import PreparedDataset, modality_of
from aifs_peft.models import load_model, load_processor
from aifs_peft.models.loading import default_model


def test_embedded_encoder_loads_like_any_clip() -> None:
    model = load_model("tiny_clip", modality="image", label_names=["a", "b", "c"])
    assert type(model).__name__ == "CLIPForImageClassification"
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert load_processor("tiny_clip", modality="image") is not None


def test_hub_name_without_network_says_what_to_do() -> None:
    with pytest.raises(ModelNotFoundError, match=r"not a local directory.*HF_HUB_OFFLINE"):
        load_model("nobody/no-such-model", modality="image", label_names=["a", "b"])
    with pytest.raises(ModelNotFoundError, match="Could not load the processor of"):
        load_processor("nobody/no-such-model", modality="image")


def test_half_precision_checkpoint_trains_in_float32(tmp_path: Path) -> None:
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8,
                       patch_size=4)  # fmt: skip
    ViTForImageClassification(config).half().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), modality="image", label_names=["a", "b"])
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_text_model_refused_for_images(tmp_path: Path) -> None:
    RobertaConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(InvalidConfigError, match="image classification class"):
        load_model(str(tmp_path), modality="image", label_names=["a", "b"])


def test_unknown_settings() -> None:
    with pytest.raises(InvalidConfigError, match=r"quantization must be one of .*; got '3bit'"):
        load_model("tiny_clip", modality="image", label_names=["a", "b"], quantization="3bit")
    with pytest.raises(InvalidInputError, match=r"modality must be one of .*; got 'sound'"):
        load_model("tiny_clip", modality="sound", label_names=["a", "b"])
    with pytest.raises(InvalidConfigError, match=r"got 'lroa' \(did you mean 'lora'"):
        FinetuneSpec(adapter="lroa").encoder_adapter()
    with pytest.raises(InvalidInputError, match="columns"):
        modality_of(Dataset.from_dict({"x": [1]}))


def test_tables_need_a_model_of_tables(tmp_path: Path) -> None:
    features = torch.arange(12.0).reshape(4, 3)
    with pytest.raises(InvalidInputError, match="'mlp' is made anew for a table: pass train_features"):
        load_model("mlp", modality="features", label_names=["a", "b"])
    with pytest.raises(InvalidConfigError, match=r"The model 'mlp' \(type 'aifs_tabular'\) has no image"):
        load_model("mlp", modality="image", label_names=["a", "b"])
    load_model("mlp", modality="features", label_names=["a", "b"], train_features=features).save_pretrained(tmp_path)
    with pytest.raises(InvalidConfigError, match="its 2 classes are not the data set's 3"):
        load_model(str(tmp_path), modality="features", label_names=["a", "b", "c"])
    with pytest.raises(ModelNotFoundError, match="not a local directory"):
        load_model("nobody/no-such-model", modality="features", label_names=["a", "b"])
    with pytest.raises(InvalidConfigError, match="text input has no default"):
        default_model("text")
    with pytest.raises(InvalidInputError, match="needed is one of 'features'"):
        modality_of(Dataset.from_dict({"image": [1]}), ("features",))


def test_cached_and_lazy_inputs_are_equal() -> None:
    rows = Dataset.from_dict({"text": ["a", "bbb", "cc"], "label": [0, 1, 0]})

    def encode(texts: list[str]) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[len(text)] for text in texts])}

    cached, lazy = PreparedDataset(rows, encode), PreparedDataset(rows, encode, cache_bytes=0)
    assert len(cached) == len(lazy) == 3
    for i in range(3):
        assert set(cached[i]) == {"input_ids", "labels"}
        for name in cached[i]:
            assert torch.equal(cached[i][name], lazy[i][name])


def test_groups_are_named_and_scored() -> None:
    features = Features({"label": ClassLabel(names=["n", "p"]), "group": ClassLabel(names=["n0", "n1", "p0", "p1"]),
                         "text": Value("string")})  # fmt: skip
    rows = Dataset.from_dict({"text": ["x"] * 6, "label": [0, 0, 0, 1, 1, 1], "group": [0, 0, 1, 2, 3, 3]}, features)
    assert group_definition({"test": rows}) == "column 'group'"
    assert group_definition({"test": rows.remove_columns("group")}) is None
    logits = np.array([[2, 0], [2, 0], [0, 2], [2, 0], [0, 2], [2, 0]], dtype=float)
    result = evaluate_groups(rows, logits)
    assert {name: entry["accuracy"] for name, entry in result["groups"].items()} == {
        "n0": 1.0, "n1": 0.0, "p0": 0.0, "p1": 0.5,
    }  # fmt: skip
    assert result["average_accuracy"] == pytest.approx(0.5)
    assert group_counts({"test": rows}) == {"test": {"n0": 2, "n1": 1, "p0": 1, "p1": 2}}


def test_overlapping_groups_without_a_definition_are_numbered() -> None:
    member = [[True, False], [True, True], [False, False], [False, True]]
    rows = Dataset.from_dict({"label": [0, 1, 0, 1], "group": member})
    result = evaluate_groups(rows, np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]]))
    assert {name: (entry["n"], entry["accuracy"]) for name, entry in result["groups"].items()} == {
        "group 0": (2, 0.5), "group 1": (2, 0.5),
    }  # fmt: skip
    assert result["average_accuracy"] == 0.75
    assert group_counts({"test": rows}) == {"test": {"group 0": 2, "group 1": 2}}


def test_the_adjusted_average_weights_by_training_groups() -> None:
    rows = {"label": [0, 0, 1, 1], "group": [0, 1, 2, 3]}
    train = Dataset.from_dict({"label": [0, 0, 0, 1], "group": [0, 0, 0, 3]})
    logits = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])  # right in groups 0 and 3
    result = evaluate_groups(Dataset.from_dict(rows), logits, train=train)
    assert (result["average_accuracy"], result["adjusted_average_accuracy"]) == (0.5, 1.0)
