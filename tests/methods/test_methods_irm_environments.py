"""Inferred environments: EIIL's closed form and XRM's twins against independent computations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shortcut_latents import planted

from aifs_peft.errors import InvalidConfigError, InvalidInputError, NonFiniteError
from aifs_peft.methods.common.twins import TwinOptions, fit_twins, flip_probability
from aifs_peft.methods.regularisers.irm_environments import (
    check_environments,
    eiil_environments,
    given_environments,
    multiplier_gradients,
    sign_split,
)


def drawn(n, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (n,), generator=generator)


@pytest.mark.parametrize("classes", [2, 5])
def test_multiplier_gradient_equals_autograd(classes):
    logits, y = drawn(7, classes)
    w = torch.ones(7, 1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(w * logits, y, reduction="sum"), w)
    torch.testing.assert_close(multiplier_gradients(logits, y), gradient.squeeze(1))


def test_binary_eiil_is_the_error_split():
    logits, y = drawn(2000, 2)
    wrong = logits.argmax(1) != y
    assert 0.3 < wrong.float().mean() < 0.7
    assert torch.equal(sign_split(logits, y), wrong.long())


def test_with_three_classes_every_correct_example_is_in_the_first_environment():
    logits, y = drawn(2000, 3)
    environments, wrong = sign_split(logits, y), logits.argmax(1) != y
    assert not environments[~wrong].any()
    assert 0.5 < environments[wrong].float().mean() < 1.0  # some mistakes are not: the split is another one


@pytest.mark.parametrize("classes", [2, 3])
def test_sign_split_equals_gradient_ascent_on_soft_assignments(classes):
    logits, y = drawn(300, classes, seed=1)
    p, onehot = logits.numpy(), np.eye(classes)[y.numpy()]
    p = np.exp(p) / np.exp(p).sum(1, keepdims=True)
    s = torch.from_numpy(((p - onehot) * logits.numpy()).sum(1))
    a = torch.randn(300, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([a], lr=0.05)
    for _ in range(1500):
        q = a.sigmoid()
        objective = 0.5 * ((q * s).mean().square() + ((1 - q) * s).mean().square())
        optimizer.zero_grad()
        (-objective).backward()
        optimizer.step()
    soft = (a.detach() > 0).long()
    split = sign_split(logits, y)
    # Which of the two is called 1 depends on where the ascent starts.
    agreement = (soft == split).double().mean()
    assert max(agreement, 1 - agreement) > 0.99


def test_an_interpolating_reference_and_a_rare_class_are_refused():
    y = torch.arange(40) % 2
    with pytest.raises(InvalidConfigError, match=r"environment 1 \(0 of 40 examples\) holds 0 .* stop earlier"):
        check_environments(torch.zeros(40, dtype=torch.long), y, 1, "stop earlier")
    environments = torch.zeros(40, dtype=torch.long)
    environments[::2] = 1  # class 0 only
    with pytest.raises(InvalidConfigError, match=r"environment 0 .* 0 examples of class 0, fewer than min_examples=5"):
        check_environments(environments, y, 5, "stop earlier")
    check_environments(torch.arange(40) // 20, y, 10, "")


def test_given_environments_are_numbered_and_checked():
    assert given_environments(torch.tensor([5, 9, 5, 9, 1, 1]), 2).tolist() == [1, 2, 1, 2, 0, 0]
    for bad in (torch.tensor([3, 3, 3]), torch.tensor([0, 0, 0, 1]), torch.zeros(4, 2, dtype=torch.long)):
        with pytest.raises(InvalidInputError, match="at least two environments of 2 or more"):
            given_environments(bad, 2)


def test_eiil_finds_planted_conflicts_with_an_undertrained_reference():
    z, y, groups = planted(n=2000, aligned=0.9, core=1.5, shortcut=8.0)
    conflicting = groups % 2 != y
    found = eiil_environments(z, y, 2, epochs=5, learning_rate=1e-3, weight_decay=0.0, seed=0) == 1
    assert (found & conflicting).sum() / conflicting.sum() > 0.7
    assert (found & conflicting).sum() / found.sum() > 0.9


def test_flip_probability():
    uniform, sure = np.full((1, 4), 0.25, dtype=np.float32), np.eye(4, dtype=np.float32)[:1]
    np.testing.assert_allclose(flip_probability(uniform), 0.0, atol=1e-7)
    np.testing.assert_allclose(flip_probability(sure), 1.0, atol=1e-6)
    p = np.array([[0.7, 0.2, 0.1]], dtype=np.float32)
    np.testing.assert_allclose(flip_probability(p), (0.7 - 1 / 3) * 3 / 2, rtol=1e-6)


QUICK = TwinOptions(draws=3, steps=600)


@pytest.mark.parametrize("classes", [2, 3])
def test_twins_mark_planted_conflicts(classes):
    z, y, groups = planted(n=1500, aligned=0.9, num_labels=classes, shortcut=6.0)
    conflicting = groups % classes != y
    twins = fit_twins(z, y, classes, QUICK, seed=0)
    found = twins.mistakes(z, y) == 1
    assert (found & conflicting).sum() / conflicting.sum() > 0.9
    assert (found & conflicting).sum() / found.sum() > 0.9
    assert twins.flip_rate == max(twins.flip_rates)
    assert abs(twins.flip_rate - float(conflicting.float().mean())) < 0.03
    # New examples are judged by the same twins, in the units of the latents.
    z_new, y_new, groups_new = planted(n=1500, aligned=0.5, num_labels=classes, shortcut=6.0, seed=1)
    bits = twins.mistakes(z_new, y_new) == 1
    assert (bits == (groups_new % classes != y_new)).float().mean() > 0.9


def test_one_step_of_the_twins_equals_autograd():
    """From zero weights, one full batch: no label can flip yet, and the step is a plain gradient step."""
    z, y, _ = planted(n=60, dim=5)
    options = TwinOptions(draws=1, steps=1, batch_size=60, learning_rates=(-3.0, -3.0))
    twins = fit_twins(z, y, 2, options, seed=4)
    assert twins.flip_rates == (0.0,)
    rng = np.random.default_rng([4, 0x78726D])
    rng.uniform(size=2)
    owner = torch.from_numpy(rng.integers(2, size=(60, 1))[:, 0])
    x = (z - z.mean(0)) / z.std(0, correction=0)
    for twin in (0, 1):
        weight, bias = torch.zeros(2, 5, requires_grad=True), torch.zeros(2, requires_grad=True)
        losses = F.cross_entropy(x @ weight.T + bias, y, reduction="none") * (owner == twin)
        # The mean of a class is over all its examples of the batch, those of the other twin included.
        loss = sum(losses[y == label].sum() / (y == label).sum() for label in (0, 1))
        loss.backward()
        rate = 1e-3 * 2048 / 5
        expected = -rate * weight.grad / z.std(0, correction=0)
        torch.testing.assert_close(twins.weight[twin], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(twins.bias[twin], -rate * bias.grad - expected @ z.mean(0), rtol=1e-4, atol=1e-5)


def test_a_run_that_flips_a_whole_class_scores_zero():
    from aifs_peft.methods.common.twins import _flip_score

    y = np.array([0, 0, 0, 1])
    assert _flip_score(np.array([0, 1, 0, 1]), y) == 0.25
    assert _flip_score(np.array([0, 0, 0, 0]), y) == 0.0


def test_twins_repeat_and_differ_by_seed():
    z, y, _ = planted(n=300)
    first, again, other = (fit_twins(z, y, 2, TwinOptions(draws=2, steps=50), seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_twins_refuse_bad_numbers():
    for options, text in (
        ({"draws": 0}, "draws"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 1}, "batch_size"),
        ({"learning_rates": (-3.0, -5.0)}, "learning_rates must be two exponents"),
    ):
        with pytest.raises(InvalidConfigError, match=text):
            TwinOptions(**options)
    z, y, _ = planted(n=50)
    with pytest.raises(NonFiniteError, match="twins are not finite"):
        fit_twins(z.clone().index_fill(0, torch.tensor([3]), float("nan")), y, 2, TwinOptions(draws=1, steps=2), 0)
