"""AGS: averages and weights against NumPy, when weights shrink, several processes, and a planted shortcut."""

import numpy as np
import pytest
import torch
from batches import epoch_context, step_context
from planted import planted, worst
from torch import nn

from aifs_peft.errors import HeadError, InvalidConfigError
from aifs_peft.latent import MLPHead
from aifs_peft.methods import MethodSettings, Setup, TrainingPlan, make
from aifs_peft.methods.regularisers.ags import alignment_sums, strongest_support
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import AIFSState, LatentOutput


def prepared(head, **options):
    method, state = make("ags", method_options=options), AIFSState(3)
    method.prepare(epoch_context(head, state=state))
    return method, state


def energies(weight, features, logits, y):
    """`- p_k W_jk phi_j` of each example for its own class, in NumPy."""
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -p[np.arange(len(y)), y][:, None] * weight[y] * features


@pytest.mark.parametrize("hidden", [False, True])
def test_three_steps_equal_the_formula(hidden):
    torch.manual_seed(0)
    head = MLPHead(3, 3, (10,), "tanh", dropout=0.5) if hidden else nn.Linear(3, 3)
    layer = head.output if hidden else head
    method, state = prepared(head, percentile=30.0, beta=0.6, alpha=0.1, warmup_epochs=1, overall=0.5)
    average = np.zeros(tuple(layer.weight.shape))
    for step in range(3):
        y = torch.tensor([0, 1, 0, 0])  # none of class 2
        z = torch.randn(4, 3)
        if step == 1:
            method.sampling(y, epoch_context(head, epoch=1))
        logits = head(z)
        features = (torch.tanh(head.hidden_0(z)).detach() if hidden else z).numpy()
        weight = layer.weight.detach().double().numpy().copy()
        each = energies(weight, features, logits.detach().double().numpy(), y.numpy())
        means = np.stack([each[y.numpy() == k].mean(0) if k < 2 else 0 * average[0] for k in range(3)])
        average = 0.6 * average + 0.4 * means
        context = step_context(head, y, state=state, step=step)
        terms = method.loss(LatentOutput(z, logits), y, context)
        assert set(terms) == {"cross_entropy"}
        np.testing.assert_allclose(state.memory.numpy(), average, rtol=1e-5, atol=1e-8)
        if step:
            lowest = average < np.quantile(average, 0.3, axis=1, keepdims=True)
            assert lowest[:2].sum(1).tolist() == [int(0.3 * (average.shape[1] - 1)) + 1] * 2
            weight *= (1 - 0.1 * lowest) * (1 - 0.05)
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-6)


def test_the_backward_pass_reads_the_smaller_weights_and_the_loss_the_larger_ones():
    head, y = nn.Linear(3, 2, bias=False), torch.tensor([0, 1])
    z = torch.eye(2, 3, requires_grad=True)
    method, state = prepared(head, alpha=0.5, warmup_epochs=0, percentile=0.0, overall=1.0)
    before = head.weight.detach().clone()
    loss = method.loss(LatentOutput(z, head(z)), y, step_context(head, y, state=state))["cross_entropy"]
    torch.testing.assert_close(loss.detach(), nn.functional.cross_entropy(z.detach() @ before.T, y))
    loss.backward()
    torch.testing.assert_close(head.weight.detach(), before * 0.5)
    error = (z.detach() @ before.T).softmax(1) - torch.eye(2)
    torch.testing.assert_close(z.grad, error @ (before * 0.5) / 2)
    torch.testing.assert_close(head.weight.grad, error.T @ z.detach() / 2)


def test_weights_shrink_once_per_step_whatever_is_accumulated():
    head, y, z = nn.Linear(3, 2), torch.tensor([0, 1]), torch.randn(2, 3)
    method, state = prepared(head, alpha=0.5, warmup_epochs=0, percentile=0.0, overall=1.0)
    before = head.weight.detach().clone()
    for step in (0, 0, 1):
        method.loss(LatentOutput(z, head(z)), y, step_context(head, y, state=state, step=step))
    torch.testing.assert_close(head.weight.detach(), before * 0.25)


def test_processes_shrink_by_the_energies_of_all():
    torch.manual_seed(0)
    head, y, z = nn.Linear(3, 2), torch.tensor([0, 1, 1, 0]), torch.randn(4, 3)
    alone, state = prepared(head, alpha=0.0)
    alone.loss(LatentOutput(z, head(z)), y, step_context(head, y, state=state))
    other = alignment_sums(z[2:], head.weight.detach(), head(z[2:]), y[2:])
    parts = iter(other)
    method, shared = prepared(head, alpha=0.0)
    both = {"world_size": 2, "gather": lambda own: torch.cat([own, next(parts)[None]])}
    context = step_context(head, y[:2], state=shared, **both)
    method.loss(LatentOutput(z[:2], head(z[:2])), y[:2], context)
    torch.testing.assert_close(shared.memory, state.memory)


def test_of_equal_energies_none_is_below_the_percentile():
    assert not strongest_support(torch.zeros(2, 10), 20.0).any()
    assert strongest_support(torch.arange(20.0).reshape(2, 10), 100.0).sum(1).tolist() == [9, 9]


def test_a_warm_up_without_end_is_told_and_averages_go_on_or_are_let_go():
    plan = TrainingPlan(steps=50, steps_per_epoch=10)
    assert "5 epochs is the whole training" in make("ags").idle(plan)
    assert make("ags", method_options={"warmup_epochs": 4}).idle(plan) is None
    assert "alpha is 0" in make("ags", method_options={"alpha": 0.0}).idle(plan)
    head = nn.Linear(3, 2)
    method, state = prepared(head)
    state.update(count=False, memory=torch.ones(2, 3))
    method.prepare(epoch_context(head, state=state))
    assert bool((state.memory == 1).all())
    assert method.finish(epoch_context(head, state=state)) == {}
    assert state.memory.numel() == 0


def test_options_and_heads_are_checked():
    for options, match in (
        ({"percentile": 101}, "percentile must be"),
        ({"beta": 1}, "beta must be"),
        ({"alpha": 2}, "alpha must be"),
        ({"warmup_epochs": -1}, "warmup_epochs must be"),
        ({"overall": -1}, "overall must be"),
    ):
        with pytest.raises(InvalidConfigError, match=match):
            make("ags", method_options=options)
    with pytest.raises(HeadError, match="without a linear layer"):
        make("ags").check(Setup(nn.Identity(), encoder_trains=True, num_labels=2))


def test_a_shortcut_on_few_of_many_features_is_held_back_and_runs_repeat():
    numbers = {"dim": 40, "core_dims": 8, "shortcut_dims": 2}
    z, y, _ = planted(**numbers)

    def fit(**own):
        settings = MethodSettings.for_method("ags", method_options={"percentile": 10.0, **own})
        schedule = LatentSchedule(epochs=20, learning_rate=1e-2)
        return fit_on_latents("ags", z, y, num_labels=2, settings=settings, schedule=schedule).head

    held = fit()
    assert worst(fit(alpha=0.0), **numbers) < 0.4
    assert worst(held, **numbers) > 0.65
    assert torch.equal(held.weight, fit().weight)
