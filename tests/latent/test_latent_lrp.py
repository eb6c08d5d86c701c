"""LRP against captum, NumPy and its own conservation."""

import numpy as np
import pytest
import torch
from captum.attr import LRP
from torch import Tensor, nn

from aifs_peft.errors import HeadError, InvalidConfigError
from aifs_peft.latent import CompletenessError, MLPHead, lrp


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def mlp(activation: str, hidden: tuple[int, ...] = (8, 5)) -> MLPHead:
    return MLPHead(6, 4, hidden, activation, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_captum_parity(activation: str) -> None:
    head, z = mlp(activation), normal(7, 6)
    predicted = head(z).argmax(dim=1)
    reference = LRP(mlp(activation)).attribute(z.clone().requires_grad_(), target=predicted)
    torch.testing.assert_close(lrp(head, z, epsilon=1e-9).scores, reference.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("epsilon", [1e-9, 0.1])
def test_two_layers_by_hand(epsilon: float) -> None:
    head, z = mlp("gelu", (8,)), normal(3, 6).numpy()
    (w1, b1), (w2, b2) = (
        (layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (head.hidden_0, head.output)
    )
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    expected = np.zeros_like(z)
    for n, x in enumerate(z):
        a1 = w1 @ x + b1
        h = torch.nn.functional.gelu(torch.tensor(a1)).numpy()
        a2 = w2 @ h + b2
        r2 = weights * a2
        share = lambda a: a + np.where(a < 0, -epsilon, epsilon)  # noqa: E731
        r1 = np.array([sum(h[i] * w2[j, i] * r2[j] / share(a2)[j] for j in range(4)) for i in range(8)])
        expected[n] = [sum(x[i] * w1[j, i] * r1[j] / share(a1)[j] for j in range(8)) for i in range(6)]
    found = lrp(head, torch.tensor(z), top_k=None, class_weights=torch.tensor(weights), epsilon=epsilon)
    np.testing.assert_allclose(found.scores.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_conserves_relevance_up_to_epsilon(activation: str) -> None:
    head, z = mlp(activation), normal(20, 6)
    small = lrp(head, z, epsilon=1e-12, tolerance=1e-6)
    assert small.completeness_error < 1e-6
    large = lrp(head, z, epsilon=0.5)
    assert large.completeness_error > 1e-3
    with pytest.raises(CompletenessError, match="completeness error"):
        lrp(head, z, epsilon=0.5, tolerance=1e-3)


def test_linear_head_without_bias_is_weight_times_input() -> None:
    head, z = nn.Linear(6, 3, bias=False).double(), normal(5, 6)
    found = lrp(head, z, epsilon=1e-12)
    expected = z * head.weight.detach()[head(z).argmax(dim=1)]
    torch.testing.assert_close(found.scores, expected, rtol=1e-6, atol=1e-9)


def test_chunks_nesting_and_dropout_do_not_matter() -> None:
    head, z = mlp("relu"), normal(9, 6)
    whole = lrp(head, z, top_k=2, class_weights="probability")
    nested = nn.Sequential(nn.Dropout(0.5), nn.Sequential(*head), nn.Identity()).train()
    for other in (
        lrp(head, z, top_k=2, class_weights="probability", chunk_size=2),
        lrp(nested, z, top_k=2, class_weights="probability"),
    ):
        torch.testing.assert_close(other.scores, whole.scores, rtol=0, atol=1e-13)
        torch.testing.assert_close(other.residual, whole.residual, rtol=0, atol=1e-13)


def test_zero_latents_and_dead_units_stay_finite() -> None:
    head = mlp("relu")
    with torch.no_grad():
        head.hidden_0.bias.zero_()
    assert bool((lrp(head, torch.zeros(2, 6).double()).scores == 0).all())


def test_rejects() -> None:
    z = normal(2, 6)
    with pytest.raises(HeadError, match="needs a head that it can take apart"):
        lrp(lambda x: x, z)
    with pytest.raises(HeadError, match="no rule for a LayerNorm layer"):
        lrp(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2)), z)
    hooked = nn.Linear(6, 2)
    hooked.register_forward_hook(lambda module, args, output: output)
    with pytest.raises(HeadError, match="without forward hooks"):
        lrp(nn.Sequential(hooked), z)
    with pytest.raises(InvalidConfigError, match="epsilon must be a finite number above 0"):
        lrp(nn.Linear(6, 2), z, epsilon=0.0)
