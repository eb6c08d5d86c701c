"""One source of a method's default numbers: every way to a method gives the same settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_zoo import METHODS, MODALITIES, make_trainer, runs_on
from shortcut_latents import planted, worst_group

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.errors import InvalidConfigError
from aifs_peft.experiments import FinetuneSpec
from aifs_peft.experiments.build import adapter_config
from aifs_peft.methods import MethodSettings, get, make
from aifs_peft.training import latent_trainer
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import AIFSConfig

SHORT = LatentSchedule(epochs=1)


@pytest.fixture
def seen(monkeypatch):
    """The settings that training on latents hands to a method, instead of training."""
    caught = []

    class CaughtError(Exception):
        pass

    def catch(name):
        def build(settings):
            caught.append(settings)
            raise CaughtError

        return build

    def run(call):
        monkeypatch.setattr(latent_trainer, "get", catch)
        with pytest.raises(CaughtError):
            call()
        monkeypatch.undo()
        return caught.pop()

    return run


@pytest.mark.parametrize("name", METHODS)
def test_every_way_to_a_method_gives_its_default_numbers(name, seen, tmp_path):
    wanted = MethodSettings.for_method(name)
    assert make(name).settings == wanted
    Z, y, groups = planted(80)
    assert seen(lambda: fit_on_latents(name, Z, y, num_labels=2)) == wanted
    if get(name).on_latents:
        recipes = [name, *({"aifs-paper": "paper"}.get(name, name),)]
        for recipe in dict.fromkeys(recipes):
            classifier = AIFSClassifier(recipe, schedule=SHORT, random_state=0)
            attributes = np.asarray(groups) % 2 if get(name).supervision == "groups" else None
            given = seen(lambda c=classifier, a=attributes: c.fit(Z.numpy(), y.numpy(), groups=a))
            assert replace(given, seed=wanted.seed) == wanted
    # The adapter that the command line builds for the method, and the one of the trainer's tests.
    assert MethodSettings.from_config(adapter_config(name, FinetuneSpec())) == wanted
    modality = next(m for m in reversed(MODALITIES) if runs_on(name, m))
    trained = make_trainer(name, modality, "frozen", tmp_path).method.settings
    assert replace(trained, seed=wanted.seed, method_options={}) == wanted


def test_settings_without_a_method_do_not_exist():
    """Numbers that belong to neither recipe cannot be made by leaving them out."""
    with pytest.raises(TypeError, match=r"missing \d+ required keyword-only arguments"):
        MethodSettings()
    with pytest.raises(TypeError, match="missing"):
        MethodSettings(alpha=1.0, noise="gaussian")


def test_defaults_of_aifs_do_not_reward_the_shortcut():
    """The same training by settings that were made for the method, and by none."""
    data, test = planted(2000), planted(4000, 0.5, seed=9)
    Z, y, _ = data
    schedule = LatentSchedule(epochs=10, learning_rate=0.01)
    settings = MethodSettings.for_method("aifs", seed=0)
    given, default = (
        fit_on_latents("aifs", Z, y, num_labels=2, schedule=schedule, settings=s).head for s in (settings, None)
    )
    assert torch.equal(given.weight, default.weight)
    plain = fit_on_latents("erm", Z, y, num_labels=2, schedule=schedule).head
    assert worst_group(default, *test) > worst_group(plain, *test) + 0.1


def test_numbers_of_a_recipe_follow_its_text():
    discovery, paper = (MethodSettings.for_method(name) for name in ("aifs", "aifs-paper"))
    assert (discovery.noise, discovery.sensitivity_sign) == ("counterfactual", 1)
    assert (paper.noise, paper.sensitivity_sign, paper.mask_rule, paper.mask_scale, paper.attribution) == (
        "gaussian",
        -1,
        "inverse",
        "sum",
        "gradient_x_input",
    )


def test_unknown_names_are_refused():
    with pytest.raises(InvalidConfigError, match="unknown method 'aif'"):
        MethodSettings.for_method("aif")
    with pytest.raises(InvalidConfigError, match=r"no field 'bta' \(did you mean 'beta'"):
        MethodSettings.for_method("aifs", bta=0.0)


@pytest.mark.parametrize("given", [[2.0, 1.0], "[2, 1]", "probability"])
def test_class_weights_reach_the_method_from_configuration_and_trainer(given, tmp_path):
    wanted = "probability" if given == "probability" else [2.0, 1.0]
    trainer = make_trainer("aifs-paper", "table", "frozen", tmp_path, class_weights=given)
    assert trainer.method.settings.class_weights == wanted
    assert MethodSettings.from_config(AIFSConfig.paper(class_weights=wanted)).class_weights == wanted
    trainer.train()
    plain = make_trainer("aifs-paper", "table", "frozen", tmp_path)
    plain.train()
    assert not torch.equal(trainer.layer.state.ema, plain.layer.state.ema)


def test_class_weights_that_are_none_are_refused(tmp_path):
    for given in ("equal", "{}", [], ["a"]):
        with pytest.raises(InvalidConfigError, match="class_weights must be one number per class"):
            make_trainer("aifs-paper", "table", "frozen", tmp_path, class_weights=given)


def test_training_on_latents_can_be_watched():
    Z, y, _ = planted(400)
    schedule, seen = LatentSchedule(epochs=3, learning_rate=0.01), []

    def watch(epoch, head, state):
        assert not head.training
        assert not torch.is_grad_enabled()
        seen.append((epoch, head.weight.detach().clone(), int(state.num_updates)))
        return {"length": float(head.weight.norm())}

    watched = fit_on_latents("aifs-paper", Z, y, num_labels=2, schedule=schedule, watch=watch)
    alone = fit_on_latents("aifs-paper", Z, y, num_labels=2, schedule=schedule)
    assert torch.equal(watched.head.weight, alone.head.weight)
    assert [epoch for epoch, *_ in seen] == [row["epoch"] for row in watched.history] == [0, 1, 2, 3]
    assert [updates for *_, updates in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], watched.head.weight)
    assert [row["length"] for row in watched.history] == [float(weight.norm()) for _, weight, _ in seen]
    assert [row["epoch"] for row in alone.history] == [1, 2, 3]
