"""LfF: its loss and weights against NumPy, the moving averages, two processes, and a planted shortcut."""

import numpy as np
import pytest
import torch
from batches import epoch_context, step_context
from planted import cell_accuracies, planted
from torch import nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods import Latents, Setup, make
from aifs_peft.methods.common.generalised_cross_entropy import generalised_cross_entropy
from aifs_peft.methods.common.initial_latents import InitialLatents
from aifs_peft.methods.reweighting.lff import UNSEEN, relative_difficulty, update_averages
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import AIFSState, LatentOutput


def built(**options):
    return make("lff", method_options=options)


def prepared(labels, **options):
    method, state = built(**options), AIFSState(3)
    method.prepare(epoch_context(nn.Identity(), state=state, labels=labels))
    return method, state


def cross_entropies(logits, y):
    logits = logits.detach().double().numpy()
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]


def test_generalised_cross_entropy_and_its_gradient():
    logits = torch.randn(4, 3, dtype=torch.float32, requires_grad=True)
    y = torch.tensor([0, 1, 2, 0])
    each = generalised_cross_entropy(logits, y, 0.7)
    p = np.exp(-cross_entropies(logits, y.numpy()))
    np.testing.assert_allclose(each.detach().numpy(), (1 - p**0.7) / 0.7, rtol=1e-5)
    (gradient,) = torch.autograd.grad(each.sum(), logits)
    (plain,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y, reduction="sum"), logits)
    torch.testing.assert_close(gradient, plain * torch.tensor(p**0.7, dtype=torch.float32)[:, None])


def test_two_steps_equal_the_formula():
    torch.manual_seed(0)
    head, biased = nn.Linear(3, 2), nn.Linear(3, 2)
    labels = torch.tensor([0, 1, 0, 1, 1])
    method, state = prepared(labels)
    z = torch.randn(5, 3)
    average = np.full((2, 5), np.nan)
    for rows in (torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 4])):
        y = labels[rows]
        context = step_context(head, y, state=state, index=rows, auxiliary=biased)
        terms = method.loss(LatentOutput(z[rows], head(z[rows])), y, context)
        new = np.stack([cross_entropies(h(z[rows]), y.numpy()) for h in (biased, head)])
        old = average[:, rows]
        average[:, rows] = np.where(np.isnan(old), new, 0.7 * old + 0.3 * new)
        scaled = np.stack([average[:, i] / np.nanmax(average[:, labels == labels[i]], axis=1) for i in rows], axis=1)
        expected = (scaled[0] / scaled.sum(0) * new[1]).mean()
        assert float(terms["cross_entropy"].detach()) == pytest.approx(expected, rel=1e-5)
        with torch.no_grad():
            head.weight.mul_(2.0)
    assert set(terms) == {"cross_entropy", "biased"}
    assert float(terms["biased"].detach()) == pytest.approx(
        float(generalised_cross_entropy(biased(z[rows]), y, 0.7).mean().detach())
    )


def test_averages_of_a_repeated_example_and_of_none_seen():
    memory = torch.tensor([[1.0, UNSEEN, UNSEEN]], dtype=torch.float64)
    update_averages(memory, torch.tensor([0, 0, 2]), torch.tensor([[2.0, 4.0, 5.0]]), 0.5)
    assert memory.tolist() == [[2.0, UNSEEN, 5.0]]
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    assert relative_difficulty(zeros, torch.tensor([0, 1]), torch.tensor([0, 0])).tolist() == [0.0, 0.0]


def test_the_biased_head_does_not_reach_the_encoder_and_reads_untuned_latents():
    torch.manual_seed(0)
    labels, head, biased = torch.tensor([0, 1, 1]), nn.Linear(3, 2), nn.Linear(3, 2)
    before = torch.randn(3, 3)
    method = built()
    untuned = lambda: Latents(before, labels, torch.arange(3), 3)  # noqa: E731 - one line
    state = AIFSState(3)
    method.prepare(epoch_context(head, state=state, encoder_trains=True, labels=labels, encode_untuned=untuned))
    z = (before + 1).requires_grad_()
    rows = torch.tensor([2, 0])
    context = step_context(head, labels[rows], state=state, index=rows, auxiliary=biased)
    terms = method.loss(LatentOutput(z[rows], head(z[rows])), labels[rows], context)
    expected = generalised_cross_entropy(biased(before[rows]), labels[rows], 0.7).mean()
    torch.testing.assert_close(terms["biased"], expected)
    assert torch.autograd.grad(terms["biased"], z, allow_unused=True) == (None,)


def test_untuned_latents_are_halved_only_where_they_fit(monkeypatch):
    monkeypatch.setattr("aifs_peft.methods.common.initial_latents.FULL_PRECISION_LIMIT", 3)
    assert InitialLatents(torch.ones(2, 2)).z.dtype == torch.float16
    assert InitialLatents(torch.full((2, 2), 1e6)).z.dtype == torch.float32
    assert InitialLatents(torch.ones(1, 2)).z.dtype == torch.float32
    assert InitialLatents(torch.ones(2, 2)).rows(torch.tensor([1]), torch.zeros(1)).dtype == torch.float32
    with pytest.raises(InvalidConfigError, match="untuned encoder"):
        built().prepare(epoch_context(nn.Identity(), encoder_trains=True, labels=torch.tensor([0, 1])))


def test_a_resumed_run_keeps_its_averages_and_a_finished_one_drops_them():
    labels = torch.tensor([0, 1, 1])
    method, state = prepared(labels)
    state.memory[0, 1] = 4.0
    method.prepare(epoch_context(nn.Identity(), state=state, labels=labels))
    assert float(state.memory[0, 1]) == 4.0
    method.finish(epoch_context(nn.Identity(), state=state, labels=labels))
    assert state.memory.numel() == 0


def test_two_processes_weigh_as_one():
    torch.manual_seed(0)
    head, biased = nn.Linear(3, 2), nn.Linear(3, 2)
    labels, z = torch.tensor([0, 1, 0, 1, 1, 0]), torch.randn(6, 3)
    method, state = prepared(labels)
    context = step_context(head, labels, state=state, auxiliary=biased)
    whole = method.loss(LatentOutput(z, head(z)), labels, context)
    losses = torch.stack(
        [nn.functional.cross_entropy(h(z), labels, reduction="none").detach() for h in (biased, head)], dim=1
    )
    means = []
    for rank in (0, 1):
        other, own_state = prepared(labels)
        rows = torch.arange(3 * rank, 3 * rank + 3)
        context = step_context(
            head, labels[rows], state=own_state, index=rows, auxiliary=biased, rank=rank, world_size=2,
            gather=lambda x: losses if x.is_floating_point() else torch.arange(6),
        )  # fmt: skip
        means.append(other.loss(LatentOutput(z[rows], head(z[rows])), labels[rows], context)["cross_entropy"])
        assert torch.equal(own_state.memory, state.memory)
    torch.testing.assert_close((means[0] + means[1]) / 2, whole["cross_entropy"])


def test_checks():
    with pytest.raises(InvalidConfigError, match="q must be"):
        built(q=0.0)
    with pytest.raises(InvalidConfigError, match="decay must be"):
        built(decay=1.0)
    with pytest.raises(InvalidConfigError, match=r"second head.*auxiliary=\"linear\""):
        built().check(Setup(nn.Linear(3, 2), encoder_trains=False, num_labels=2))


def test_conflicting_examples_are_learned_where_plain_training_fails():
    z, y, _ = planted()
    fresh = planted(n=4000, agreement=0.5, seed=1000)
    schedule = LatentSchedule(epochs=20, learning_rate=2e-2)
    plain = fit_on_latents("erm", z, y, num_labels=2, schedule=schedule)
    fit = fit_on_latents("lff", z, y, num_labels=2, schedule=schedule)
    assert min(cell_accuracies(plain.head, *fresh).values()) < 0.4
    assert min(cell_accuracies(fit.head, *fresh).values()) > 0.5
    again = fit_on_latents("lff", z, y, num_labels=2, schedule=schedule)
    assert torch.equal(fit.head.weight, again.head.weight)
