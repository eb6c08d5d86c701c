"""The reference head: against its own recursion written out, on raw latents, and what it refuses."""

import numpy as np
import pytest
import torch

from aifs_peft.errors import InvalidConfigError, NonFiniteError
from aifs_peft.methods.common.reference_head import train_reference


def planted(n=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    z = torch.randn(n, 4, generator=generator)
    z[:, 0] += 2.0 * y
    return z, y


def test_full_batches_follow_adam_written_out_in_numpy():
    z, y = planted(60)
    z, y = z[:41].clone(), (torch.arange(41) % 3 == 0).long()  # unequal classes: Adam would scale up rounding otherwise
    head = train_reference(z, y, 2, epochs=7, learning_rate=0.05, batch_size=41, weight_decay=0.1)
    Z = z.double().numpy()
    X = (Z - Z.mean(0)) / Z.std(0)
    parameters, decay = np.zeros((2, 5)), np.array([0.1] * 4 + [0.0])  # the bias last, without decay
    X1 = np.c_[X, np.ones(len(X))]
    m = v = np.zeros_like(parameters)
    for t in range(1, 8):
        logits = X1 @ parameters.T
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        gradient = (p - np.eye(2)[y]).T @ X1 / len(X1) + decay * parameters
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        parameters = parameters - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(head(z).numpy(), X1 @ parameters.T, atol=1e-4)


def test_mistakes_are_not_those_of_a_class_that_is_frequent():
    generator = torch.Generator().manual_seed(0)
    y = (torch.arange(2000) % 6 > 0).long()
    z = torch.randn(2000, 64, generator=generator)
    z[:, :4] += 1.5 * y[:, None]
    ratios = []
    for at_shares in (False, True):
        wrong = train_reference(z, y, 2, epochs=5, at_shares=at_shares)(z).argmax(1) != y
        ratios.append(float(wrong[y == 0].float().mean() / wrong[y == 1].float().mean()))
    assert ratios[0] < 1 < ratios[1]


def test_nearly_equal_classes_start_at_zero():
    z, y = planted()
    y[:40] = 0  # 180 of 400
    torch.testing.assert_close(
        train_reference(z, y, 2, epochs=1, learning_rate=1e-9, at_shares=True).bias, torch.zeros(2), atol=1e-6, rtol=0
    )


def test_scale_and_offset_of_the_latents_do_not_matter():
    z, y = planted()
    plain = train_reference(z, y, 2, epochs=3, seed=5)
    moved = z * torch.tensor([1e3, 1.0, 1e-2, 0.0]) + torch.tensor([5.0, -3.0, 0.1, 7.0])
    raw = train_reference(moved, y, 2, epochs=3, seed=5)
    without = train_reference(z * torch.tensor([1.0, 1.0, 1.0, 0.0]), y, 2, epochs=3, seed=5)
    torch.testing.assert_close(raw(moved), without(z), atol=2e-3, rtol=1e-3)
    assert (plain(z).argmax(1) == y).float().mean() > 0.75


def test_it_repeats_itself_and_leaves_the_global_generator_alone():
    z, y = planted()
    before = torch.random.get_rng_state()
    with torch.no_grad():  # gradients are its own business
        first, again = (train_reference(z, y, 2, epochs=2, seed=1) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, train_reference(z, y, 2, epochs=2, seed=2).weight)
    assert not first.weight.requires_grad


def test_another_loss_is_used():
    z, y = planted()
    head = train_reference(z, y, 2, epochs=2, loss=lambda logits, labels: (logits**2).mean())
    assert head.weight.abs().max() == 0  # zero logits are already the optimum


@pytest.mark.parametrize("option", [{"epochs": 0}, {"learning_rate": 0.0}, {"batch_size": 0}, {"weight_decay": -1.0}])
def test_numbers_out_of_range_are_refused(option):
    z, y = planted(8)
    with pytest.raises(InvalidConfigError, match=next(iter(option))):
        train_reference(z, y, 2, **{"epochs": 1, **option})


def test_weights_that_are_not_finite_are_refused():
    z, y = planted(8)
    z[3, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="reference head is not finite"):
        train_reference(z, y, 2, epochs=1)
