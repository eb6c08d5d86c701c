"""Interventions against NumPy, in every precision, with and without a basis."""

import numpy as np
import pytest
import torch

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.latent import counterfactual, intervene


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_axis_aligned_formula() -> None:
    z, m, eps = rng().normal(size=(5, 8)), rng(1).random(8), rng(2).normal(size=(5, 8))
    moved = intervene(torch.tensor(z), torch.tensor(m), torch.tensor(eps), 0.5)
    np.testing.assert_allclose(moved.numpy(), z + 0.5 * (m * eps), rtol=0, atol=1e-14)


def test_basis_formula_moves_only_in_the_span() -> None:
    z, m, eps = rng().normal(size=(5, 8)), rng(1).random(3), rng(2).normal(size=(5, 3))
    basis = np.linalg.qr(rng(3).normal(size=(8, 3)))[0]
    moved = intervene(torch.tensor(z), torch.tensor(m), torch.tensor(eps), -2.0, torch.tensor(basis)).numpy()
    expected = z - 2.0 * np.einsum("dr,br->bd", basis, m * eps)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-13)
    outside = np.eye(8) - basis @ basis.T
    np.testing.assert_allclose((moved - z) @ outside, 0.0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_empty_mask_and_zero_strength_change_nothing(dtype: torch.dtype) -> None:
    z = torch.tensor(rng().normal(size=(4, 6))).to(dtype)
    eps = torch.tensor(rng(1).normal(size=(4, 6))).to(dtype)
    for moved in (intervene(z, torch.zeros(6), eps, 3.0), intervene(z, torch.ones(6), eps, 0.0)):
        assert moved.dtype == dtype
        assert torch.equal(moved, z)


def test_half_precision_latents_with_single_precision_mask_round_once() -> None:
    z = torch.tensor(rng().normal(size=(4, 6))).to(torch.bfloat16)
    mask, eps = torch.rand(6, generator=torch.Generator().manual_seed(0)), torch.full((4, 6), 0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = intervene(z, mask, eps, 0.5, torch.eye(6))
    assert moved.dtype == torch.bfloat16
    assert torch.equal(moved, (z.float() + 0.5 * mask * eps).to(torch.bfloat16))


def test_noise_of_one_row_is_shared() -> None:
    moved = intervene(torch.zeros(3, 2), torch.tensor([1.0, 0.5]), torch.tensor([[2.0, 2.0]]), 1.0)
    assert torch.equal(moved, torch.tensor([[2.0, 1.0]] * 3))


def test_gradcheck() -> None:
    make = [(3, 4), (2,), (3, 2), (4, 2)]
    z, m, eps, u = (torch.tensor(rng(i).normal(size=s), requires_grad=True) for i, s in enumerate(make))
    assert torch.autograd.gradcheck(lambda *a: intervene(a[0], a[1], a[2], 0.7, a[3]), (z, m, eps, u))


def test_intervene_rejects() -> None:
    z, m, eps = torch.zeros(3, 4), torch.ones(4), torch.zeros(3, 4)
    cases = [
        (lambda: intervene(torch.zeros(4), m, eps, 1.0), "z must be a floating-point matrix"),
        (lambda: intervene(torch.zeros(3, 4, dtype=torch.int64), m, eps, 1.0), "z must be a floating-point"),
        (lambda: intervene(torch.zeros(2, 3, 4), m, eps, 1.0), "pool token latents"),
        (lambda: intervene(z, torch.ones(5), eps, 1.0), r"mask must have shape \(4,\)"),
        (lambda: intervene(z, m, torch.zeros(2, 4), 1.0), r"noise must have shape \(3, 4\)"),
        (lambda: intervene(z, m, torch.zeros(1, 3), 1.0), r"noise must have shape \(1, 4\)"),
        (lambda: intervene(z, m, eps, 1.0, torch.zeros(4)), "basis must have shape"),
        (lambda: intervene(z, m, eps, 1.0, torch.zeros(4, 0)), "pass basis=None"),
        (lambda: intervene(z, m, eps, 1.0, torch.zeros(5, 4)), r"basis must have shape \(4, 4\)"),
    ]
    for call, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            call()
    for strength in (float("inf"), "0.5", True):
        with pytest.raises(InvalidConfigError, match="strength must be a finite number"):
            intervene(z, m, eps, strength)


def test_counterfactual_formula_with_given_targets() -> None:
    z, beta = rng().normal(size=(6, 4)), rng(1).normal(size=(3, 4))
    a, b = np.array([0, 1, 2, 0, 1, 2]), np.array([1, 1, 0, 2, 0, 2])
    moved = counterfactual(torch.tensor(z), torch.tensor(a), torch.tensor(beta), target=torch.tensor(b)).numpy()
    np.testing.assert_allclose(moved, z + beta[b] - beta[a], atol=1e-14)
    np.testing.assert_array_equal(moved[a == b], z[a == b])


def test_counterfactual_draws_every_other_value_evenly() -> None:
    n, values = 9000, 4
    beta = torch.eye(values, dtype=torch.float64)
    a = torch.arange(n) % values
    state = torch.get_rng_state()
    moved = counterfactual(beta[a], a, beta, generator=torch.Generator().manual_seed(0))
    again = counterfactual(beta[a], a, beta, generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(moved, again)
    target = moved.argmax(dim=1)
    assert torch.equal(moved, beta[target])  # exactly on another value's place
    assert not bool((target == a).any())
    for own in range(values):
        share = torch.bincount(target[a == own], minlength=values) / (n / values)
        np.testing.assert_allclose(np.delete(share.numpy(), own), 1 / 3, atol=0.04)


def test_counterfactual_there_and_back() -> None:
    z, beta = torch.tensor(rng().normal(size=(5, 3))), torch.tensor(rng(1).normal(size=(2, 3)))
    a = torch.tensor([0, 1, 1, 0, 1])
    back = counterfactual(counterfactual(z, a, beta), 1 - a, beta)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-14)


def test_counterfactual_rejects() -> None:
    z, beta = torch.zeros(2, 3), torch.zeros(2, 3)
    a = torch.tensor([0, 1])
    cases = [
        (
            lambda: counterfactual(z, torch.tensor([0, 2]), beta),
            r"attribute must lie in \[0, 2\), got .* 0 to 2",
        ),
        (lambda: counterfactual(z, torch.tensor([0.0, 1.0]), beta), "attribute must hold integers"),
        (lambda: counterfactual(z, torch.tensor([0]), beta), r"attribute must have shape \(2,\)"),
        (lambda: counterfactual(z, a, beta, target=torch.tensor([-1, 0])), "target must lie in"),
        (lambda: counterfactual(z, a, torch.zeros(2, 4)), "displacements must have shape"),
        (lambda: counterfactual(z, a, torch.zeros(3)), "displacements must have shape"),
        (lambda: counterfactual(z, a * 0, torch.zeros(1, 3)), "no other one to move to"),
    ]
    for call, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            call()
