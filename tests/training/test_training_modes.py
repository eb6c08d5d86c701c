"""Modes of training, in the table of `training_modes.py`: equal to the plain training, as in `Trainer`, or refused."""

import functools
import shutil

import pytest
import torch
from test_training_compatibility import erm, upstream
from training_modes import AS_TRAINER, TABLES, assert_within, trainer_for, weights_of
from training_zoo import assert_equal, lora, trained

from aifs_peft.errors import InvalidConfigError

MODES = {mode.name: mode for rows in TABLES.values() for mode in rows}


def marked(mode, recipe, regime):
    marks = [pytest.mark.slow] if mode.slow else []
    if "inductor" in mode.name:
        marks.append(pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler"))
    return pytest.param(mode, recipe, regime, id=f"{mode.name}-{recipe}-{regime}", marks=marks)


CELLS = [(mode, *cell, mode.outcome(cell[1])) for mode in MODES.values() for cell in mode.cells]


def cells(wanted):
    return [marked(*cell[:3]) for cell in CELLS if wanted(cell[3])]


@functools.cache
def plain(recipe, regime):
    weights = weights_of(recipe, regime)
    assert any("aifs_state" in name and bool(value.any()) for name, value in weights.items()), "nothing was learnt"
    return weights


# Of Dynamo and inductor themselves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("mode", "recipe", "regime"), cells(lambda outcome: isinstance(outcome, float)))
def test_it_equals_the_plain_training(mode, recipe, regime):
    if mode.options.get("torch_compile") or "torch_compile_backend" in mode.options:
        torch._dynamo.reset()
    assert_within(weights_of(recipe, regime, mode), plain(recipe, regime), mode.outcome(regime))


@pytest.mark.parametrize(("mode", "recipe", "regime"), cells(lambda outcome: outcome == AS_TRAINER))
def test_a_resumed_training_under_it_ends_where_it_would_have(mode, recipe, regime, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 5}
    whole = trainer_for(str(tmp_path / "whole"), recipe, regime, mode, **saving)
    whole.train()
    resumed = trainer_for(str(tmp_path / "whole"), recipe, regime, mode, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-15"))
    assert_within(trained(resumed.model), trained(whole.model), 0.0)
    assert resumed.state.global_step == whole.state.global_step == 20
    assert any(not torch.equal(value, plain(recipe, regime)[name]) for name, value in trained(whole.model).items())


@pytest.mark.parametrize(
    ("mode", "regime"),
    [
        pytest.param(mode, regime, id=f"{mode.name}-{regime}")
        for mode in MODES.values()
        for regime in ("frozen", "LoRA")
        if mode.outcome(regime) == AS_TRAINER and "neftune_noise_alpha" not in mode.options and not mode.streamed
    ],
)
def test_plain_training_under_it_is_that_of_trainer(mode, regime, tmp_path):
    inner = lora() if regime == "LoRA" else None
    theirs = upstream(tmp_path / "theirs", encoder=inner, **mode.options)
    ours = erm(tmp_path / "ours", encoder=inner, **mode.options)
    theirs.train()
    ours.train()
    assert_equal(trained(ours.model), trained(theirs.model), exact=False, tolerance=1e-5)


@pytest.mark.parametrize(
    ("mode", "recipe", "regime"), cells(lambda outcome: isinstance(outcome, str) and outcome != AS_TRAINER)
)
def test_it_is_refused_by_name(mode, recipe, regime, tmp_path):
    with pytest.raises(InvalidConfigError) as caught:
        trainer_for(str(tmp_path), recipe, regime, mode)
    assert str(caught.value).startswith(mode.outcome(regime))
