"""docs/theory.md, section 5: what a linear head learns first, and where its loss is sharp; and what measures them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).parents[2]
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    import dynamics_cases
    import dynamics_curvature
    import dynamics_series
WIDTH = 6


def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, labels and the parameters of a head, weights before biases."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, WIDTH, generator=generator, dtype=torch.float64)
    z[:, 1] *= 3
    y = torch.randint(2, (300,), generator=generator)
    return z, y, 0.4 * torch.randn(2 * WIDTH + 2, generator=generator, dtype=torch.float64)


def loss_of(z: Tensor, y: Tensor, parameters: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(z, parameters[:-2].view(2, -1), parameters[-2:]), y)


@pytest.mark.parametrize("axis", [0, 1])
def test_curvature_along_a_direction_is_its_second_moment_weighted_by_doubt(axis: int) -> None:
    z, y, at = problem()
    hessian = torch.autograd.functional.hessian(lambda p: loss_of(z, y, p), at)
    u = F.normalize(torch.eye(WIDTH, dtype=torch.float64)[axis] + 0.3, dim=0)
    change = dynamics_curvature.along(u)
    assert float(change.norm()) == pytest.approx(1)
    weight, bias = at[:-2].view(2, WIDTH), at[-2:]
    margin = z @ (weight[1] - weight[0]) + bias[1] - bias[0]
    assert dynamics_curvature.curvature_along(margin, z @ u) == pytest.approx(float(change @ hessian @ change))
    # Undecided, it is half of the second moment.
    assert dynamics_curvature.curvature_along(0 * margin, z @ u) == pytest.approx(float((z @ u).square().mean()) / 2)


def test_power_iteration_gives_the_top_of_the_hessian() -> None:
    z, y, at = problem()
    values, vectors = torch.linalg.eigh(torch.autograd.functional.hessian(lambda p: loss_of(z, y, p), at))
    gradient = torch.func.grad(lambda p: loss_of(z, y, p))
    value, vector = dynamics_curvature.top_curvature(gradient, at, torch.ones_like(at) + torch.arange(len(at)))
    assert value == pytest.approx(float(values[-1]), rel=1e-6)
    assert abs(float(vector @ vectors[:, -1])) == pytest.approx(1, abs=1e-6)
    assert float(vector @ dynamics_curvature.along(torch.eye(WIDTH)[1])) ** 2 > 0.75  # the axis of the largest variance


@pytest.mark.parametrize("share", [0.6, 0.95])
def test_gradient_descent_starts_with_what_goes_with_the_label(share: float) -> None:
    """At a head of zero the weights move as `D_c / 4` and `(2 rho - 1) D_s / 4`: the shortcut first if it is larger."""
    core, spurious = dynamics_cases.CORE, dynamics_cases.SPURIOUS
    gradients = []
    for seed in range(20):
        data = dynamics_cases.planted(share, seed)
        weight = torch.zeros(2, data.z.shape[1], requires_grad=True)
        F.cross_entropy(F.linear(data.z, weight), data.y).backward()
        gradients.append((weight.grad[0] - weight.grad[1])[:2] / 2)
    moved = torch.stack(gradients).mean(0)
    expected = torch.tensor([core / 4, (2 * share - 1) * spurious / 4])
    torch.testing.assert_close(moved, expected, atol=0.02, rtol=0)
    assert bool(moved[1] > moved[0]) == ((2 * share - 1) * spurious > core)


def test_adamw_starts_both_at_one_pace() -> None:
    data = dynamics_cases.planted(0.95, 0)
    weight = torch.zeros(2, data.z.shape[1], requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=1e-3)
    F.cross_entropy(F.linear(data.z, weight), data.y).backward()
    optimizer.step()
    moved = (weight[1] - weight[0]).detach()[:2]
    torch.testing.assert_close(moved, torch.full((2,), 2e-3), atol=1e-6, rtol=0)


def test_an_undecided_head_is_sharpest_along_the_larger_contrast() -> None:
    """`(1 + D^2 / 4) / 2` along a contrast of D."""
    data = dynamics_cases.planted(0.95, 0)
    nothing = torch.zeros(len(data.y), dtype=torch.float64)
    for axis, contrast in ((0, dynamics_cases.CORE), (1, dynamics_cases.SPURIOUS)):
        curvature = dynamics_curvature.curvature_along(nothing, data.z[:, axis].double())
        assert curvature == pytest.approx((1 + contrast**2 / 4) / 2, rel=0.06)


def test_summaries_of_series() -> None:
    assert dynamics_series.half_time([0.0, 1.0, 2.0, 4.0]) == pytest.approx(2)
    assert dynamics_series.half_time([0.0, 1.0, 3.0, 4.0]) == pytest.approx(1.5)
    assert dynamics_series.converged([None, None, 0.2, 0.005, 0.002]) == 3
    assert dynamics_series.converged([None, 0.0, 0.0]) == 1
    assert dynamics_series.converged([None, 0.2, 0.3]) is None
