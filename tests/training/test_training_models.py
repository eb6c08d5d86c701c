"""Other models and precisions: a real frozen MobileNetV2, bfloat16 autocast, `datasets`, own collators, heads."""

import datasets
import numpy as np
import pytest
import torch
from peft import get_peft_model
from training_zoo import lora, make_data, make_trainer, trained
from transformers import AutoModelForImageClassification

from aifs_peft.training.epoch_runner import EpochRunner
from aifs_peft.tuner import AIFSConfig


def test_frozen_mobilenet_keeps_its_running_statistics(tmp_path, shared_dir, monkeypatch):
    torch.manual_seed(0)
    base = AutoModelForImageClassification.from_pretrained(shared_dir / "models" / "mobilenet_v2_imagenet")
    model = get_peft_model(base, AIFSConfig.paper(head="linear", num_labels=2))
    frozen = {name: v.clone() for name, v in model.state_dict().items() if "aifs" not in name}
    assert any("running_mean" in name for name in frozen)
    generator = torch.Generator().manual_seed(0)
    data = [{"pixel_values": torch.randn(3, 64, 64, generator=generator), "label": i % 2} for i in range(8)]
    trainer = make_trainer(tmp_path, model=model, data=data, per_device_train_batch_size=4, num_train_epochs=2)
    latents = []
    keep = EpochRunner.keep

    def spy(self, index, z, labels, step):
        latents.append(dict(zip(index.tolist(), z, strict=True)))
        keep(self, index, z, labels, step)

    monkeypatch.setattr(EpochRunner, "keep", spy)
    trainer.train()
    for name, value in model.state_dict().items():
        if name in frozen:
            assert torch.equal(value, frozen[name]), name
    # Dropout before the head is off as well: the second epoch sees the latents of the first, in another order.
    first, second = ({k: v for part in half for k, v in part.items()} for half in (latents[:2], latents[2:]))
    for example in range(8):
        torch.testing.assert_close(first[example], second[example], atol=1e-4, rtol=1e-4)
    assert trainer.layer.training


def test_running_statistics_stay_beside_a_trained_adapter(tmp_path, shared_dir):
    base = AutoModelForImageClassification.from_pretrained(shared_dir / "models" / "mobilenet_v2_imagenet")
    from peft import LoraConfig

    nested = LoraConfig(target_modules=["mobilenet_v2.conv_1x1.convolution"], r=2)
    model = get_peft_model(base, AIFSConfig.paper(head="linear", num_labels=2, encoder_adapter=nested))
    name, before = next((n, b.clone()) for n, b in model.named_buffers() if "running_mean" in n)
    generator = torch.Generator().manual_seed(0)
    data = [{"pixel_values": torch.randn(3, 64, 64, generator=generator), "label": i % 2} for i in range(4)]
    trainer = make_trainer(tmp_path, model=model, data=data, per_device_train_batch_size=4, num_train_epochs=1)
    trainer.train()
    assert torch.equal(dict(model.named_buffers())[name], before)
    assert trainer.runner.contexts.encoder_trains


def test_bfloat16_autocast(tmp_path):
    trainer = make_trainer(tmp_path, AIFSConfig.paper(mask_scale="max", encoder_adapter=lora()), bf16=True)
    trainer.train()
    state = trained(trainer.model)
    assert all(value.isfinite().all() for value in state.values())
    assert trainer.layer.state.mask.dtype == torch.float32
    assert trainer.layer.state.ema.dtype == torch.float64
    assert "sensitivity" in trainer.state.log_history[-2]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_heads(tmp_path, head):
    trainer = make_trainer(tmp_path, AIFSConfig.paper(head=head, mask_scale="max"), alpha=0.5)
    trainer.train()
    assert trainer.state.log_history[-2]["invariance"] > 0


@pytest.mark.parametrize("inner", [None, lora()], ids=["frozen", "lora"])
def test_unused_columns_go_and_groups_and_metadata_stay(tmp_path, inner):
    rows = make_data(32)
    member = [[row["group"] == 0, row["label"] == 1, True] for row in rows]  # overlapping groups
    table = datasets.Dataset.from_dict(
        {
            "pixel_values": [np.asarray(row["pixel_values"]) for row in rows],
            "label": [row["label"] for row in rows],
            "group": [row["group"] for row in rows],
            "member": member,
            "site": list(range(32)),
            "caption": ["a picture"] * 32,
        }
    ).with_format("torch")
    seen = []
    columns = ["group", "member", "site"]
    config = AIFSConfig.paper(encoder_adapter=inner)
    trainer = make_trainer(tmp_path, config, table, eval_dataset=table, evaluation_columns=columns)
    assert trainer.args.remove_unused_columns
    trainer.model.get_base_model().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(set(kwargs)), with_kwargs=True
    )
    trainer.train()
    assert int(trainer.layer.state.num_updates) == 2
    labels, group, members, site = trainer.predict(table).label_ids
    assert labels.tolist() == [row["label"] for row in rows]
    assert group.tolist() == [row["group"] for row in rows]
    assert members.astype(bool).tolist() == member
    assert site.tolist() == list(range(32))
    assert all(keys <= {"pixel_values"} for keys in seen)


def test_collator_that_knows_nothing_of_positions(tmp_path):
    def collate(examples):
        assert all("aifs_index" not in example for example in examples)
        return {
            "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
            "labels": torch.tensor([example["label"] for example in examples]),
        }

    plain, own = make_trainer(tmp_path), make_trainer(tmp_path, data_collator=collate)
    plain.train()
    own.train()
    for name, value in trained(plain.model).items():
        assert torch.equal(value, trained(own.model)[name])
