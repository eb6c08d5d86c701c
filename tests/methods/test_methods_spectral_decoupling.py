"""Spectral decoupling: the formula, and a weak feature that a strong one would starve."""

import numpy as np
import pytest
import torch
from shortcut_latents import worst_group
from torch import nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods import MethodSettings, StepContext, make
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import AIFSState, LatentOutput


def made(strength):
    return make("spectral-decoupling", method_options={"strength": strength})


def test_loss_equals_numpy():
    torch.manual_seed(0)
    head, y = nn.Linear(3, 4), torch.tensor([0, 3, 1])
    z = torch.randn(3, 3)
    context = StepContext(
        head=head, state=AIFSState(3), labels=y, index=torch.arange(3), generator=torch.Generator(),
        draw=lambda width, kind: torch.zeros(3, width), step=0,
    )  # fmt: skip
    terms = made(0.3).loss(LatentOutput(z, head(z)), y, context)
    terms = {name: term.detach() for name, term in terms.items()}
    logits = head(z).detach().numpy().astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert float(terms["cross_entropy"]) == pytest.approx(-np.log(p[range(3), y.numpy()]).mean(), rel=1e-5)
    assert float(terms["logit_penalty"]) == pytest.approx(0.15 * (logits**2).sum(1).mean(), rel=1e-5)


def test_the_margin_of_one_easy_example_settles_where_the_docstring_says():
    logits = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=0.5)
    y = torch.tensor([1])
    method = made(0.1)
    for _ in range(400):
        context = StepContext(
            head=lambda z: z, state=AIFSState(1), labels=y, index=y * 0, generator=torch.Generator(),
            draw=lambda width, kind: torch.zeros(1, width), step=0,
        )  # fmt: skip
        optimizer.zero_grad()
        sum(method.loss(LatentOutput(logits[None], logits[None]), y, context).values()).backward()
        optimizer.step()
    margin = float((logits[1] - logits[0]).detach())
    assert margin == pytest.approx(2.128, abs=1e-3)
    assert 1 / (1 + np.exp(margin)) == pytest.approx(0.1 * margin / 2, abs=1e-4)


def starved(n, aligned, seed):
    """A large noisy shortcut beside a small clean class cue."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    a = torch.where(torch.rand(n, generator=generator) < aligned, y, 1 - y)
    z = torch.randn(n, 4, generator=generator)
    z[:, 0] += 4.0 * (2 * a - 1)
    z[:, 1] = 0.5 * (2 * y - 1) + 0.2 * z[:, 1]
    return z, y, 2 * y + a


def test_the_weak_feature_is_learnt_beside_the_strong_one():
    z, y, _ = starved(1000, 0.95, 0)
    test = starved(4000, 0.5, 1)
    schedule = LatentSchedule(epochs=30, learning_rate=0.01, weight_decay=0.0)

    def train(name, **options):
        settings = MethodSettings.for_method(name, method_options=options)
        return fit_on_latents(name, z, y, num_labels=2, schedule=schedule, settings=settings)

    first, again = (train("spectral-decoupling", strength=1.0) for _ in range(2))
    assert worst_group(train("erm").head, *test) < 0.1
    assert worst_group(first.head, *test) > 0.7
    assert torch.equal(first.head.weight, again.head.weight)


def test_strength_is_checked_and_zero_is_erm():
    with pytest.raises(InvalidConfigError, match="strength"):
        made(-0.1)
    z, y, _ = starved(200, 0.9, 0)
    schedule = LatentSchedule(epochs=2)
    off = fit_on_latents(
        "spectral-decoupling", z, y, num_labels=2, schedule=schedule,
        settings=MethodSettings.for_method("spectral-decoupling", method_options={"strength": 0.0}),
    )  # fmt: skip
    assert torch.equal(off.head.weight, fit_on_latents("erm", z, y, num_labels=2, schedule=schedule).head.weight)
