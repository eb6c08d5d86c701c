"""SmoothGrad: the gradient without noise, its expectation over noise, captum's, and draws by seed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import NoiseTunnel, Saliency
from latent_heads import linear, mlp, normal

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent import attribute, gradient_x_input
from aifs_peft.latent.attribution import smoothgrad
from aifs_peft.methods import MethodSettings
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import AIFSConfig

DRAWS = 4000


def test_without_noise_it_is_gradient_x_input() -> None:
    head, z, base = mlp(), normal(5, 6), normal(6, seed=3)
    options = {"baseline": base, "top_k": 2, "class_weights": "probability"}
    expected = gradient_x_input(head, z, **options)
    found = smoothgrad(head, z, noise=0.0, samples=3, **options)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.residual, expected.residual)
    away = [float((smoothgrad(head, z, noise=s, **options).scores - expected.scores).abs().max()) for s in (1e-3, 1e-6)]
    assert away[1] < 2e-3 * away[0]
    assert away[0] > 1e-6


def test_the_seed_gives_the_draws() -> None:
    head, z = mlp(), normal(5, 6)
    first, again, other = (smoothgrad(head, z, seed=seed).scores for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    torch.testing.assert_close(attribute(head, z, "smoothgrad", seed=4).scores, other)
    # An example's scores do not depend on the others.
    torch.testing.assert_close(smoothgrad(head, z[2:3], seed=3).scores, first[2:3])


def test_expectation_of_a_linear_head() -> None:
    """For two classes the gradient is `(1 - p_y) (w_y - w_other)`, and the margin moves by a Gaussian."""
    head, z = linear(classes=2), normal(4, 6)
    found = smoothgrad(head, z, samples=DRAWS, noise=0.3)
    weight, bias = head.weight.detach(), head.bias.detach()
    lead = head(z).argmax(dim=1)
    slope = weight[lead] - weight[1 - lead]
    margin = (z * slope).sum(1) + bias[lead] - bias[1 - lead]
    sigma = 0.3 * (z.amax(1) - z.amin(1)) * slope.norm(dim=1)
    nodes, parts = np.polynomial.hermite_e.hermegauss(80)
    at = margin[:, None] + sigma[:, None] * torch.as_tensor(nodes)
    error = (torch.sigmoid(-at) * torch.as_tensor(parts / parts.sum())).sum(1)
    expected = z * error[:, None] * slope
    assert float((found.scores - expected).abs().max()) < 0.03
    # The smoothed gradient is another one: the test would see a gradient at the latent itself.
    assert float((gradient_x_input(head, z).scores - expected).abs().max()) > 0.1


def test_it_is_captums_noise_tunnel() -> None:
    head, z = mlp(), normal(1, 6)
    sigma = 0.15 * float(z.max() - z.min())
    torch.manual_seed(0)
    slope = NoiseTunnel(Saliency(lambda x: F.log_softmax(head(x), dim=1))).attribute(
        z.clone(), nt_type="smoothgrad", nt_samples=DRAWS, stdevs=sigma, target=int(head(z).argmax()), abs=False
    )
    found = smoothgrad(head, z, samples=DRAWS)
    torch.testing.assert_close(found.scores, (z * slope).detach(), rtol=0, atol=5e-3)


def test_rejects() -> None:
    for wrong, message in (
        ({"samples": 0}, "samples must be an integer of at least 1"),
        ({"noise": -0.1}, "noise must be a finite number of at least 0"),
        ({"seed": 0.5}, "seed must be an integer"),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            smoothgrad(linear(), normal(2, 6), **wrong)


def test_the_published_recipe_takes_it() -> None:
    assert AIFSConfig.paper(attribution="smoothgrad").attribution == "smoothgrad"
    Z, y = normal(200, 4, dtype=torch.float32), torch.arange(200) % 2
    Z[:, 0] += 3 * y
    masks = {}
    for kind, steps in (("smoothgrad", 8), ("smoothgrad", 1), ("gradient_x_input", 8)):
        settings = MethodSettings.for_method("aifs-paper", attribution=kind, attribution_steps=steps)
        fit = fit_on_latents(
            "aifs-paper", Z, y, num_labels=2, settings=settings, schedule=LatentSchedule(epochs=2, learning_rate=0.02)
        )
        masks[kind, steps] = fit.state.mask
    (eight, one, plain) = masks.values()
    assert not torch.equal(eight, plain)
    assert not torch.equal(eight, one)
    assert eight.argmin() == 0  # what the head reads most has the smallest mask by the printed rule
