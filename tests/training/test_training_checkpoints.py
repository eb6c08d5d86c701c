"""A checkpoint is whole or is not resumed from; what is resumed is the run that wrote it."""

import logging
import random
import shutil

import numpy as np
import pytest
import torch
from checkpoint_damage import DAMAGE, files_of, manifest
from training_zoo import assert_equal, lora, make_args, make_data, make_model, make_trainer, trained
from transformers import EarlyStoppingCallback

from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.training import AIFSTrainer
from aifs_peft.training.checkpoint_folders import newest_checkpoint, publish, unfinished
from aifs_peft.training.manifest import read_manifest, write_manifest
from aifs_peft.tuner import AIFSConfig


def trainer_of(folder, data=None, **options):
    """Two epochs of eight steps, a checkpoint in the middle of each epoch and at its end."""
    config = AIFSConfig.paper(mask_scale="max", ema_decay=0.5, encoder_adapter=lora(0.1))
    usual = {"save_strategy": "steps", "save_steps": 4, "logging_steps": 4}
    return make_trainer(folder, data=data, model=make_model(config, dropout=0.1), **{**usual, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its folder and what it learnt."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = trainer_of(folder)
    trainer.train()
    return folder, trained(trainer.model)


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of its folder that may be damaged."""
    shutil.copytree(whole[0], tmp_path / "run")
    return tmp_path / "run"


def test_a_checkpoint_says_what_is_in_it_and_who_wrote_it(whole):
    folder = whole[0]
    assert sorted(path.name for path in folder.iterdir()) == [f"checkpoint-{n}" for n in (12, 16, 4, 8)]
    note = manifest(folder / "checkpoint-12")
    assert set(note["files"]) >= {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert "aifs_latents_0.safetensors" in note["files"]
    assert "training_args.bin" not in note["files"]
    run = read_manifest(folder / "checkpoint-12")
    assert (run["step"], run["epoch"], run["world_size"], run["batch_size"]) == (12, 1.5, 1, 8)
    assert (run["seed"], run["examples"], run["method"], run["resumable"]) == (7, 64, "aifs-paper", True)


def test_damage_to_any_file_is_refused_with_the_files_name_or_changes_nothing(copied):
    """Every file: cut short, deleted, one bit flipped."""
    draw = random.Random(0)
    checkpoint, kept = copied / "checkpoint-12", copied.parent / "kept"
    shutil.copytree(checkpoint, kept)
    refused = 0
    for name in files_of(kept):
        for how, harm in DAMAGE.items():
            shutil.rmtree(checkpoint)
            shutil.copytree(kept, checkpoint)
            harm(checkpoint / name, draw.random())
            if name in ("training_args.bin", "README.md"):  # nothing reads them
                assert newest_checkpoint(copied).name == "checkpoint-16"
                assert read_manifest(checkpoint) == read_manifest(kept)
                continue
            with pytest.raises(CheckpointMismatchError) as found:
                trainer_of(copied).train(resume_from_checkpoint=str(checkpoint))
            assert str(checkpoint / name) in str(found.value), how
            assert f"the last whole checkpoint beside it is {copied / 'checkpoint-16'}" in str(found.value), how
            refused += 1
    assert refused >= 21


def test_true_takes_the_newest_whole_one_and_says_what_it_skipped(whole, copied, caplog):
    (copied / "checkpoint-16" / "optimizer.pt").unlink()
    half = unfinished(copied / "checkpoint-20")
    half.mkdir(parents=True)
    (half / "adapter_model.safetensors").write_bytes(b"half")
    resumed = trainer_of(copied)
    with caplog.at_level(logging.WARNING):
        resumed.train(resume_from_checkpoint=True)
    assert_equal(whole[1], trained(resumed.model))
    (line,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert f"resuming from {copied / 'checkpoint-12'}" in line
    assert "checkpoint-20 (not written to its end)" in line
    assert "optimizer.pt is missing" in line
    assert not list(copied.glob(".*")), "leftovers are cleared when the next checkpoint is written"
    read_manifest(copied / "checkpoint-16")  # written anew in the place of the damaged one


def test_without_a_whole_checkpoint_true_is_refused(tmp_path, copied):
    with pytest.raises(CheckpointMismatchError, match=r"no checkpoint in .*empty that can be resumed from; start"):
        trainer_of(tmp_path / "empty").train(resume_from_checkpoint=True)
    for path in copied.glob("checkpoint-*"):
        (path / "aifs_manifest.json").unlink()
    with pytest.raises(
        CheckpointMismatchError, match=r"skipped: checkpoint-16 \(there is no .*not whole, or of another"
    ):
        trainer_of(copied).train(resume_from_checkpoint=True)
    with pytest.raises(CheckpointMismatchError, match="there is no whole checkpoint beside it"):
        trainer_of(copied).train(resume_from_checkpoint=str(copied / "checkpoint-12"))


def test_a_manifest_of_another_release_is_not_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "optimizer.pt").write_bytes(b"content")
    with monkeypatch.context() as patch:
        patch.setattr("aifs_peft.training.manifest.FORMAT", 2)
        write_manifest(tmp_path, {"step": 1})
    with pytest.raises(CheckpointMismatchError, match="has format 2, and this version of aifs_peft reads 1: resume"):
        read_manifest(tmp_path)


def test_a_file_of_another_process_is_refused(copied):
    checkpoint = copied / "checkpoint-12"
    for name in ("aifs_latents_1.safetensors", "rng_state_1.pth"):
        shutil.copy(checkpoint / "aifs_latents_0.safetensors", checkpoint / name)
        with pytest.raises(CheckpointMismatchError, match=f"{name} is not of this checkpoint"):
            trainer_of(copied).train(resume_from_checkpoint=str(checkpoint))
        (checkpoint / name).unlink()
    (checkpoint / "my_notes.txt").write_text("kept by its user")
    read_manifest(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_device_train_batch_size": 4}, "batch size per process 8 then, 4 now"),
        ({"gradient_accumulation_steps": 2}, "gradient accumulation 1 then, 2 now"),
        ({"seed": 8}, "seed 7 then, 8 now"),
        ({"data_seed": 8}, "data seed 7 then, 8 now"),
        ({"data": make_data(56)}, "other data: 64 examples then, 56 now"),
        ({"data": list(reversed(make_data(64)))}, r"the same number of examples \(64\), with other labels"),
    ],
)
def test_another_run_does_not_go_on_in_mid_epoch(copied, changes, message):
    with pytest.raises(CheckpointMismatchError, match=message):
        trainer_of(copied, **changes).train(resume_from_checkpoint=str(copied / "checkpoint-12"))


def test_at_an_epochs_end_what_keeps_the_count_of_steps_may_change(copied, caplog):
    checkpoint = copied / "checkpoint-8"
    with pytest.raises(CheckpointMismatchError, match="8 steps per epoch, this one has 16"):
        trainer_of(copied, per_device_train_batch_size=4).train(resume_from_checkpoint=str(checkpoint))
    halves = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    with caplog.at_level(logging.WARNING):
        resumed = trainer_of(copied.parent / "other", **halves)
        resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 16
    assert "batch size per process 8 then, 4 now" in caplog.text


def test_the_number_of_processes_must_be_the_same_in_mid_epoch(copied):
    checkpoint = copied / "checkpoint-12"
    write_manifest(checkpoint, {**read_manifest(checkpoint), "world_size": 2, "batch_size": 4})
    with pytest.raises(CheckpointMismatchError, match="number of processes 2 then, 1 now"):
        trainer_of(copied).train(resume_from_checkpoint=str(checkpoint))


def test_weights_alone_are_resumed_only_when_told_so(tmp_path, caplog):
    trainer_of(tmp_path, save_only_model=True, num_train_epochs=1).train()
    with pytest.raises(CheckpointMismatchError, match="resume_without_optimizer=True"):
        trainer_of(tmp_path).train(resume_from_checkpoint=True)
    resumed = trainer_of(tmp_path, resume_without_optimizer=True)
    with caplog.at_level(logging.WARNING):
        resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 16
    assert "no rng_state.pth" in caplog.text


def test_a_limit_of_checkpoints_and_the_best_one_are_kept_to(tmp_path):
    values = iter([0.9, 0.2, 0.3, 0.1])
    trainer = trainer_of(
        tmp_path, num_train_epochs=4, save_strategy="epoch", eval_strategy="epoch", save_total_limit=1,
        load_best_model_at_end=True, metric_for_best_model="eval_planned", greater_is_better=True,
        eval_dataset=make_data(16), compute_metrics=lambda predictions: {"planned": next(values)},
    )  # fmt: skip
    trainer.train()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-8"]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-8")
    state = (tmp_path / "checkpoint-8" / "trainer_state.json").read_text()
    assert f'"best_model_checkpoint": "{tmp_path}/checkpoint-8"' in state


def test_what_is_published_replaces_what_was_there(tmp_path):
    checkpoint = tmp_path / "checkpoint-1"
    for text in ("old", "new"):
        unfinished(checkpoint).mkdir(parents=True)
        (unfinished(checkpoint) / "file").write_text(text)
        publish(checkpoint, {"text": text})
    assert read_manifest(checkpoint) == {"text": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


# What a run counts beside its weights


def stopping(folder, values, **options):
    """Early stopping after two evaluations without improvement, by planned values."""
    evaluations = iter(values)
    args = make_args(
        folder, num_train_epochs=8, save_strategy="steps", save_steps=2, eval_strategy="epoch",
        logging_strategy="epoch", early_stopping_patience=3, metric_for_best_model="eval_planned",
        greater_is_better=True, **options,
    )  # fmt: skip
    data = make_data(16)
    trainer = AIFSTrainer(
        make_model(AIFSConfig.paper()), args, train_dataset=data, eval_dataset=data,
        compute_metrics=lambda predictions: {"planned": next(evaluations)},
    )  # fmt: skip
    return trainer, evaluations


def history(trainer):
    keep = ("step", "loss", "eval_planned", "learning_rate")
    rows = [{name: row[name] for name in keep if name in row} for row in trainer.state.log_history]
    return [row for row in rows if len(row) > 1]


def test_patience_and_the_evaluation_of_an_epoch_survive(tmp_path):
    planned = [0.5, 0.9, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0]
    whole, _ = stopping(tmp_path / "whole", planned)
    whole.train()
    assert whole.state.global_step == 10  # best in the second epoch of two steps, then three without improvement
    for step in (2, 8):
        resumed, _ = stopping(tmp_path / f"from{step}", planned[step // 2 :])
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert resumed.state.global_step == 10
        assert history(resumed) == history(whole)
        assert resumed.state.best_metric == 0.9
    finished, left = stopping(tmp_path / "finished", planned)
    finished.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-10"))
    assert finished.state.global_step == 10
    assert_equal(trained(whole.model), trained(finished.model))
    assert next(left) == 0.5, "a run that had stopped is not evaluated again"


def test_a_callback_that_a_run_did_not_have_may_be_added(tmp_path):
    trainer_of(tmp_path, num_train_epochs=1).train()
    options = {"eval_strategy": "epoch", "metric_for_best_model": "eval_accuracy", "greater_is_better": True}
    trainer = trainer_of(tmp_path, eval_dataset=make_data(16), callbacks=[EarlyStoppingCallback(1)], **options)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step in (12, 16)


class Augmented(torch.utils.data.Dataset):
    """Draws from the three global generators at each reading."""

    def __init__(self):
        self.rows = make_data(32)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        shift = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return {**self.rows[i], "pixel_values": (self.rows[i]["pixel_values"] + shift).float()}


def noisy_collator(rows):
    pixels = torch.stack([row["pixel_values"] for row in rows])
    labels = torch.tensor([row["label"] for row in rows])
    return {"pixel_values": pixels + 0.1 * torch.randn_like(pixels), "labels": labels}


def test_random_augmentation_is_the_same_after_a_resume_and_with_workers(tmp_path):
    options = {"data": Augmented(), "data_collator": noisy_collator, "save_steps": 2, "logging_steps": 1}
    whole = trainer_of(tmp_path / "whole", **options)
    whole.train()
    resumed = trainer_of(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    assert_equal(trained(whole.model), trained(resumed.model))
    workers = trainer_of(tmp_path / "workers", dataloader_num_workers=2, **options)
    workers.train()
    assert_equal(trained(whole.model), trained(workers.model))
    losses = [row["loss"] for row in whole.state.log_history if "loss" in row]
    assert len(set(losses)) == len(losses)
