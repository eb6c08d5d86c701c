"""Group DRO with true groups, trained on latents."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shortcut_latents import fit, planted, worst_group
from torch import nn

from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError, InvalidInputError
from aifs_peft.methods import EpochContext, StepContext, make
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import AIFSState, LatentOutput

TEST = planted(2000, 0.5, seed=9)


def prepared(groups, head, state, fresh=True, **options):
    method = make("gdro-oracle", method_options=options)
    method.prepare(
        EpochContext(
            head, state, 2, encoder_trains=False, device=torch.device("cpu"), columns={"group": groups}, labels=groups,
            fresh=fresh,
        )
    )  # fmt: skip
    return method


def step_loss(method, z, y, groups, rows, head, state):
    context = StepContext(
        head, state, y[rows], rows, torch.Generator(), lambda w, k: rows, 0, columns={"group": groups}
    )
    return method.loss(LatentOutput(z[rows], head(z[rows])), y[rows], context)["cross_entropy"]


def test_the_weights_in_the_state_follow_the_recursion():
    z, y, groups = planted(300)
    head, state = nn.Linear(10, 2), AIFSState(10)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2, 10))
        head.bias.zero_()
    method = prepared(groups, head, state, eta=0.2, adjustment=1.0)
    q = np.full(4, 0.25)
    sizes = np.bincount(groups, minlength=4)
    for rows in torch.arange(300).split(32):
        value = step_loss(method, z, y, groups, rows, head, state)
        losses = F.cross_entropy(head(z[rows]), y[rows], reduction="none").detach().numpy()
        g = groups[rows].numpy()
        present = np.unique(g)
        for k in present:
            q[k] *= np.exp(0.2 * (losses[g == k].mean() + 1 / np.sqrt(sizes[k])))
        q /= q.sum()
        np.testing.assert_allclose(state.memory.numpy(), q, rtol=1e-5)
        np.testing.assert_allclose(value.item(), sum(q[k] * losses[g == k].mean() for k in present), rtol=1e-5)


def test_a_resumed_run_keeps_its_weights_and_a_new_one_starts_equal():
    _, _, groups = planted(400)
    head, state = nn.Linear(10, 2), AIFSState(10)
    learned = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    state.update(count=False, memory=learned)
    prepared(groups, head, state, fresh=False)
    assert torch.equal(state.memory, learned)
    with pytest.raises(CheckpointMismatchError, match="weights of 4 groups, the training set has 7"):
        prepared(groups + 3, head, state, fresh=False)
    prepared(groups, head, state)
    assert state.memory.tolist() == [0.25] * 4
    assert int(state.num_updates) == 0


def test_it_takes_the_shortcut_away_and_leans_on_the_worst_groups():
    data = planted()
    erm, oracle = fit("erm", data), fit("gdro-oracle", data, options={"eta": 0.1})
    assert worst_group(erm.head, *TEST) < 0.65
    assert worst_group(oracle.head, *TEST) > 0.85
    assert float(oracle.state.memory.sum()) == pytest.approx(1.0)
    # Under the head of ERM the groups that conflict have the larger loss: the weight moves to them.
    z, y, groups = data
    state = AIFSState(10)
    method = prepared(groups, erm.head, state, eta=0.1)
    for rows in torch.arange(2000).split(50):
        step_loss(method, z, y, groups, rows, erm.head, state)
    assert state.memory[[1, 2]].sum() > 0.9


def test_it_repeats_itself():
    plan = LatentSchedule(epochs=2)
    first, again = (fit("gdro-oracle", planted(200), schedule=plan) for _ in range(2))
    assert torch.equal(first.head.weight, again.head.weight)
    assert torch.equal(first.state.memory, again.state.memory)


@pytest.mark.parametrize("options", [{"eta": 0.0}, {"adjustment": -1.0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(InvalidConfigError, match=next(iter(options))):
        fit("gdro-oracle", planted(50), options=options)


def test_missing_or_unusable_groups_are_refused_before_training():
    z, y, _ = planted(50)
    with pytest.raises(InvalidConfigError, match=r"reads 'group' .* pass columns="):
        fit_on_latents("gdro-oracle", z, y, num_labels=2)
    with pytest.raises(InvalidInputError, match="none below 0"):
        fit_on_latents("gdro-oracle", z, y, num_labels=2, columns={"group": y - 1})
