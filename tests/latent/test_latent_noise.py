"""Noise: distribution, spheres, determinism, and adversarial directions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError
from aifs_peft.latent import (
    MLPHead,
    adversarial_noise,
    intervene,
    invariance_loss,
    sample_noise,
    sphere_radius,
)

KINDS = ("gaussian", "l1", "l2")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_expected_squared_length_is_the_gaussians(kind: str) -> None:
    noise = sample_noise((20_000, 24), kind, generator=seeded(), dtype=torch.float64)
    assert noise.mean().abs() < 0.01
    assert noise.square().sum(dim=1).mean() == pytest.approx(24.0, rel=0.02)


@pytest.mark.parametrize(("kind", "order"), [("l1", 1), ("l2", 2)])
def test_on_the_sphere(kind: str, order: int) -> None:
    noise = sample_noise((4, 3, 10), kind, generator=seeded(), dtype=torch.float64).numpy()
    expected = np.sqrt(10.0) if order == 2 else np.sqrt(10 * 11 / 2)
    np.testing.assert_allclose(np.linalg.norm(noise, ord=order, axis=-1), expected, rtol=1e-12)
    assert sphere_radius(kind, 10) == pytest.approx(expected)


def test_uniform_on_the_spheres() -> None:
    # |x_1| / r is Beta(1, m-1) on the l1 sphere, x_1^2 / r^2 is Beta(1/2, (m-1)/2) on the l2 sphere.
    m, n = 6, 4000
    l1 = sample_noise((n, m), "l1", generator=seeded(1), dtype=torch.float64)[:, 0].numpy() / sphere_radius("l1", m)
    l2 = sample_noise((n, m), "l2", generator=seeded(2), dtype=torch.float64)[:, 0].numpy() / sphere_radius("l2", m)
    assert stats.kstest(np.abs(l1), stats.beta(1, m - 1).cdf).pvalue > 1e-3
    assert stats.kstest(l2**2, stats.beta(0.5, (m - 1) / 2).cdf).pvalue > 1e-3
    assert abs((l1 > 0).mean() - 0.5) < 0.05
    assert abs((l2 > 0).mean() - 0.5) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_generator_decides_alone_and_global_state_is_untouched(kind: str) -> None:
    before = torch.get_rng_state()
    first = sample_noise((5, 7), kind, generator=seeded(3))
    second = sample_noise((5, 7), kind, generator=seeded(3))
    other = sample_noise((5, 7), kind, generator=seeded(4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_the_rounded_single_precision_draw(kind: str) -> None:
    full = sample_noise((5, 7), kind, generator=seeded(3))
    half = sample_noise((5, 7), kind, generator=seeded(3), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, full.to(torch.bfloat16))


def test_without_generator_the_global_seed_counts() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = sample_noise((2, 3))
        torch.manual_seed(5)
        assert torch.equal(first, sample_noise((2, 3)))
        assert not torch.equal(first, sample_noise((2, 3)))


def test_sample_noise_rejects() -> None:
    with pytest.raises(InvalidConfigError, match="did you mean 'gaussian'"):
        sample_noise((2, 3), "gausian")
    with pytest.raises(InvalidConfigError, match="kind must be one of 'l1', 'l2'"):
        sphere_radius("gaussian", 3)
    for shape in [(), (2, 0), (-1, 3)]:
        with pytest.raises(InvalidInputError, match="shape must be"):
            sample_noise(shape)
    with pytest.raises(InvalidInputError, match="floating-point type"):
        sample_noise((2, 3), dtype=torch.int64)


def heads() -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            "linear": nn.Linear(12, 3),
            "mlp": MLPHead(12, 3, hidden=(16,), activation="gelu", dropout=0.3, generator=seeded()),
        }


def divergence(head: nn.Module, z: Tensor, mask: Tensor, noise: Tensor, basis: Tensor | None) -> Tensor:
    modes = head.training
    head.eval()
    with torch.no_grad():
        value = invariance_loss(head(z), head(intervene(z, mask, noise, 1.5, basis)), reduction="none")
    head.train(modes)
    return value


@pytest.mark.parametrize("name", ["linear", "mlp"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("steps", [1, 3])
def test_adversarial_never_below_its_random_start(name: str, kind: str, rank: int | None, steps: int) -> None:
    head = heads()[name]
    z = torch.randn(40, 12, generator=seeded(1))
    basis = None if rank is None else torch.linalg.qr(torch.randn(12, rank, generator=seeded(2))).Q
    mask = torch.rand(12 if rank is None else rank, generator=seeded(3))
    start = sample_noise((40, len(mask)), kind, generator=seeded(9))
    found = adversarial_noise(head, z, mask, strength=1.5, kind=kind, basis=basis, generator=seeded(9), steps=steps)
    random_kl, found_kl = (divergence(head, z, mask, noise, basis) for noise in (start, found))
    assert bool((found_kl >= random_kl - 1e-6).all())
    assert float(found_kl.mean()) > 1.3 * float(random_kl.mean())
    order = 1 if kind == "l1" else 2
    torch.testing.assert_close(found.norm(p=order, dim=1), start.norm(p=order, dim=1))


def test_adversarial_matches_the_best_direction_of_a_binary_linear_head() -> None:
    # The logit difference moves by (w_0 - w_1) . (mask * eps): the maximiser on the l2 sphere is known up to
    # sign.
    head = nn.Linear(6, 2).double()
    z, mask = torch.zeros(3, 6, dtype=torch.float64), torch.rand(6, generator=seeded(1), dtype=torch.float64)
    found = adversarial_noise(head, z, mask, strength=0.3, kind="l2", generator=seeded(2), steps=3).numpy()
    weight = head.weight.detach().numpy()
    direction = mask.numpy() * (weight[0] - weight[1])
    best = np.sqrt(6) * direction / np.linalg.norm(direction)
    for row in found:
        assert min(np.abs(row - best).max(), np.abs(row + best).max()) < 1e-6


def test_adversarial_leaves_nothing_behind() -> None:
    head = heads()["mlp"].train()
    z, mask = torch.randn(5, 12, generator=seeded()).requires_grad_(), torch.ones(12, requires_grad=True)
    state = torch.get_rng_state()
    noise = adversarial_noise(head, z, mask, strength=1.0, generator=seeded())
    assert torch.equal(state, torch.get_rng_state())
    assert not noise.requires_grad
    assert all(p.grad is None for p in (*head.parameters(), z, mask))
    assert all(module.training for module in head.modules())
    again = adversarial_noise(head, z, mask, strength=1.0, generator=seeded())
    assert torch.equal(noise, again)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_adversarial_under_disabled_gradients(context: Callable[[], torch.no_grad]) -> None:
    head, z = heads()["mlp"], torch.randn(5, 12, generator=seeded())
    expected = adversarial_noise(head, z, torch.ones(12), strength=1.0, generator=seeded())
    with context():
        found = adversarial_noise(head, z + 0.0, torch.ones(12), strength=1.0, generator=seeded())
    torch.testing.assert_close(found, expected)


def test_adversarial_under_bf16_autocast_equals_float32() -> None:
    head, z = heads()["mlp"], torch.randn(5, 12, generator=seeded())
    expected = adversarial_noise(head, z, torch.ones(12), strength=1.0, generator=seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = adversarial_noise(head, z, torch.ones(12), strength=1.0, generator=seeded())
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_where_there_is_no_direction_returns_the_random_start(kind: str) -> None:
    head, z = heads()["linear"], torch.randn(4, 12, generator=seeded())
    start = sample_noise((4, 12), kind, generator=seeded(7))
    for mask, strength in [(torch.zeros(12), 1.0), (torch.ones(12), 0.0)]:
        found = adversarial_noise(head, z, mask, strength=strength, kind=kind, generator=seeded(7))
        assert torch.equal(found, start)
    constant = adversarial_noise(
        lambda x: torch.zeros(len(x), 2, requires_grad=True),
        z,
        torch.ones(12),
        strength=1.0,
        kind=kind,
        generator=seeded(7),
    )
    assert torch.equal(constant, start)


def test_adversarial_restores_modes_after_an_exception() -> None:
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(12, 3), nn.BatchNorm1d(99))
    head[0].eval()
    modes = [module.training for module in head.modules()]
    with pytest.raises((RuntimeError, ValueError)):
        adversarial_noise(head, torch.randn(4, 12, generator=seeded()), torch.ones(12), strength=1.0)
    assert [module.training for module in head.modules()] == modes


def test_adversarial_rejects() -> None:
    head, z = heads()["linear"], torch.zeros(4, 12)
    with pytest.raises(InvalidConfigError, match="kind must be one of"):
        adversarial_noise(head, z, torch.ones(12), strength=1.0, kind="counterfactual")
    with pytest.raises(InvalidConfigError, match="steps must be an integer of at least 1; got 0"):
        adversarial_noise(head, z, torch.ones(12), strength=1.0, steps=0)
    with pytest.raises(InvalidConfigError, match="strength must be a finite number"):
        adversarial_noise(head, z, torch.ones(12), strength=float("nan"))
    with pytest.raises(InvalidInputError, match=r"mask must have shape \(12,\)"):
        adversarial_noise(head, z, torch.ones(11), strength=1.0)
    with pytest.raises(HeadError, match="one row of logits per example"):
        adversarial_noise(lambda x: x.sum(dim=1), z, torch.ones(12), strength=1.0)
