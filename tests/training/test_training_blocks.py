"""`AIFSConfig(latents="multi")` in training: scales come first, from the training set alone, and stay."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch.utils.data import IterableDataset
from training_zoo import assert_equal, lora, make_args, make_data, make_model, make_trainer, shortcut_data, trained

from aifs_peft.errors import InvalidConfigError
from aifs_peft.training import AIFSTrainer, EpochHook, encoding
from aifs_peft.tuner import AIFSConfig, find_aifs_layer


def multi(**options):
    return AIFSConfig(latents="multi", **options)


def make(folder, config, data=None, **options):
    data = shortcut_data() if data is None else data
    usual = {"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}
    args = make_args(folder, **{**usual, **options})
    return AIFSTrainer(make_model(config), args, train_dataset=data, eval_dataset=data)


def untuned_blocks(config, data):
    """Mean and total variances of the joined latents before any training, by another road."""
    model = make_model(config)
    layer = find_aifs_layer(model)
    with torch.no_grad():
        model.eval()(pixel_values=torch.stack([row["pixel_values"] for row in data]))
    z = layer.take_output().z
    return z.mean(0), torch.stack([part.var(0, correction=0).sum() for part in z.split(layer.blocks.widths, 1)])


@pytest.mark.parametrize("encoder_adapter", [None, lora()])
def test_scales_are_those_of_the_training_set_before_training_and_stay(tmp_path, encoder_adapter):
    data = shortcut_data()
    trainer = make(tmp_path, multi(encoder_adapter=encoder_adapter), data)
    mean, variances = untuned_blocks(multi(), data)
    trainer.train()
    blocks = trainer.layer.blocks
    assert int(blocks.examples) == len(data)
    torch.testing.assert_close(blocks.mean, mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(blocks.scale, (blocks.dim / 3 / variances).sqrt(), atol=1e-3, rtol=1e-3)
    before = {name: value.clone() for name, value in blocks.state_dict().items()}
    trainer.train()
    assert_equal(before, blocks.state_dict())
    trainer.model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(make_model(multi()).unload(), tmp_path / "adapter")
    assert_equal(before, find_aifs_layer(again).blocks.state_dict())


@pytest.mark.parametrize("config", [AIFSConfig, AIFSConfig.paper])
def test_kept_latents_train_what_the_encoder_does(tmp_path, config):
    with_encoder = make(tmp_path / "a", config(latents="multi"))
    kept = make(tmp_path / "b", config(latents="multi"), cache_latents=True)
    for trainer in (with_encoder, kept):
        trainer.train()
    assert kept.layer.state.dim == 3 * 16
    for (name, a), (other, b) in zip(trained(with_encoder.model).items(), trained(kept.model).items(), strict=True):
        assert name == other
        torch.testing.assert_close(a.float(), b.float(), atol=2e-3, rtol=2e-3, msg=name)


@pytest.mark.parametrize("options", [{}, {"cache_latents": True}])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, options):
    steps = {"save_strategy": "steps", "save_steps": 5, **options}
    whole = make(tmp_path / "a", multi(), **steps)
    whole.train()
    resumed = make(tmp_path / "b", multi(), **steps)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
    assert_equal(trained(whole.model), trained(resumed.model))
    assert_equal(whole.layer.blocks.state_dict(), resumed.layer.blocks.state_dict())


def test_a_method_that_reads_tokens_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, multi(), make_data(), method="ravl")
    with pytest.raises(InvalidConfigError, match="which have no features in the joined latents"):
        trainer.train()


def test_a_loop_of_ones_own_scales_them_too():
    data = shortcut_data()
    model = make_model(multi())
    hook = EpochHook(model, data, accelerator=Accelerator(cpu=True), batch_size=16)
    model, optimizer = hook.accelerator.prepare(
        model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    )
    for _ in hook.epochs(1):
        assert int(hook.layer.blocks.examples) == len(data)
        for batch in hook.loader:
            hook.accelerator.backward(hook.loss(model, batch))
            optimizer.step()
            optimizer.zero_grad()
    assert hook.layer.state.dim == 48


class Streamed(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_a_streamed_training_set_gives_the_same_scales(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "SCALED_BY", 100)
    data, found = shortcut_data(), []
    for name, rows in (("list", data), ("stream", Streamed(data))):
        args = make_args(tmp_path / name, num_train_epochs=1)
        trainer = AIFSTrainer(make_model(multi(encoder_adapter=lora())), args, train_dataset=rows)
        trainer.train()
        assert int(trainer.layer.blocks.examples) == 100
        found.append(trainer.layer.blocks.state_dict())
    torch.testing.assert_close(found[0], found[1])
