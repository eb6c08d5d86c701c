"""LEIA-style: weights, directions and adjustment against NumPy and SciPy, and what becomes of a planted shortcut."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from shortcut_latents import fit, planted, worst_group
from torch import nn

from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError, NonFiniteError
from aifs_peft.methods import Setup, make
from aifs_peft.methods.common.held_out import stratified_rows
from aifs_peft.methods.last_layer.leia import adjusted_logits, error_directions, error_weights
from aifs_peft.training.latent_trainer import LatentSchedule

TEST = planted(2000, 0.5, seed=9)
SHORT = LatentSchedule(epochs=3)
UNTOUCHED = {"steps": 1, "learning_rate": 1e-12}


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_weights_and_directions_are_the_formulas():
    rng = np.random.default_rng(0)
    logits, y, H = rng.normal(size=(60, 3)), rng.integers(3, size=60), rng.normal(size=(60, 5)) * [5, 1, 3, 2, 0.5] + 4
    w = np.exp(3.0 * (1 - softmax(logits)[np.arange(60), y]))
    w /= w.sum()
    weights = error_weights(torch.as_tensor(logits), torch.as_tensor(y), 3.0)
    np.testing.assert_allclose(weights.numpy(), w, rtol=1e-5)
    wanted = np.linalg.svd(np.sqrt(w)[:, None] * (H - w @ H))[2][:2].T  # right singular vectors, strongest first
    got = error_directions(torch.as_tensor(H), weights, 2).double().numpy()
    np.testing.assert_allclose(np.abs((got * wanted).sum(0)), 1.0, atol=1e-5)


def test_more_directions_than_features_are_all_of_them():
    assert error_directions(torch.randn(9, 3), torch.full((9,), 1 / 9), 7).shape == (3, 3)


def test_the_adjustment_is_the_minimum_of_its_loss():
    rng = np.random.default_rng(1)
    P, base, y, w = rng.normal(size=(40, 2)), rng.normal(size=(40, 3)), rng.integers(3, size=40), rng.random(40)
    w /= w.sum()

    def loss(a):
        A = a.reshape(3, 2)
        return -(w * np.log(softmax(base + P @ A.T)[np.arange(40), y])).sum() + 0.05 * (A**2).sum()

    wanted = minimize(loss, np.zeros(6)).x.reshape(3, 2)
    as_float = [torch.as_tensor(value).float() for value in (P, base, w)]
    got = adjusted_logits(
        as_float[0], as_float[1], torch.as_tensor(y), as_float[2], penalty=0.05, learning_rate=0.05, steps=1000
    )
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-3)


def test_the_final_head_differs_along_the_directions_only():
    data = planted(600)
    first, both = fit("leia", data, options=UNTOUCHED, schedule=SHORT), fit("leia", data, schedule=SHORT)
    change = (both.head.weight - first.head.weight).detach()
    assert int(torch.linalg.matrix_rank(change, atol=1e-4)) == 1
    torch.testing.assert_close(both.head.bias, first.head.bias)
    z, y, _ = data
    held = stratified_rows(y, 0.2, 0)
    weights = error_weights(first.head(z[held]).detach(), y[held], 10.0)
    direction = error_directions(z[held], weights, 1).squeeze(1)
    torch.testing.assert_close(change @ direction.outer(direction), change, atol=1e-4, rtol=0)
    share = both.history[-1]["leia_effective_share"]
    assert share == pytest.approx(1 / (len(weights) * float((weights**2).sum())), rel=1e-3)


def test_first_stage_never_sees_the_held_out_fifth_of_each_class():
    z, y, groups = planted(500)
    fitted = fit("leia", (z, y, groups), options=UNTOUCHED, schedule=SHORT)
    moved = z.clone()
    moved[stratified_rows(y, 0.2, 0)] = 1e3
    again = fit("leia", (moved, y, groups), options=UNTOUCHED, schedule=SHORT)
    torch.testing.assert_close(again.head.weight, fitted.head.weight, atol=1e-6, rtol=0)


def test_it_takes_much_of_the_shortcut_away_without_groups():
    data = planted(4000)
    leia = fit("leia", data, options={"gamma": 5.0}, columns={})
    assert worst_group(leia.head, *TEST) > worst_group(fit("erm", data).head, *TEST) + 0.1


def test_a_head_with_hidden_layers_is_adjusted_where_its_last_layer_is():
    make("leia").check(Setup(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), False, 2))
    with pytest.raises(HeadError, match="without a linear layer"):
        make("leia").check(Setup(nn.Identity(), False, 2))


@pytest.mark.parametrize("name", ["rank", "gamma", "penalty", "learning_rate", "steps", "held_out"])
def test_numbers_out_of_range_are_refused(name):
    with pytest.raises(InvalidConfigError, match=name):
        make("leia", method_options={name: -1})


def test_a_class_of_one_example_and_a_diverged_adjustment_are_refused():
    with pytest.raises(InvalidInputError, match=r"class 1 has 1 training.*at least 2 are needed"):
        fit("leia", (torch.randn(3, 2), torch.tensor([0, 0, 1]), torch.zeros(3, dtype=torch.long)), schedule=SHORT)
    with pytest.raises(NonFiniteError, match="lower its learning_rate"):
        adjusted_logits(
            torch.full((1, 1), float("inf")), torch.zeros(1, 2), torch.tensor([0]), torch.ones(1),
            penalty=0.0, learning_rate=1.0, steps=2,
        )  # fmt: skip
