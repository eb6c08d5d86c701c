"""XRM with group DRO: planted shortcut, group weights, resume, refusals."""

import pytest
import torch
import torch.nn.functional as F
from shortcut_latents import fit, planted, worst_group
from torch import nn

from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError
from aifs_peft.methods import EpochContext, Latents, StepContext, make
from aifs_peft.tuner import AIFSState, LatentOutput

QUICK = {"twins": {"draws": 3, "steps": 500}}


def made(**options):
    return make("xrm-gdro", method_options={**QUICK, **options})


def epoch(state, data=None, **options):
    encode = None
    if data is not None:
        latents = Latents(data[0], data[1], torch.arange(len(data[1])), len(data[1]))
        encode = lambda: latents  # noqa: E731
    return EpochContext(
        head=nn.Linear(2, 2), state=state, num_labels=2, encoder_trains=False, device=torch.device("cpu"),
        encode_untuned=encode, **options,
    )  # fmt: skip


def test_it_comes_within_two_points_of_its_oracle_on_planted_latents():
    data, test = planted(n=3000, aligned=0.95, shortcut=6.0), planted(n=6000, aligned=0.5, shortcut=6.0, seed=1)
    erm, oracle = (worst_group(fit(name, data).head, *test) for name in ("erm", "gdro-oracle"))
    first, again = (fit("xrm-gdro", data, options=QUICK) for _ in range(2))
    found = worst_group(first.head, *test)
    assert found > oracle - 0.02
    assert found > erm + 0.1
    assert torch.equal(first.head.weight, again.head.weight)


def test_with_the_true_bits_it_is_the_oracle():
    data = planted(n=400, aligned=0.8)
    z, y, groups = data
    bits = (groups % 2 != y).long()
    state = AIFSState(10)
    method = made()
    method.prepare(epoch(state, data))
    weights = torch.full((4,), 0.25, dtype=torch.float64)
    state.update(count=False, groups=bits, memory=weights)
    logits = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    context = StepContext(
        head=lambda x: x, state=state, labels=y, index=torch.arange(400), generator=torch.Generator(),
        draw=lambda width, kind: torch.zeros(400, width), step=0,
    )  # fmt: skip
    loss = method.loss(LatentOutput(z, logits), y, context)["cross_entropy"]
    losses = F.cross_entropy(logits, y, reduction="none")
    means = torch.stack([losses[(y == label) & (bits == bit)].mean() for label in (0, 1) for bit in (0, 1)])
    expected = weights * (0.01 * means.double()).exp()
    expected /= expected.sum()
    torch.testing.assert_close(state.memory, expected)
    torch.testing.assert_close(loss.double(), (expected * means).sum())


def test_batches_are_balanced_over_class_and_bit():
    state, y = AIFSState(10), torch.tensor([0, 0, 1, 1])
    state.update(count=False, groups=torch.tensor([0, 1, 0, 1]))
    assert made().sampling(y, epoch(state)).cells.tolist() == [0, 1, 2, 3]
    assert make("xrm-gdro", balance_groups=False).sampling(y, epoch(state)) is None


def test_no_mistakes_are_said_aloud(caplog):
    y = torch.arange(100) % 2
    data = (8.0 * F.one_hot(y, 2), y)
    state = AIFSState(2)
    made().prepare(epoch(state, data))
    assert "make no mistake" in caplog.text
    assert not state.groups.any()
    assert state.memory.tolist() == [0.5, 0.0, 0.5, 0.0]


def test_a_resumed_run_keeps_its_state_and_another_methods_checkpoint_is_refused():
    data = planted(n=200)
    state = AIFSState(10)
    made().prepare(epoch(state, data))
    before = {name: buffer.clone() for name, buffer in state.named_buffers()}
    made().prepare(epoch(state, fresh=False))
    assert all(torch.equal(buffer, before[name]) for name, buffer in state.named_buffers())
    with pytest.raises(CheckpointMismatchError, match="not one of method 'xrm-gdro' with 2 classes"):
        made().prepare(epoch(AIFSState(10), fresh=False))


def test_options_are_checked():
    with pytest.raises(InvalidConfigError, match="eta"):
        made(eta=-1.0)
    with pytest.raises(InvalidConfigError, match="has no option 'drawn'"):
        made(twins={"drawn": 3})
    with pytest.raises(InvalidConfigError, match="draws"):
        made(twins={"draws": 0})
