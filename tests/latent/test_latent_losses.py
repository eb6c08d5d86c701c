"""Losses against NumPy, gradcheck, precision, and where gradients may and may not go."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError
from aifs_peft.latent import MLPHead, invariance_loss, label_log_prob_gradient, sensitivity_loss


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def mlp(dropout: float = 0.0) -> MLPHead:
    return MLPHead(6, 3, (5,), "gelu", dropout, generator=torch.Generator().manual_seed(0)).double()


def test_invariance_formula() -> None:
    clean, moved = normal(7, 4).numpy() * 3, normal(7, 4, seed=1).numpy() * 3
    p, q = softmax(clean), softmax(moved)
    rows = (p * np.log(p / q)).sum(axis=1)
    for reduction, expected in [("none", rows), ("sum", rows.sum()), ("mean", rows.mean())]:
        got = invariance_loss(torch.tensor(clean), torch.tensor(moved), reduction).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_invariance_is_zero_without_change_and_ignores_a_shift_of_all_logits() -> None:
    logits = normal(5, 3)
    assert float(invariance_loss(logits, logits)) == 0.0
    assert float(invariance_loss(logits, logits + 7.0)) == pytest.approx(0.0, abs=1e-14)


def test_invariance_of_extreme_logits_is_finite() -> None:
    clean = torch.tensor([[1e4, -1e4], [0.0, 1e4]], requires_grad=True)
    moved = torch.tensor([[-1e4, 1e4], [0.0, 1e4]], requires_grad=True)
    loss = invariance_loss(clean, moved, "sum")
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert clean.grad is not None
    assert moved.grad is not None
    assert bool(torch.isfinite(clean.grad).all() & torch.isfinite(moved.grad).all())


def test_invariance_reaches_both_arguments() -> None:
    clean, moved = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(invariance_loss, (clean, moved))


def test_invariance_under_autocast_is_single_precision() -> None:
    clean, moved = normal(6, 4).bfloat16(), normal(6, 4, seed=1).bfloat16()
    expected = invariance_loss(clean.float(), moved.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = invariance_loss(clean, moved)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_invariance_rejects() -> None:
    with pytest.raises(InvalidInputError, match=r"intervened_logits must have shape \(2, 3\)"):
        invariance_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(InvalidInputError, match="clean_logits must be a floating-point matrix"):
        invariance_loss(torch.zeros(3), torch.zeros(3))
    with pytest.raises(InvalidConfigError, match="reduction must be one of"):
        invariance_loss(torch.zeros(2, 3), torch.zeros(2, 3), "avg")


@pytest.mark.parametrize("sign", [-1, 1])
def test_sensitivity_formula(sign: int) -> None:
    g, m = normal(7, 5).numpy(), np.random.default_rng(1).random(5)
    expected = sign * sum(m[j] * np.mean([abs(g[b, j]) for b in range(7)]) for j in range(5))
    assert float(sensitivity_loss(torch.tensor(g), torch.tensor(m), sign)) == pytest.approx(expected, rel=1e-13)


def test_sensitivity_along_a_basis() -> None:
    g, m = normal(7, 5).numpy(), np.random.default_rng(1).random(2)
    basis = np.linalg.qr(normal(5, 2, seed=3).numpy())[0]
    expected = (m * np.abs(g @ basis).mean(axis=0)).sum()
    got = sensitivity_loss(torch.tensor(g), torch.tensor(m), 1, basis=torch.tensor(basis))
    assert float(got) == pytest.approx(expected, rel=1e-13)


def test_sensitivity_survives_a_mask_refreshed_in_place() -> None:
    mask = torch.rand(6, dtype=torch.float64)
    gradients = normal(4, 6).requires_grad_()
    expected = torch.autograd.grad(sensitivity_loss(gradients, mask.clone()), gradients)[0]
    loss = sensitivity_loss(gradients, mask)
    mask.zero_()
    torch.testing.assert_close(torch.autograd.grad(loss, gradients)[0], expected)


def test_sensitivity_gradcheck() -> None:
    assert torch.autograd.gradcheck(
        lambda g, m: sensitivity_loss(g, m, -1),
        (normal(4, 6).requires_grad_(), normal(6, seed=2).requires_grad_()),
    )


def test_sensitivity_rejects() -> None:
    g = torch.zeros(2, 3)
    for sign in (0, 2, "plus"):
        with pytest.raises(InvalidConfigError, match=r"sign must be -1 .* or \+1"):
            sensitivity_loss(g, torch.ones(3), sign)
    with pytest.raises(InvalidInputError, match=r"mask must have shape \(3,\)"):
        sensitivity_loss(g, torch.ones(2, 3))
    with pytest.raises(InvalidInputError, match="gradients must be a floating-point matrix"):
        sensitivity_loss(torch.zeros(3), torch.ones(3))


def numeric_gradient(head: Callable[[Tensor], Tensor], z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Central differences of log p(y|z)."""
    slopes = np.zeros_like(z)
    rows, step = np.arange(len(z)), 1e-6
    for j in range(z.shape[1]):
        ends = []
        for side in (1, -1):
            point = z.copy()
            point[:, j] += side * step
            ends.append(np.log(softmax(head(torch.tensor(point)).detach().numpy()))[rows, y])
        slopes[:, j] = (ends[0] - ends[1]) / (2 * step)
    return slopes


@pytest.mark.parametrize("name", ["linear", "mlp", "callable"])
def test_label_gradient_against_differences(name: str) -> None:
    linear = nn.Linear(6, 3).double()
    head = {"linear": linear, "mlp": mlp(), "callable": lambda x: linear(x) ** 3}[name]
    z, y = normal(5, 6), np.array([0, 1, 2, 1, 0])
    got = label_log_prob_gradient(head, z, torch.tensor(y), create_graph=False)
    assert not got.requires_grad
    np.testing.assert_allclose(got.numpy(), numeric_gradient(head, z.numpy(), y), atol=1e-8)


def test_label_gradient_linear_closed_form_equals_autograd_and_so_do_its_parameter_gradients() -> None:
    linear = nn.Linear(6, 3).double()
    z, y = normal(5, 6).requires_grad_(), torch.tensor([0, 1, 2, 1, 0])
    results = []
    for head in (linear, lambda x: linear(x)):
        loss = sensitivity_loss(label_log_prob_gradient(head, z, y), torch.ones(6, dtype=torch.float64))
        results.append([loss.detach(), *torch.autograd.grad(loss, (linear.weight, linear.bias, z))])
    for closed, auto in zip(*results, strict=True):
        torch.testing.assert_close(closed, auto)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_paper_sensitivity_gradcheck(name: str) -> None:
    head = nn.Linear(6, 3).double() if name == "linear" else mlp()
    y, mask = torch.tensor([0, 2, 1, 1]), torch.rand(6, dtype=torch.float64)

    def loss(z: Tensor, *parameters: Tensor) -> Tensor:
        return sensitivity_loss(label_log_prob_gradient(head, z, y), mask, -1)

    assert torch.autograd.gradcheck(loss, (normal(4, 6).requires_grad_(), *head.parameters()))


def test_double_backward_stops_at_the_head() -> None:
    class OnceOnly(torch.autograd.Function):
        """An encoder whose backward has no derivative, like fused attention."""

        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            return x * 2.0

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
            return grad * 2.0

    x, y = normal(4, 6).requires_grad_(), torch.tensor([0, 2, 1, 1])
    loss = sensitivity_loss(label_log_prob_gradient(mlp(), OnceOnly.apply(x), y), torch.ones(6).double())
    loss.backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_label_gradient_leaves_modes_random_state_and_gradients_alone(name: str) -> None:
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).double() if name == "linear" else mlp(dropout=0.5)
    head.train()[0].eval()
    modes, state = [m.training for m in head.modules()], torch.get_rng_state()
    z, y = normal(4, 6).requires_grad_(), torch.tensor([0, 2, 1, 1])
    first, second = (label_log_prob_gradient(head, z, y) for _ in range(2))
    assert torch.equal(first, second)
    assert [m.training for m in head.modules()] == modes
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in (*head.parameters(), z))


@pytest.mark.parametrize("name", ["linear", "mlp"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_label_gradient_in_evaluation(name: str, context: Callable[[], torch.no_grad]) -> None:
    head = nn.Linear(6, 3).double() if name == "linear" else mlp()
    z, y = normal(4, 6), torch.tensor([0, 2, 1, 1])
    expected = label_log_prob_gradient(head, z, y, create_graph=False)
    with context():
        got = label_log_prob_gradient(head, z + 0.0, y)
    assert not got.requires_grad
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_label_gradient_of_half_precision_heads(name: str) -> None:
    head = (nn.Linear(6, 3) if name == "linear" else mlp()).to(torch.bfloat16)
    z, y = normal(4, 6).bfloat16(), torch.tensor([0, 2, 1, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = label_log_prob_gradient(head, z, y)
    assert got.dtype == torch.float32
    got.abs().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.bfloat16 for p in head.parameters())
    exact = label_log_prob_gradient(head.float(), z.float(), y)
    torch.testing.assert_close(got.detach(), exact.detach(), rtol=1e-6, atol=1e-7)


def test_label_gradient_of_a_head_and_latents_in_different_precisions() -> None:
    y = torch.tensor([0, 2, 1, 1])
    for head in (nn.Linear(6, 3), mlp().float()):
        got = label_log_prob_gradient(head, normal(4, 6), y)
        assert got.dtype == torch.float64


def test_label_gradient_rejects() -> None:
    for head in (nn.Linear(6, 3), mlp().float()):
        z = torch.zeros(2, 6)
        for labels in (torch.tensor([0, 3]), torch.tensor([-1, 0])):
            with pytest.raises(InvalidInputError, match=r"y must lie in \[0, 3\)"):
                label_log_prob_gradient(head, z, labels)
        with pytest.raises(InvalidInputError, match="y must hold integers"):
            label_log_prob_gradient(head, z, torch.zeros(2))
        with pytest.raises(InvalidInputError, match=r"y must have shape \(2,\)"):
            label_log_prob_gradient(head, z, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InvalidInputError, match="weight must have shape"):
        label_log_prob_gradient(nn.Linear(5, 3), torch.zeros(2, 6), torch.tensor([0, 1]))
    with pytest.raises(HeadError, match="do not depend on z through autograd"):
        label_log_prob_gradient(lambda x: x.detach(), torch.zeros(2, 6), torch.tensor([0, 1]))
    with pytest.raises(HeadError, match="one row of logits"):
        label_log_prob_gradient(lambda x: x[:1], torch.zeros(2, 6), torch.tensor([0, 1]))


def test_modes_are_restored_after_an_exception_in_the_head() -> None:
    head = nn.Sequential(nn.Dropout(0.1), nn.Linear(6, 4), nn.Tanh(), nn.Linear(3, 3))
    with pytest.raises(RuntimeError):
        label_log_prob_gradient(head, torch.zeros(2, 6), torch.tensor([0, 1]))
    assert all(module.training for module in head.modules())
