"""ElRep: its norms against NumPy, where its gradient is zero, two processes, and what the penalty does to features."""

import numpy as np
import pytest
import torch
from batches import step_context
from planted import planted
from torch import nn

from aifs_peft.errors import HeadError, InvalidConfigError
from aifs_peft.latent import MLPHead
from aifs_peft.methods import MethodSettings, Setup, make
from aifs_peft.methods.common.last_linear import last_features, last_linear
from aifs_peft.methods.regularisers.elrep import norm_penalties
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import LatentOutput


def built(**options):
    return make("elrep", method_options=options)


def test_norms_equal_numpy():
    features = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    nuclear, frobenius = norm_penalties(features)
    assert float(nuclear) == pytest.approx(np.linalg.norm(features.numpy(), "nuc") / 6, rel=1e-5)
    assert float(frobenius) == pytest.approx(np.linalg.norm(features.numpy(), "fro") ** 2 / 6, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm_penalties(features.bfloat16())[0].dtype == torch.float32


def test_the_loss_is_cross_entropy_plus_weighted_norms_of_the_hidden_layer():
    head = MLPHead(3, 2, (4,), "tanh", dropout=0.5, generator=torch.Generator().manual_seed(0))
    z, y = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    terms = built(theta1=0.5, theta2=0.25).loss(LatentOutput(z, head(z)), y, step_context(head, y))
    hidden = np.tanh(z.numpy() @ head.hidden_0.weight.detach().numpy().T + head.hidden_0.bias.detach().numpy())
    singular = np.linalg.svd(hidden, compute_uv=False)
    assert float(terms["nuclear"].detach()) == pytest.approx(0.5 * singular.sum() / 5, rel=1e-5)
    assert float(terms["frobenius"].detach()) == pytest.approx(0.25 * (singular**2).sum() / 5, rel=1e-5)
    assert set(terms) == {"cross_entropy", "nuclear", "frobenius"}
    assert head.dropout_0.training
    assert not head.output._forward_pre_hooks


def test_the_gradient_is_zero_on_frozen_latents_with_a_linear_head_and_that_is_refused():
    head, y = nn.Linear(3, 2), torch.tensor([0, 1, 1, 0])
    z = torch.randn(4, 3)
    terms = built().loss(LatentOutput(z, head(z)), y, step_context(head, y))
    assert not (terms["nuclear"] + terms["frobenius"]).requires_grad
    with pytest.raises(InvalidConfigError, match=r"exactly zero.*encoder_adapter.*head=\"mlp\""):
        built().check(Setup(head, encoder_trains=False, num_labels=2))
    with pytest.raises(InvalidConfigError, match="exactly zero"):
        built().check(Setup(nn.Sequential(nn.Dropout(0.1), head), encoder_trains=False, num_labels=2))
    built().check(Setup(head, encoder_trains=True, num_labels=2))
    built().check(Setup(MLPHead(3, 2, (4,)), encoder_trains=False, num_labels=2))


def test_options_are_checked():
    with pytest.raises(InvalidConfigError, match="theta1 must be"):
        built(theta1=-1.0)
    with pytest.raises(InvalidConfigError, match=r"both 0.*\"erm\""):
        built(theta1=0, theta2=0)


def test_a_head_without_one_row_per_example_is_refused():
    class PerToken(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(3, 2)

        def forward(self, z):
            return self.out(z.unsqueeze(1).expand(-1, 2, -1)).mean(1)

    with pytest.raises(HeadError, match="one row per example"):
        last_features(PerToken(), torch.zeros(4, 3))
    with pytest.raises(HeadError, match="without a linear layer"):
        last_linear(nn.Tanh())


def test_two_processes_give_the_gradient_of_the_whole_batch():
    y, z = torch.tensor([0, 1, 1, 0, 1, 0]), torch.randn(6, 3, generator=torch.Generator().manual_seed(2))

    def gradient(rows, rank, world, gather):
        head = MLPHead(3, 2, (4,), "tanh", generator=torch.Generator().manual_seed(0))
        context = step_context(head, y[rows], rank=rank, world_size=world, gather=gather)
        terms = built(theta1=0.5, theta2=0.25).loss(LatentOutput(z[rows], head(z[rows])), y[rows], context)
        sum(terms.values()).backward()
        return [p.grad for p in head.parameters()]

    whole = gradient(slice(0, 6), 0, 1, lambda x: x)
    reference = MLPHead(3, 2, (4,), "tanh", generator=torch.Generator().manual_seed(0))
    everybody = last_features(reference, z).detach()
    halves = [gradient(slice(3 * r, 3 * r + 3), r, 2, lambda x: everybody) for r in (0, 1)]
    for one, first, second in zip(whole, *halves, strict=True):
        torch.testing.assert_close((first + second) / 2, one, rtol=1e-5, atol=1e-7)


def test_the_penalty_shrinks_the_norms_of_the_features():
    z, y, _ = planted(n=400)
    schedule = LatentSchedule(epochs=5, learning_rate=1e-2, hidden=16)

    def fit(**options):
        settings = MethodSettings.for_method("elrep", method_options=options)
        return fit_on_latents("elrep", z, y, num_labels=2, settings=settings, schedule=schedule).head

    heads = [fit(theta1=1e-6, theta2=0.0), fit(theta1=1.0, theta2=0.1)]
    singular = [torch.linalg.svdvals(last_features(head, z)) for head in heads]
    assert float(singular[1].sum()) < 0.7 * float(singular[0].sum())
    assert float(singular[1].square().sum()) < 0.5 * float(singular[0].square().sum())
    again = fit(theta1=1.0, theta2=0.1)
    assert all(torch.equal(a, b) for a, b in zip(heads[1].parameters(), again.parameters(), strict=True))
