"""The default recipe end to end on a tiny ViT: discover, balance, intervene, select; and nothing where nothing is."""

import logging

import pytest
import torch
from training_zoo import assert_equal, lora, make_data, make_trainer, shortcut_data, trained

from aifs_peft.errors import InvalidConfigError
from aifs_peft.training.epoch_runner import EpochRunner
from aifs_peft.tuner import AIFSConfig


def group_accuracy(trainer, data):
    predicted = torch.as_tensor(trainer.predict(data).predictions).argmax(1)
    group = torch.tensor([row["group"] for row in data])
    correct = predicted == torch.tensor([row["label"] for row in data])
    return min(correct[group == g].float().mean().item() for g in range(4))


@pytest.mark.parametrize("encoder", [None, "lora"])
def test_finds_the_shortcut_and_beats_erm_on_the_worst_group(tmp_path, encoder):
    train, test = shortcut_data(300), shortcut_data(400, seed=1, rate=2)
    worst = {}
    for recipe in ("erm", "discovery"):
        config = AIFSConfig(recipe=recipe, encoder_adapter=lora() if encoder else None)
        trainer = make_trainer(
            tmp_path, config, train, eval_dataset=test, eval_strategy="epoch", num_train_epochs=5, logging_steps=10
        )
        trainer.train()
        worst[recipe] = group_accuracy(trainer, test)
    state = trainer.layer.state
    truth = torch.tensor([row["group"] % 2 for row in train])
    assert (state.groups == truth).float().mean() > 0.97
    assert state.basis.shape == (16, 1)
    assert state.basis.norm().item() == pytest.approx(1, abs=1e-5)
    first = trainer.state.log_history[0]
    assert first["spurious_direction_found"] == 1
    assert first["conflicting_share"] == pytest.approx(0.05, abs=0.03)
    evaluations = [row for row in trainer.state.log_history if "eval_accuracy" in row]
    if encoder is None:
        # One in two test examples conflicts: the inferred groups of held-out data say so without a group label. (An
        # encoder that is trained to be invariant blurs the attribute, so that nothing exact is left to compare.)
        assert evaluations[-1]["eval_inferred_conflicting_share"] == pytest.approx(0.5, abs=0.05)
        assert evaluations[-1]["eval_worst_inferred_group_accuracy"] == pytest.approx(worst["discovery"], abs=0.06)
    assert {"invariance", "sensitivity"} <= set().union(*trainer.state.log_history)
    # LoRA on this tiny encoder repairs most of plain training's shortcut by itself: there it must not do harm.
    assert worst["discovery"] > worst["erm"] + (0.1 if encoder is None else -0.05)


def test_nothing_found_is_erm_bit_for_bit(tmp_path, caplog):
    data = make_data(96)
    for row, other in zip(data, shortcut_data(96, rate=2), strict=True):
        row["pixel_values"] = other["pixel_values"]
    erm = make_trainer(tmp_path, AIFSConfig(recipe="erm", encoder_adapter=lora(0.1)), data)
    erm.train()
    with caplog.at_level(logging.WARNING):
        aifs = make_trainer(tmp_path, AIFSConfig(encoder_adapter=lora(0.1)), data)
        aifs.train()
    assert "no spurious direction found" in caplog.text
    assert aifs.layer.state.groups.numel() == 0
    weights = {name: value for name, value in trained(erm.model).items() if "aifs_state" not in name}
    assert_equal(weights, {name: value for name, value in trained(aifs.model).items() if name in weights})


@pytest.mark.parametrize("directions", ["refit", "rediscover", "keep"])
def test_directions_follow_a_trained_encoder(tmp_path, monkeypatch, directions):
    trainer = make_trainer(
        tmp_path, AIFSConfig(encoder_adapter=lora()), shortcut_data(), directions=directions, num_train_epochs=1
    )
    bases = []
    begin = EpochRunner.begin_epoch

    def spy(self, epoch):
        bases.append(trainer.layer.state.basis.clone())
        begin(self, epoch)

    monkeypatch.setattr(EpochRunner, "begin_epoch", spy)
    trainer.train()
    same = torch.equal(bases[0], trainer.layer.state.basis)
    assert same == (directions == "keep")
    assert int(trainer.layer.state.num_updates) == (1 if directions == "keep" else 2)


def test_batches_are_balanced_over_inferred_groups(tmp_path):
    data = shortcut_data(300)
    trainer = make_trainer(tmp_path, AIFSConfig(), data, num_train_epochs=1, max_repeats=50)
    trainer.train()
    drawn = torch.tensor(list(trainer.runner.sampler))
    cells = trainer.labels * 2 + trainer.layer.state.groups
    assert torch.bincount(cells[drawn]).tolist() == [75, 75, 75, 75]
    plain = make_trainer(tmp_path, AIFSConfig(), data, num_train_epochs=1, balance_groups=False)
    plain.train()
    assert sorted(plain.runner.sampler) == list(range(300))


def test_noise_kinds_in_the_basis(tmp_path):
    for options in ({"noise": "l2"}, {"noise": "gaussian", "adversarial": True}):
        trainer = make_trainer(tmp_path, AIFSConfig(**options), shortcut_data(), num_train_epochs=1)
        trainer.train()
        assert trainer.state.log_history[5]["invariance"] > 0


def test_counterfactuals_need_discovery(tmp_path):
    with pytest.raises(InvalidConfigError, match='recipe "discovery"'):
        make_trainer(tmp_path, AIFSConfig(noise="counterfactual"), method="aifs-paper")


def test_unknown_method_names_the_closest(tmp_path):
    with pytest.raises(InvalidConfigError, match="did you mean 'aifs-paper'"):
        make_trainer(tmp_path, method="aifs-papre")


@pytest.mark.parametrize("encoder", [None, "lora"])
def test_nothing_found_with_unequal_classes_lets_them_count_alike(tmp_path, caplog, encoder):
    data = [row for i, row in enumerate(make_data(160)) if row["label"] == 0 or i % 10 == 1]
    adapter = {"encoder_adapter": lora(0.1) if encoder else None}
    weights, logged = {}, {}
    for name, recipe, options in (
        ("erm", "erm", {}),
        ("plain", "discovery", {"method_options": {"class_weight": None}}),
        ("evened", "discovery", {}),
    ):
        caplog.clear()
        trainer = make_trainer(tmp_path / name, AIFSConfig(recipe=recipe, **adapter), data, **options)
        trainer.train()
        weights[name] = {key: value for key, value in trained(trainer.model).items() if "aifs_state" not in key}
        logged[name] = caplog.text, trainer.state.log_history[0].get("classes_evened")
    assert logged["plain"] == (logged["plain"][0], 0.0)
    assert logged["evened"][1] == 1.0
    assert "from here on this is plain training, with classes that count alike" in logged["evened"][0]
    assert "count alike" not in logged["plain"][0]
    assert_equal(weights["erm"], weights["plain"])
    bias = [next(value for key, value in weights[name].items() if key.endswith("bias")) for name in ("erm", "evened")]
    assert (bias[1] - bias[0])[1] > (bias[1] - bias[0])[0]  # towards the rare class
