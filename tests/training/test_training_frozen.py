"""`cache_latents`: every set passes the encoder once, the training is the same, what cannot be kept is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_zoo import assert_equal, lora, make_args, make_data, make_model, make_trainer, shortcut_data, trained

from aifs_peft.errors import InvalidConfigError
from aifs_peft.training import AIFSTrainer
from aifs_peft.tuner import AIFSConfig


def fit(folder, data, config=None, resume=None, **options):
    trainer = make(folder, data, config, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def make(folder, data, config=None, validation=None, **options):
    usual = {"num_train_epochs": 3, "eval_strategy": "epoch", "save_strategy": "epoch"}
    given = {name: options.pop(name) for name in ("compute_metrics", "data_collator") if name in options}
    args = make_args(folder, **{**usual, **options})
    sets = {"train_dataset": data, "eval_dataset": data if validation is None else validation}
    return AIFSTrainer(make_model(config or AIFSConfig(), dropout=0.1), args, **sets, **given)


def counted(trainer):
    """Counts examples that pass the encoder."""
    rows = []
    encoder = next(iter(trainer.adapted.get_base_model().children()))
    encoder.register_forward_pre_hook(
        lambda _module, args, kwargs: rows.append(len(args[0] if args else kwargs["pixel_values"])), with_kwargs=True
    )
    return rows


@pytest.mark.parametrize("config", [AIFSConfig, AIFSConfig.paper])
def test_each_set_passes_the_encoder_once_in_any_number_of_epochs(tmp_path, config):
    data, validation = shortcut_data(), make_data(24)
    trainer = make(tmp_path, data, config(), validation, num_train_epochs=6, cache_latents=True)
    rows = counted(trainer)
    trainer.train()
    assert sum(rows) == len(data) + len(validation)


@pytest.mark.parametrize("config", [AIFSConfig, AIFSConfig.paper])
def test_the_training_is_that_with_the_encoder(tmp_path, config):
    data = shortcut_data()
    with_encoder = fit(tmp_path / "a", data, config(), cache_latents=False)
    kept = fit(tmp_path / "b", data, config(), cache_latents=True)
    assert with_encoder.layer.state.has_basis == kept.layer.state.has_basis
    for (name, a), (other, b) in zip(trained(with_encoder.model).items(), trained(kept.model).items(), strict=True):
        assert name == other
        torch.testing.assert_close(a.float(), b.float(), atol=2e-3, rtol=2e-3, msg=name)
    assert [set(row) for row in with_encoder.state.log_history] == [set(row) for row in kept.state.log_history]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    data, options = shortcut_data(), {"cache_latents": True, "save_strategy": "steps", "save_steps": 5}
    whole = fit(tmp_path / "whole", data, **options)
    (step,) = {5} & {int(path.name.split("-")[1]) for path in (tmp_path / "whole").glob("checkpoint-*")}
    resumed = fit(tmp_path / "again", data, resume=str(tmp_path / "whole" / f"checkpoint-{step}"), **options)
    assert_equal(trained(whole.model), trained(resumed.model))


def test_afterwards_the_trainer_takes_inputs_again(tmp_path):
    data = make_data(24)
    trainer = make(tmp_path, data, cache_latents=True)
    collator = trainer.data_collator
    trainer.train()
    assert trainer.train_dataset is data
    assert trainer.eval_dataset is data
    assert trainer.data_collator is collator
    assert trainer.predict(data).predictions.shape == (24, 2)
    assert np.isfinite(trainer.evaluate()["eval_loss"])


def test_the_best_model_is_chosen_and_several_evaluation_sets_are_kept(tmp_path):
    sets = {"near": make_data(24), "far": make_data(32)}
    options = {"load_best_model_at_end": True, "metric_for_best_model": "eval_near_loss", "greater_is_better": False}
    trainer = make(tmp_path, shortcut_data(), None, sets, cache_latents=True, **options)
    rows = counted(trainer)
    trainer.train()
    assert sum(rows) == len(trainer.train_dataset) + 24 + 32
    assert trainer.state.best_model_checkpoint is not None


def test_metrics_get_their_columns(tmp_path):
    seen = []

    def metrics(prediction):
        seen.append(prediction.label_ids)
        return {}

    data = [{**example, "place": i % 3} for i, example in enumerate(make_data(24))]
    fit(tmp_path, data, cache_latents=True, evaluation_columns=["place"], compute_metrics=metrics, num_train_epochs=1)
    labels, places = seen[0]
    assert places.tolist() == [i % 3 for i in range(24)]
    assert labels.tolist() == [example["label"] if "label" in example else example["labels"] for example in data]


class Noisy(list):
    """A data set with random augmentation."""

    def __getitem__(self, index):
        example = super().__getitem__(index)
        return {**example, "pixel_values": example["pixel_values"] + torch.randn_like(example["pixel_values"])}


def test_random_augmentation_in_the_data_set_is_refused(tmp_path):
    trainer = make(tmp_path, Noisy(make_data(24)), cache_latents=True)
    with pytest.raises(InvalidConfigError, match="random augmentation"):
        trainer.train()


def test_random_augmentation_in_the_collator_is_refused(tmp_path):
    def noisy(examples):
        pixels = torch.stack([torch.as_tensor(e["pixel_values"]) for e in examples])
        labels = torch.tensor([e["label"] if "label" in e else e["labels"] for e in examples])
        return {"pixel_values": pixels * torch.rand(1), "labels": labels}

    trainer = make(tmp_path, make_data(24), cache_latents=True, data_collator=noisy)
    with pytest.raises(InvalidConfigError, match="random augmentation"):
        trainer.train()


def test_a_refused_training_leaves_the_trainer_as_it_was(tmp_path):
    data = Noisy(make_data(24))
    trainer = make(tmp_path, data, cache_latents=True)
    with pytest.raises(InvalidConfigError):
        trainer.train()
    assert trainer.train_dataset is data
    assert "forward" not in vars(trainer.adapted.get_base_model())


def test_an_encoder_that_is_tuned_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidConfigError, match=r"needs a frozen encoder.*lora"):
        make(tmp_path, make_data(24), AIFSConfig(encoder_adapter=lora(0.1)), cache_latents=True)


def test_a_method_that_reads_tokens_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidConfigError, match="'ravl' reads tokens"):
        make(tmp_path, make_data(24), AIFSConfig(recipe=None), cache_latents=True, method="ravl")


def test_trainers_of_the_zoo_do_not_keep_latents_unasked(tmp_path):
    assert make_trainer(tmp_path).args.cache_latents is False
