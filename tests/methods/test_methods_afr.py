"""AFR: split, weights and second stage against NumPy, and what becomes of a planted shortcut."""

import numpy as np
import pytest
import torch
from shortcut_latents import fit, planted, worst_group
from torch import nn

from aifs_peft.errors import InvalidConfigError, InvalidInputError, NonFiniteError
from aifs_peft.methods import Setup, make
from aifs_peft.methods.common.held_out import stratified_rows
from aifs_peft.methods.last_layer.afr import afr_weights, retrain_last_layer
from aifs_peft.training.latent_trainer import LatentSchedule

TEST = planted(2000, 0.5, seed=9)
SHORT = LatentSchedule(epochs=3)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("balance", [True, False])
def test_weights_are_the_formula(balance):
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(40, 3)), rng.choice(3, 40, p=[0.6, 0.3, 0.1])
    p = softmax(logits)[np.arange(40), y]
    wanted = np.exp(-6.0 * p) / (np.bincount(y)[y] if balance else 1.0)
    wanted /= wanted.sum()
    got = afr_weights(torch.as_tensor(logits), torch.as_tensor(y), 6.0, balance_classes=balance)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5)


def descended(z, y, w, W, b, penalty, lr, steps):
    """The second stage written out: gradients by hand, their common norm clipped to one."""
    W, b, start = W.copy(), b.copy(), W.copy()
    clipped = 0
    for _ in range(steps):
        error = w[:, None] * (softmax(z @ W.T + b) - np.eye(len(W))[y])
        dW, db = error.T @ z + 2 * penalty * (W - start), error.sum(0)
        norm = np.sqrt((dW**2).sum() + (db**2).sum())
        clipped += norm > 1
        W, b = W - lr * dW / max(norm, 1.0), b - lr * db / max(norm, 1.0)
    return W, b, clipped


@pytest.mark.parametrize(("scale", "penalty"), [(1.0, 0.0), (6.0, 0.5)])
def test_second_stage_is_clipped_gradient_descent_with_the_penalty(scale, penalty):
    rng = np.random.default_rng(1)
    z, y, w = scale * rng.normal(size=(30, 4)), rng.integers(3, size=30), rng.random(30)
    w /= w.sum()
    W, b = rng.normal(size=(3, 4)), rng.normal(size=3)
    wanted, wanted_bias, clipped = descended(z, y, w, W, b, penalty, 0.05, 40)
    assert (clipped > 0) == (scale > 1)
    as_float = [torch.as_tensor(value).float() for value in (z, w, W, b)]
    got, bias = retrain_last_layer(
        as_float[0], torch.as_tensor(y), *as_float[1:], penalty=penalty, learning_rate=0.05, steps=40
    )
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-4)
    np.testing.assert_allclose(bias.numpy(), wanted_bias, atol=1e-4)


def test_a_head_without_bias_keeps_none():
    z, y = torch.randn(6, 2), torch.tensor([0, 1] * 3)
    _, bias = retrain_last_layer(
        z, y, torch.full((6,), 1 / 6), torch.zeros(2, 2), None, penalty=0.0, learning_rate=0.1, steps=3
    )
    assert bias.tolist() == [0.0, 0.0]


def test_first_stage_never_sees_the_held_out_fifth_of_each_class():
    data = planted(500)
    z, y, groups = data
    untouched = {"steps": 1, "learning_rate": 1e-12}
    fitted = fit("afr", data, options=untouched, schedule=SHORT, seed=3)
    held = stratified_rows(y, 0.2, 3)
    assert torch.equal(fitted.state.weights, (~held).double())
    for label in (0, 1):
        assert int(held[y == label].sum()) == round(0.2 * int((y == label).sum()))
    moved = z.clone()
    moved[held] = 1e3  # what it does not see, it cannot depend on
    again = fit("afr", (moved, y, groups), options=untouched, schedule=SHORT, seed=3)
    torch.testing.assert_close(again.head.weight, fitted.head.weight, atol=1e-6, rtol=0)


def test_the_final_head_is_the_second_stage_on_the_first_one():
    data = planted(400)
    z, y, _ = data
    first = fit("afr", data, options={"steps": 1, "learning_rate": 1e-12}, schedule=SHORT)
    both = fit("afr", data, options={"gamma": 4.0, "penalty": 0.1, "steps": 50}, schedule=SHORT)
    held = (both.state.weights == 0).numpy()
    Z, labels = z.double().numpy()[held], y.numpy()[held]
    W, b = (value.detach().double().numpy() for value in (first.head.weight, first.head.bias))
    p = softmax(Z @ W.T + b)[np.arange(len(labels)), labels]
    w = np.exp(-4.0 * p) / np.bincount(labels)[labels]
    w /= w.sum()
    wanted, bias, _ = descended(Z, labels, w, W, b, 0.1, 0.01, 50)
    np.testing.assert_allclose(both.head.weight.numpy(), wanted, atol=1e-4)
    np.testing.assert_allclose(both.head.bias.numpy(), bias, atol=1e-4)
    assert both.history[-1]["afr_effective_share"] == pytest.approx(1 / (len(w) * (w**2).sum()), rel=1e-3)


def test_it_takes_much_of_the_shortcut_away_without_groups():
    data = planted(4000)
    erm = worst_group(fit("erm", data).head, *TEST)
    afr = fit("afr", data, options={"gamma": 4.0}, columns={})
    assert erm < 0.65
    assert worst_group(afr.head, *TEST) > erm + 0.1


def test_it_repeats_itself_and_follows_the_seed():
    first, again, other = (fit("afr", planted(200), schedule=SHORT, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.state.weights, other.state.weights)


def test_a_head_that_is_not_linear_is_refused():
    head = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(InvalidConfigError, match=r"needs a linear head, got Sequential; build the adapter with"):
        make("afr").check(Setup(head, encoder_trains=False, num_labels=2))


@pytest.mark.parametrize(
    "options",
    [{"gamma": -1.0}, {"penalty": -1.0}, {"learning_rate": 0.0}, {"steps": 0}, {"held_out": 0.0}, {"held_out": 1.0}],
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(InvalidConfigError, match=next(iter(options))):
        fit("afr", planted(50), options=options)


def test_a_class_of_one_example_and_a_diverged_stage_are_refused():
    with pytest.raises(InvalidInputError, match=r"class 1 has 1 training.*at least 2 are needed"):
        fit("afr", (torch.randn(3, 2), torch.tensor([0, 0, 1]), torch.zeros(3, dtype=torch.long)), schedule=SHORT)
    with pytest.raises(NonFiniteError, match="lower its learning_rate"):
        retrain_last_layer(
            torch.full((1, 1), float("inf")), torch.tensor([0]), torch.ones(1), torch.ones(2, 1), None,
            penalty=0.0, learning_rate=1.0, steps=1,
        )  # fmt: skip
