"""A resumed run is the uninterrupted run, bit for bit, at an epoch's end and within one."""

import pytest
import torch
from checkpoint_damage import manifest
from safetensors.torch import load_file, save_file
from training_zoo import assert_equal, lora, make_args, make_data, make_model, make_trainer, shortcut_data, trained

from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError
from aifs_peft.training import AIFSTrainer
from aifs_peft.training.epoch_runner import EpochRunner
from aifs_peft.training.manifest import write_manifest
from aifs_peft.tuner import AIFSConfig


def run(folder, config, resume=None, adapter_name="default", data=None, **options):
    model = make_model(config(), dropout=0.1, adapter_name=adapter_name)
    data = data or make_data(64)
    usual = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 4, "eval_strategy": "epoch"}
    args = make_args(folder, **{**usual, **options})
    trainer = AIFSTrainer(model, args, train_dataset=data, eval_dataset=data)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def paper():
    return AIFSConfig.paper(mask_scale="max", ema_decay=0.5, encoder_adapter=lora(0.1))


def discovery():
    return AIFSConfig(encoder_adapter=lora(0.1))


@pytest.mark.parametrize("adapter_name", ["default", "spurious"])
def test_paper_resumes_exactly(tmp_path, adapter_name):
    whole = run(tmp_path, paper, adapter_name=adapter_name, mask_samples=40)
    want = trained(whole.model)
    losses = [row["loss"] for row in whole.state.log_history if "loss" in row]
    # 8 steps per epoch: 12 lies in mid-epoch, 16 at an epoch's end, just after a refresh of the mask.
    for step in (12, 16):
        checkpoint = tmp_path / f"checkpoint-{step}"
        assert bool(list(checkpoint.glob("aifs_latents_*"))) == (step == 12)
        resumed = run(tmp_path / f"again{step}", paper, str(checkpoint), adapter_name, mask_samples=40)
        assert_equal(want, trained(resumed.model))
        again = [row["loss"] for row in resumed.state.log_history if "loss" in row]
        assert again == losses
        for a, b in zip(
            whole.optimizer.state_dict()["state"].values(),
            resumed.optimizer.state_dict()["state"].values(),
            strict=True,
        ):
            assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
        assert whole.lr_scheduler.state_dict()["last_epoch"] == resumed.lr_scheduler.state_dict()["last_epoch"]


@pytest.mark.slow
def test_discovery_resumes_exactly(tmp_path):
    data = shortcut_data()
    options = {"per_device_train_batch_size": 30}
    whole = run(tmp_path, discovery, data=data, **options)
    assert whole.layer.state.has_basis
    for step in (12, 16):
        resumed = run(tmp_path / f"again{step}", discovery, str(tmp_path / f"checkpoint-{step}"), data=data, **options)
        assert_equal(trained(whole.model), trained(resumed.model))
        assert resumed.state.global_step == 24


def test_an_adapter_is_loaded_whole_or_not_at_all(tmp_path):
    run(tmp_path, paper, num_train_epochs=1)
    checkpoint, file = tmp_path / "checkpoint-8", tmp_path / "checkpoint-8" / "adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(next(name for name in weights if name.endswith("mask")))
    save_file(weights, file)
    write_manifest(checkpoint, manifest(checkpoint)["run"])  # as if it had been saved like this
    with pytest.raises(CheckpointMismatchError, match=r"missing \['.*mask'\]"):
        run(tmp_path / "d", paper, str(checkpoint))


def test_skipping_data_is_refused(tmp_path):
    with pytest.raises(InvalidConfigError, match="ignore_data_skip"):
        make_args(tmp_path, ignore_data_skip=True)


@pytest.mark.parametrize("adapter_name", ["default", "spurious"])
def test_best_model_brings_its_mask(tmp_path, monkeypatch, adapter_name):
    data = make_data(40)
    model = make_model(AIFSConfig.paper(), adapter_name=adapter_name)
    values = iter([0.2, 0.9, 0.1, 0.3])
    args = make_args(
        tmp_path,
        num_train_epochs=8,
        save_strategy="epoch",
        eval_strategy="epoch",
        load_best_model_at_end=True,
        early_stopping_patience=2,
        metric_for_best_model="eval_planned",
        greater_is_better=True,
    )
    trainer = AIFSTrainer(
        model, args, train_dataset=data, eval_dataset=data, compute_metrics=lambda p: {"planned": next(values)}
    )
    masks = []
    finish = EpochRunner.finish_epoch

    def spy(self, epoch):
        numbers = finish(self, epoch)
        masks.append(trainer.layer.state.mask.clone())
        return numbers

    monkeypatch.setattr(EpochRunner, "finish_epoch", spy)
    trainer.train()
    # Best at epoch 2, then two evaluations without improvement.
    assert trainer.state.global_step == 20
    assert trainer.state.best_global_step == 10
    assert int(trainer.layer.state.num_updates) == 2
    assert torch.equal(trainer.layer.state.mask, masks[1])
    assert not torch.equal(masks[1], masks[3])
    saved = load_file(
        tmp_path / "checkpoint-10" / ("" if adapter_name == "default" else adapter_name) / "adapter_model.safetensors"
    )
    weight = next(value for name, value in saved.items() if name.endswith("aifs_head.weight"))
    assert torch.equal(trainer.layer.head.weight, weight)


@pytest.mark.parametrize(
    ("selection", "metric"),
    [("worst_class", "eval_worst_class_accuracy"), ("average", "eval_accuracy")],
)
def test_selection_chooses_the_metric(tmp_path, selection, metric):
    args = make_args(tmp_path, selection=selection, early_stopping_patience=1, eval_strategy="epoch")
    assert (args.metric_for_best_model, args.greater_is_better) == (metric, True)
    data = make_data(40)
    trainer = make_trainer(tmp_path, data=data, eval_dataset=data, selection=selection)
    assert metric in trainer.evaluate()
