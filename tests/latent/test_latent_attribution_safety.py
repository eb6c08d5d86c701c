"""Attribution leaves no gradient, mode, hook or random draw behind, in any precision and gradient context."""

from collections.abc import Callable

import pytest
import torch
from latent_heads import linear, mlp, normal
from torch import Tensor, nn

from aifs_peft.errors import NonFiniteError
from aifs_peft.latent import attribute, integrated_gradients


@pytest.mark.parametrize("method", ["ig", "gradient_x_input", "smoothgrad", "lrp"])
def test_nothing_is_left_behind(method: str) -> None:
    head = mlp(dropout=0.5).train()
    head[0].eval()
    modes, state = [m.training for m in head.modules()], torch.get_rng_state()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    z = normal(4, 6).requires_grad_()
    first, second = (attribute(head, z, method) for _ in range(2))
    assert torch.equal(first.scores, second.scores)  # dropout is off
    assert [m.training for m in head.modules()] == modes
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in (*head.parameters(), z))
    assert all(p.requires_grad for p in head.parameters())
    for module in head.modules():
        assert not (module._forward_hooks)
        assert not (module._forward_pre_hooks)
        assert not (module._backward_hooks)
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


def test_batch_norm_statistics_are_frozen() -> None:
    head = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double().train()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    found = integrated_gradients(head, normal(4, 6), tolerance=1e-6)
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())
    alone = integrated_gradients(head, normal(4, 6)[:1])
    torch.testing.assert_close(found.scores[:1], alone.scores)


@pytest.mark.parametrize("method", ["ig", "gradient_x_input", "smoothgrad"])
def test_modes_are_restored_after_an_exception_in_the_head(method: str) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = nn.Linear(6, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            self.calls += 1
            if self.calls > 3:
                raise RuntimeError("head failed")
            return self.layer(x)

    head = Failing().train()
    head.layer.eval()
    with pytest.raises(RuntimeError, match="head failed"):
        attribute(head, normal(4, 6, dtype=torch.float32), method)
    assert [m.training for m in head.modules()] == [True, False]
    assert all(p.grad is None for p in head.parameters())


def test_bound_method_of_a_module_is_evaluated_in_evaluation_mode() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = mlp(dropout=0.5)

        def classify(self, z: Tensor) -> Tensor:
            return self.head(z)

    layer, z = Layer().train(), normal(4, 6)
    expected = integrated_gradients(layer.head, z).scores
    torch.testing.assert_close(integrated_gradients(layer.classify, z).scores, expected)
    assert layer.head.training


@pytest.mark.parametrize("method", ["ig", "gradient_x_input", "smoothgrad", "lrp"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_under_disabled_gradients(method: str, context: Callable[[], torch.no_grad]) -> None:
    for head in (mlp(), linear()):
        expected = attribute(head, normal(4, 6), method).scores
        with context():
            got = attribute(head, normal(4, 6) + 0.0, method).scores
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("method", ["ig", "gradient_x_input", "smoothgrad", "lrp"])
def test_half_precision_and_autocast(method: str) -> None:
    for head in (mlp(), linear()):
        half, z = head.to(torch.bfloat16), normal(4, 6).to(torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = attribute(half, z, method)
        assert got.scores.dtype == torch.float32
        exact = attribute(head.float(), z.float(), method)
        torch.testing.assert_close(got.scores, exact.scores, rtol=1e-5, atol=1e-6)


def test_extreme_latents_stay_finite() -> None:
    head = linear().float()
    for scale in (1e-30, 1e6):
        z = normal(5, 6, dtype=torch.float32) * scale
        for method in ("ig", "gradient_x_input", "smoothgrad", "lrp"):
            assert bool(torch.isfinite(attribute(head, z, method).scores).all())
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        attribute(head, torch.full((2, 6), float("inf")))
