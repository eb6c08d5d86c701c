"""`AIFSTrainer` from names and plain data sets: what peft, trl and transformers users write."""

import datasets
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments
from aifs_peft.errors import InvalidConfigError, InvalidInputError

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


def pictures(n=24):
    generator = torch.Generator().manual_seed(0)
    shades = torch.randint(0, 256, (n,), generator=generator).tolist()
    labels = [("cat", "dog")[i % 2] for i in range(n)]
    rows = {"image": [Image.new("RGB", (8, 8), (shade, i, 0)) for i, shade in enumerate(shades)], "label": labels}
    rows["site"] = [i % 3 for i in range(n)]
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


@pytest.fixture
def folder(tmp_path):
    ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **SIZES)).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "vit")
    return tmp_path


def arguments(folder, **options):
    return AIFSTrainingArguments(
        output_dir=str(folder / "run"), num_train_epochs=1, use_cpu=True, disable_tqdm=True, report_to="none", **options
    )


def test_a_name_a_config_and_plain_rows_train_audit_and_predict(folder):
    trainer = AIFSTrainer(
        str(folder / "vit"), arguments(folder), peft_config=LoraConfig(r=2), train_dataset=pictures(),
        eval_dataset={"one": pictures(), "two": pictures(12)},
    )  # fmt: skip
    assert list(trainer.adapted.config.id2label.values()) == ["cat", "dog"]
    assert any("lora_" in name for name, p in trainer.adapted.named_parameters() if p.requires_grad)
    trainer.train()
    assert {"eval_one_accuracy", "eval_two_accuracy"} <= set(trainer.evaluate())
    assert trainer.predict(pictures(4)).predictions.shape == (4, 2)
    found = trainer.audit()
    assert found.sentence
    assert found.found is False
    trainer.create_model_card()
    assert "group label" in (folder / "run" / "README.md").read_text().lower()


@pytest.mark.parametrize("config", [LoraConfig(r=2), AIFSConfig(), None], ids=["LoRA", "AIFS", "none"])
def test_the_adapter_keeps_the_names_of_the_classes(folder, config):
    trainer = AIFSTrainer(str(folder / "vit"), arguments(folder), peft_config=config, train_dataset=pictures())
    trainer.save_model(str(folder / "adapter"))
    base = ViTForImageClassification.from_pretrained(folder / "vit")
    assert list(base.config.id2label.values()) == ["LABEL_0", "LABEL_1"]
    again = PeftModel.from_pretrained(base, folder / "adapter")
    assert list(again.config.id2label.values()) == ["cat", "dog"]
    assert config is None or getattr(config, "labels", None) is None  # left as it was


def test_columns_for_metrics_reach_them_and_not_the_model(folder):
    seen = {}

    def metrics(prediction):
        seen["site"] = prediction.label_ids[1]
        return {}

    trainer = AIFSTrainer(
        str(folder / "vit"), arguments(folder, evaluation_columns=["site"]), train_dataset=pictures(),
        eval_dataset=pictures(6), compute_metrics=metrics,
    )  # fmt: skip
    assert not any("lora_" in name for name, _ in trainer.adapted.named_parameters())
    trainer.evaluate()
    assert seen["site"].tolist() == [0, 1, 2, 0, 1, 2]


def test_a_bare_model_with_a_config_of_either_kind(folder):
    for config in (LoraConfig(r=2), AIFSConfig()):
        model = ViTForImageClassification.from_pretrained(
            folder / "vit", id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1}
        )
        processor = ViTImageProcessorPil.from_pretrained(folder / "vit")
        trainer = AIFSTrainer(
            model, arguments(folder), peft_config=config, train_dataset=pictures(), processing_class=processor
        )
        assert trainer.layer.adapter == "default"


def test_a_model_from_a_name_is_drawn_by_the_seed(folder):
    def drawn(seed, state):
        torch.manual_seed(state)  # whatever was drawn before
        args = arguments(folder, seed=seed)
        trainer = AIFSTrainer(str(folder / "vit"), args, peft_config=LoraConfig(r=2), train_dataset=pictures())
        return torch.cat([p.detach().flatten() for p in trainer.adapted.parameters() if p.requires_grad])

    first = drawn(1, 7)
    assert torch.equal(first, drawn(1, 8))
    assert not torch.equal(first, drawn(2, 7))


def test_what_cannot_be_is_refused(folder):
    vit = str(folder / "vit")
    adapted = get_peft_model(ViTForImageClassification.from_pretrained(vit, num_labels=2), AIFSConfig())
    with pytest.raises(InvalidConfigError, match="adapter already"):
        AIFSTrainer(adapted, arguments(folder), peft_config=LoraConfig())
    with pytest.raises(InvalidInputError, match=r"no label column.*image, site"):
        AIFSTrainer(vit, arguments(folder), train_dataset=pictures().remove_columns("label"))
    with pytest.raises(InvalidInputError, match=r"no datasets\.Dataset with an image or a text column"):
        AIFSTrainer(vit, arguments(folder), train_dataset=[{"pixel_values": torch.zeros(3, 8, 8), "label": 0}])
