"""Attributions against NumPy, captum and each other; completeness; nothing left behind."""

from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import InputXGradient, IntegratedGradients
from latent_heads import linear, mlp, normal
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError
from aifs_peft.latent import (
    CompletenessError,
    attribute,
    gradient_x_input,
    integrated_gradients,
    integrated_gradients_linear,
)
from aifs_peft.latent.attribution.targets import class_weight_matrix


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def paper_ig(w: np.ndarray, b: np.ndarray, z: np.ndarray, base: np.ndarray, k: int, weights: np.ndarray) -> np.ndarray:
    """The published formula, example by example, averaged over 20,001 midpoints of the path."""
    scores = np.zeros_like(z)
    alphas = (np.arange(20_001) + 0.5) / 20_001
    for i, (point, start) in enumerate(zip(z, base, strict=True)):
        leading = np.argsort(-(w @ point + b))[:k]
        path = start + alphas[:, None] * (point - start)
        p = softmax(path @ w.T + b)
        for c in leading:
            slope = w[c] - p @ w  # d log p(c|z) / dz along the path
            scores[i] += weights[c] * (point - start) * slope.mean(axis=0)
    return scores


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("own_weights", [False, True])
@pytest.mark.parametrize("own_baseline", [False, True])
def test_ig_is_the_published_formula(k: int, own_weights: bool, own_baseline: bool) -> None:
    head, z = linear(), normal(5, 6)
    base = normal(6, seed=4) if own_baseline else torch.zeros(6, dtype=torch.float64)
    weights = torch.tensor([0.1, 0.5, 0.3, 0.1]) if own_weights else torch.full((4,), 1 / k)
    expected = paper_ig(
        head.weight.detach().numpy(),
        head.bias.detach().numpy(),
        z.numpy(),
        np.broadcast_to(base.numpy(), z.shape),
        k,
        weights.numpy(),
    )
    options = {
        "baseline": base if own_baseline else None,
        "top_k": k,
        "class_weights": weights if own_weights else None,
    }
    closed = integrated_gradients_linear(head.weight, head.bias, z, **options)
    path = integrated_gradients(head, z, **options)
    np.testing.assert_allclose(closed.scores.numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(path.scores.numpy(), expected, atol=1e-7)
    assert closed.completeness_error < 1e-8
    assert path.completeness_error < 1e-8


@pytest.mark.parametrize("steps", [3, 32])
def test_closed_form_equals_captum_in_single_precision(steps: int) -> None:
    head, z = linear(48, 10).float(), normal(20, 48, dtype=torch.float32)
    closed = integrated_gradients_linear(head.weight, head.bias, z, steps=steps, top_k=3)
    path = integrated_gradients(head, z, steps=steps, top_k=3)
    assert closed.scores.dtype == path.scores.dtype == torch.float32
    assert not closed.scores.requires_grad
    assert not path.scores.requires_grad
    torch.testing.assert_close(closed.scores, path.scores, rtol=1e-5, atol=1e-5)
    assert closed.completeness_error == pytest.approx(path.completeness_error, abs=1e-5)


def test_one_class_is_captum_on_the_log_probability() -> None:
    head, z = mlp(), normal(7, 6)
    predicted = head(z).argmax(dim=1)
    reference = IntegratedGradients(lambda x: F.log_softmax(head(x), dim=1)).attribute(
        z, target=predicted, n_steps=32, method="gausslegendre"
    )
    torch.testing.assert_close(integrated_gradients(head, z).scores, reference.detach())
    slope = InputXGradient(lambda x: F.log_softmax(head(x), dim=1)).attribute(
        z.clone().requires_grad_(), target=predicted
    )
    torch.testing.assert_close(gradient_x_input(head, z).scores, slope.detach())


def test_gradient_x_input_formula_and_its_incompleteness() -> None:
    head, z = linear(), normal(5, 6)
    w, b = head.weight.detach().numpy(), head.bias.detach().numpy()
    p = softmax(z.numpy() @ w.T + b)
    base = normal(6, seed=3)
    expected = (z.numpy() - base.numpy()) * (w.mean(axis=0) - p @ w)
    found = gradient_x_input(head, z, top_k=None, baseline=base)
    np.testing.assert_allclose(found.scores.numpy(), expected, atol=1e-12)
    value = [np.log(softmax(x.numpy() @ w.T + b)).mean(axis=1) for x in (z, base.expand(5, 6))]
    np.testing.assert_allclose(found.residual.numpy(), expected.sum(axis=1) - (value[0] - value[1]), atol=1e-12)
    assert found.completeness_error > 1e-2
    with pytest.raises(CompletenessError, match=r"completeness error .* above the tolerance 0.01"):
        gradient_x_input(head, z, top_k=None, baseline=base, tolerance=0.01)


@pytest.mark.parametrize("method", ["ig", "gradient_x_input", "smoothgrad"])
@pytest.mark.parametrize("chunk", [1, 3, 7, 50, 100_000])
def test_chunked_equals_unchunked(method: str, chunk: int) -> None:
    z, base = normal(7, 6), normal(7, 6, seed=5)
    for head in (mlp(), linear()):
        whole = attribute(head, z, method, baseline=base, top_k=2, class_weights="probability")
        parts = attribute(head, z, method, baseline=base, top_k=2, class_weights="probability", chunk_size=chunk)
        torch.testing.assert_close(parts.scores, whole.scores, rtol=0, atol=1e-12)
        torch.testing.assert_close(parts.residual, whole.residual, rtol=0, atol=1e-12)


def test_chunk_size_bounds_what_the_head_sees() -> None:
    head, seen = mlp(), []

    def watched(x: Tensor) -> Tensor:
        seen.append(len(x))
        return head(x)

    integrated_gradients(watched, normal(10, 6), chunk_size=4, steps=8)
    assert max(seen) <= 4


NO_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: error code 12"),
    MemoryError(),
)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("method", ["ig", "gradient_x_input", "smoothgrad"])
def test_out_of_memory_halves_the_chunk_and_gives_the_same_result(method: str, error: Exception) -> None:
    head, refused = mlp(), []

    def small(x: Tensor) -> Tensor:
        if len(x) > 5:
            refused.append(len(x))
            raise error
        return head(x)

    z = normal(13, 6)
    torch.testing.assert_close(attribute(small, z, method).scores, attribute(head, z, method).scores)
    assert refused

    def never(x: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)):
        attribute(never, z, method)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("method", "part"), [("ig", "linear._path_softmax"), ("lrp", "lrp._propagate")])
def test_out_of_memory_halves_the_chunk_without_autograd(
    method: str, part: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, z, rows = linear(), normal(13, 6), []
    whole = attribute(head, z, method)
    # `aifs_peft.latent.attribution.lrp` is the function of that name, not its module.
    module = import_module("aifs_peft.latent.attribution." + part.split(".")[0])
    real = getattr(module, part.split(".")[1])

    def small(*args: object, **options: object) -> object:
        first = next(a for a in args if isinstance(a, Tensor))
        rows.append(len(first))
        if len(first) > 4:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(module, part.split(".")[1], small)
    torch.testing.assert_close(attribute(head, z, method).scores, whole.scores)
    assert rows[0] == 13
    assert [size for size in rows if size <= 4] == [3, 3, 3, 3, 1]


def test_another_error_of_the_head_is_not_taken_for_a_lack_of_memory() -> None:
    seen = []

    def broken(x: Tensor) -> Tensor:
        seen.append(len(x))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        integrated_gradients(broken, normal(8, 6))
    assert seen == [8]


class LargeTensors(TorchDispatchMode):
    """The operations that give a tensor of at least so many numbers."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.seen = least, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.numel() >= self.least:
            self.seen.append(str(func))
        return out


@pytest.mark.parametrize("method", ["ig", "lrp", "gradient_x_input", "smoothgrad"])
def test_beside_latents_and_scores_memory_holds_a_chunk(method: str) -> None:
    head, z = linear(), normal(400, 6)
    with LargeTensors(z.numel()) as large:
        attribute(head, z, method, chunk_size=64)
    assert large.seen == ["aten.new_empty.default"]  # the scores


def test_few_steps_on_a_steep_head_are_refused() -> None:
    head = linear()
    with torch.no_grad():
        head.weight *= 30
    z = normal(20, 6)
    for call in (
        lambda **o: integrated_gradients(head, z, **o),
        lambda **o: integrated_gradients_linear(head.weight, head.bias, z, **o),
    ):
        with pytest.raises(CompletenessError, match="Use more steps"):
            call(steps=2, tolerance=1e-3)
        assert call(steps=500, tolerance=1e-3).completeness_error < 1e-3


def test_residual_is_the_sum_minus_the_change() -> None:
    head, z = mlp(), normal(5, 6) * 3
    found = integrated_gradients(head, z, steps=2)
    log_prob = [F.log_softmax(head(x), dim=1).detach() for x in (z, torch.zeros_like(z))]
    leading = log_prob[0].argmax(dim=1, keepdim=True)
    change = (log_prob[0] - log_prob[1]).gather(1, leading)[:, 0]
    torch.testing.assert_close(found.residual, found.scores.sum(dim=1) - change)
    scale = max(1.0, float(change.abs().max()))
    assert found.completeness_error == pytest.approx(float(found.residual.abs().max()) / scale)


def test_class_weights() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0]])
    p = softmax(logits.numpy())
    np.testing.assert_allclose(class_weight_matrix(logits, 1, None), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(class_weight_matrix(logits, None, None), np.full((2, 3), 1 / 3), rtol=1e-6)
    np.testing.assert_allclose(class_weight_matrix(logits, 99, None), np.full((2, 3), 1 / 3), rtol=1e-6)
    np.testing.assert_allclose(
        class_weight_matrix(logits, 2, "probability"),
        [
            [0, p[0, 1] / p[0, 1:].sum(), p[0, 2] / p[0, 1:].sum()],
            [p[1, 0] / (p[1, 0] + p[1, 2]), 0, p[1, 2] / (p[1, 0] + p[1, 2])],
        ],
        rtol=1e-6,
    )
    own = torch.tensor([0.2, 0.3, 0.5])
    np.testing.assert_allclose(class_weight_matrix(logits, 2, own), [[0, 0.3, 0.5], [0.2, 0, 0.5]], rtol=1e-6)
    for bad, message in [
        (torch.ones(2), r"class_weights must have shape \(3,\)"),
        (torch.zeros(3), "finite and not all zero"),
        (torch.tensor([1.0, float("nan"), 0.0]), "finite and not all zero"),
        ("uniform", "class_weights must be None, 'probability'"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            class_weight_matrix(logits, 2, bad)


def test_rejects() -> None:
    head, z = linear(), normal(4, 6)
    config = [
        ({"method": "integrated"}, "method must be one of 'ig', 'lrp'"),
        ({"top_k": 0}, "top_k must be an integer of at least 1"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"chunk_size": 2.5}, "chunk_size must be an integer"),
    ]
    values = [
        ({"baseline": torch.zeros(5)}, r"baseline must have shape \(6,\)"),
        ({"baseline": torch.zeros(3, 6)}, r"baseline must have shape \(4, 6\)"),
        ({"baseline": torch.zeros(6), "method": "lrp"}, "'lrp' has no baseline"),
        ({"tolerance": -1.0}, "tolerance must be a finite number"),
        ({"tolerance": float("nan")}, "tolerance must be a finite number"),
    ]
    for kind, cases in ((InvalidConfigError, config), (InvalidInputError, values)):
        for options, message in cases:
            for tried in (head, mlp()):
                with pytest.raises(kind, match=message):
                    attribute(tried, z, **options)
    with pytest.raises(InvalidInputError, match="z must be a floating-point matrix"):
        attribute(head, z[0])
    with pytest.raises(InvalidInputError, match="weight must have shape"):
        integrated_gradients_linear(head.weight[:, :5], head.bias, z)
    with pytest.raises(InvalidInputError, match="bias must have shape"):
        integrated_gradients_linear(head.weight, head.bias[:2], z)
    for method in ("ig", "gradient_x_input", "smoothgrad"):
        with pytest.raises(HeadError, match="do not depend on z"):
            attribute(lambda x: torch.ones(len(x), 3), z, method)
        with pytest.raises(HeadError, match="one row of logits per example"):
            attribute(lambda x: x.sum(), z, method)
