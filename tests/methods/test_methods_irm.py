"""IRM: its penalty against autograd, its loss against NumPy, environments given and inferred."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shortcut_latents import fit, planted, worst_group
from torch import nn

from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError, InvalidInputError
from aifs_peft.methods import EpochContext, StepContext, get, make
from aifs_peft.methods.regularisers.irm import irm_penalties
from aifs_peft.methods.regularisers.irm_environments import multiplier_gradients
from aifs_peft.training.latent_trainer import LatentSchedule
from aifs_peft.tuner import AIFSState, LatentOutput

LIMITS = {"min_examples": 1}


def made(**options):
    return make("irm", method_options={**LIMITS, **options})


def epoch(state, environments=None, **options):
    columns = {} if environments is None else {"environment": environments}
    return EpochContext(
        head=nn.Linear(2, 2), state=state, num_labels=2, encoder_trains=False, device=torch.device("cpu"),
        columns=columns, **options,
    )  # fmt: skip


def step(state, labels, **options):
    return StepContext(
        head=lambda z: z, state=state, labels=labels, index=torch.arange(len(labels)),
        generator=torch.Generator(), draw=lambda width, kind: torch.zeros(len(labels), width),
        **{"step": 0, **options},
    )  # fmt: skip


def drawn(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 3, generator=generator)
    return logits, torch.randint(3, (n,), generator=generator), torch.randint(2, (n,), generator=generator)


def test_penalty_equals_autograd_on_the_dummy_multiplier():
    logits, y, environments = drawn()
    logits = logits.double().requires_grad_()
    found, enough = irm_penalties(multiplier_gradients(logits, y), environments, 2, unbiased=False)
    expected = []
    for e in (0, 1):
        w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        risk = F.cross_entropy(w * logits[environments == e], y[environments == e])
        (gradient,) = torch.autograd.grad(risk, w, create_graph=True)
        expected.append(gradient.square())
    assert enough.all()
    torch.testing.assert_close(found, torch.stack(expected))
    # The derivative with respect to the logits too: autograd needs a second backward pass for it, we do not.
    ours = torch.autograd.grad(found.sum(), logits, retain_graph=True)[0]
    theirs = torch.autograd.grad(torch.stack(expected).sum(), logits)[0]
    torch.testing.assert_close(ours, theirs)


def test_two_halves_are_unbiased_where_the_square_is_not():
    generator = torch.Generator().manual_seed(0)
    mean, n, draws = 0.1, 8, 20_000
    gradients = mean + torch.randn(draws, n, generator=generator)
    one = torch.zeros(n, dtype=torch.long)
    halves = torch.stack([irm_penalties(row, one, 1)[0][0] for row in gradients[:4000]])
    squares = torch.stack([irm_penalties(row, one, 1, unbiased=False)[0][0] for row in gradients[:4000]])
    assert abs(float(halves.mean()) - mean**2) < 4 * float(halves.std()) / 4000**0.5
    assert abs(float(squares.mean()) - (mean**2 + 1 / n)) < 4 * float(squares.std()) / 4000**0.5
    assert (halves < 0).any()


def test_too_small_environments_do_not_count():
    gradients = torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0], requires_grad=True)
    penalties, enough = irm_penalties(gradients, torch.tensor([0, 0, 0, 0, 1]), 3)
    assert enough.tolist() == [True, False, False]
    assert penalties.tolist() == [2.0 * 3.0, 0.0, 0.0]


@pytest.mark.parametrize(("progress", "weight"), [(0.1, 1.0), (0.5, 50.0)])
def test_loss_equals_numpy_before_and_after_the_annealing_step(progress, weight):
    logits, y, environments = drawn()
    method, state = made(environments="given", penalty=50.0, anneal=0.25), AIFSState(3)
    method.prepare(epoch(state, environments * 7))
    terms = method.loss(LatentOutput(logits, logits), y, step(state, y, progress=progress))
    x, e = logits.numpy().astype(np.float64), environments.numpy()
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    loss = -np.log(p[np.arange(24), y.numpy()])
    s = ((p - np.eye(3)[y.numpy()]) * x).sum(1)
    risk = np.mean([loss[e == k].mean() for k in (0, 1)])
    penalty = np.mean([s[e == k][0::2].mean() * s[e == k][1::2].mean() for k in (0, 1)])
    assert float(terms["cross_entropy"]) == pytest.approx(risk / weight, rel=1e-5)
    assert float(terms["irm_penalty"]) == pytest.approx(penalty, rel=1e-4)


def test_gradients_of_two_processes_average_to_those_of_one():
    logits, y, environments = drawn(32)
    head = nn.Linear(3, 3)
    method, state = made(environments="given", anneal=0.0), AIFSState(3)
    method.prepare(epoch(state, environments))

    def gradient(rows, **options):
        head.zero_grad()
        out = head(logits[rows])
        context = replace(step(state, y[rows], **options), index=rows)
        terms = method.loss(LatentOutput(logits[rows], out), y[rows], context)
        sum(terms.values()).backward()
        return head.weight.grad.clone(), sum(terms.values()).detach()

    whole, loss = gradient(torch.arange(32))
    parts = [torch.arange(16), torch.arange(16, 32)]
    # What each process contributes, in the order of its calls, then what a gather would give to both.
    said: list[list[torch.Tensor]] = [[], []]
    for rank in (0, 1):
        gradient(
            parts[rank], rank=rank, world_size=2, gather=lambda x, r=rank: (said[r].append(x), torch.cat([x, x]))[1]
        )
    together = [torch.cat(pair) for pair in zip(*said, strict=True)]
    results = []
    for rank in (0, 1):
        replies = iter(together)
        results.append(gradient(parts[rank], rank=rank, world_size=2, gather=lambda x, it=replies: next(it)))
    torch.testing.assert_close((results[0][0] + results[1][0]) / 2, whole)
    torch.testing.assert_close(results[0][1], loss)
    torch.testing.assert_close(results[1][1], loss)


def coloured(n, flips, seed=0):
    """Colored MNIST's law on two numbers: a class cue under 25 % label noise, a colour that tells the noisy label."""
    generator = torch.Generator().manual_seed(seed)

    def coin(share, size):
        return (torch.rand(size, generator=generator) < share).long()

    environment = torch.arange(n) % len(flips)
    shape = torch.randint(2, (n,), generator=generator)
    y = (shape + coin(0.25, n)) % 2
    colour = (y + (torch.rand(n, generator=generator) < torch.tensor(flips)[environment]).long()) % 2
    z = torch.stack([2.0 * shape - 1, 2.0 * colour - 1], dim=1)
    return z + 0.1 * torch.randn(n, 2, generator=generator), y, environment


def test_given_environments_turn_it_away_from_the_colour():
    z, y, environment = coloured(8000, (0.1, 0.2))
    z_test, y_test, _ = coloured(4000, (0.9,), seed=1)
    schedule = LatentSchedule(epochs=100, batch_size=2000, learning_rate=0.1)
    accuracy = {}
    for method, options in (("erm", {}), ("irm", {"environments": "given", "penalty": 1e3})):
        result = fit(
            method, (z, y, environment), options=options, schedule=schedule, columns={"environment": environment}
        )
        accuracy[method] = float((result.head(z_test).argmax(1) == y_test).float().mean())
    assert accuracy["erm"] < 0.2
    assert accuracy["irm"] > 0.6


def test_inferred_environments_raise_the_worst_group_and_repeat():
    planted_as = {"core": 1.5, "shortcut": 6.0}
    data, test = planted(n=2000, **planted_as), planted(n=4000, aligned=0.5, seed=1, **planted_as)
    erm = worst_group(fit("erm", data).head, *test)
    eiil = {"environments": "eiil", "reference_learning_rate": 1e-3}
    xrm = {"environments": "xrm", "twins": {"draws": 2, "steps": 300}}
    for options in (eiil, xrm):
        options = {**options, "penalty": 1.0, "min_examples": 5}
        first, again = (fit("irm", data, options=options) for _ in range(2))
        assert torch.equal(first.head.weight, again.head.weight)
        assert worst_group(first.head, *test) > erm + 0.1
        conflicting = data[2] % 2 != data[1]
        assert (first.state.groups[conflicting] == 1).float().mean() > 0.6


def test_names_supervision_and_columns_follow_the_source():
    for source, title, supervision, columns in (
        ("given", "IRM", "hints", ("environment",)),
        ("eiil", "IRM-EIIL", "none", ()),
        ("xrm", "IRM-XRM", "none", ()),
    ):
        method = made(environments=source)
        assert (method.title, method.supervision, method.columns()) == (title, supervision, columns)
    assert get("irm").supervision == "none"


def test_it_refuses_what_it_cannot_work_with():
    for options, text in (
        ({"environments": "guess"}, "environments must be one of 'given', 'eiil', 'xrm'"),
        ({"penalty": -1.0}, "penalty"),
        ({"anneal": 1.5}, "anneal"),
        ({"min_examples": 0}, "min_examples"),
        ({"reference_epochs": 0}, "reference_epochs"),
        ({"reference_learning_rate": 0.0}, "reference_learning_rate"),
        ({"reference_weight_decay": -1.0}, "reference_weight_decay"),
        ({"twins": {"step": 3}}, "did you mean 'steps'"),
    ):
        with pytest.raises(InvalidConfigError, match=text):
            make("irm", method_options=options)
    data = planted(n=200)
    with pytest.raises(InvalidConfigError, match=r"pass columns=.'environment'"):
        fit("irm", data, options={"environments": "given"}, columns={})
    with pytest.raises(InvalidInputError, match="at least two environments"):
        fit("irm", data, options={"environments": "given"}, columns={"environment": torch.zeros(200, dtype=torch.long)})


def test_a_reference_that_fits_everything_is_refused_with_a_remedy():
    y = torch.arange(100) % 2
    z = torch.nn.functional.one_hot(y, 2).float() * 8
    with pytest.raises(InvalidConfigError, match=r"environment 1 \(0 of 100 examples\).*change reference_epochs"):
        fit("irm", (z, y, y))
    with pytest.raises(InvalidConfigError, match="use the method xrm-gdro"):
        fit("irm", (z, y, y), options={"environments": "xrm", "twins": {"draws": 1, "steps": 50}})


def test_batches_too_small_for_the_penalty_and_foreign_checkpoints_are_refused():
    z, y, environment = coloured(40, (0.1, 0.2))
    with pytest.raises(InvalidConfigError, match="a batch of 6 examples cannot hold 4 of each of 2 environments"):
        fit(
            "irm", (z, y, environment), options={"environments": "given", **LIMITS},
            columns={"environment": environment}, schedule=LatentSchedule(epochs=1, batch_size=6),
        )  # fmt: skip
    with pytest.raises(CheckpointMismatchError, match="holds no environments"):
        made().prepare(epoch(AIFSState(3), fresh=False))


def test_a_resumed_run_keeps_its_environments_and_balances_over_them():
    _, y, environment = coloured(40, (0.1, 0.2, 0.3))
    state = AIFSState(2)
    method = made(environments="given")
    method.prepare(epoch(state, environment))
    resumed = made(environments="given")
    resumed.prepare(epoch(state, torch.zeros(40, dtype=torch.long), fresh=False))
    assert torch.equal(resumed.sampling(y, epoch(state)).cells, environment)
    flat = make("irm", balance_groups=False)
    assert flat.sampling(y, epoch(state)) is None
