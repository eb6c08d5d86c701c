"""NeuronTune-style: which features are biased, the last layer without them, and what becomes of a planted shortcut."""

import numpy as np
import pytest
import torch
from shortcut_latents import fit, planted
from torch import nn

from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError, NonFiniteError
from aifs_peft.methods import Setup, make
from aifs_peft.methods.common.held_out import stratified_rows
from aifs_peft.methods.last_layer.neurontune import biased_features, retrained_without
from aifs_peft.training.latent_trainer import LatentSchedule

SHORT = LatentSchedule(epochs=3)


@pytest.mark.parametrize("every", [True, False])
def test_biased_features_are_those_whose_mistakes_have_the_higher_median(every):
    rng = np.random.default_rng(0)
    H, y, predicted = rng.normal(size=(81, 12)), rng.integers(3, size=81), rng.integers(3, size=81)
    above = [
        np.median(H[(y == k) & (predicted != k)], 0) - np.median(H[(y == k) & (predicted == k)], 0) > 0.1
        for k in range(3)
    ]
    wanted = np.all(above, 0) if every else np.any(above, 0)
    got = biased_features(
        torch.as_tensor(H), torch.as_tensor(y), torch.as_tensor(predicted), threshold=0.1, every=every
    )
    assert got.tolist() == wanted.tolist()
    assert 0 < sum(wanted) < 12


def test_a_class_without_mistakes_says_nothing():
    H, y = torch.tensor([[0.0], [2.0], [9.0]]), torch.tensor([0, 0, 1])
    assert biased_features(H, y, torch.tensor([0, 1, 1]), threshold=0.0, every=True).tolist() == [True]
    assert biased_features(H, y, y, threshold=0.0, every=False).tolist() == [False]


def test_the_layer_is_trained_again_without_them_and_classes_count_alike():
    generator = torch.Generator().manual_seed(0)
    H = torch.randn(300, 3, generator=generator)
    y = (torch.arange(300) % 10 == 0).long()
    off = torch.tensor([True, False, True])
    weight, bias = retrained_without(
        H, y, torch.ones(2, 3), torch.zeros(2), off, epochs=40, learning_rate=0.05, batch_size=50, seed=0
    )
    assert (weight[:, off] == 0).all()
    assert weight[:, 1].abs().sum() > 0
    # Nothing separates the classes, so a balanced layer prefers neither although one is nine times as frequent.
    assert abs(float((H @ weight.T + bias).softmax(1)[:, 1].mean()) - 0.5) < 0.1
    assert retrained_without(
        H, y, torch.ones(2, 3), None, off, epochs=1, learning_rate=0.05, batch_size=50, seed=0
    )[1] is None  # fmt: skip


def presence(n=3000, seed=0):
    """Non-negative features as after a ReLU: two of the classes, one that is there when another class's is expected."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=generator)
    misled = torch.rand(n, generator=generator) < 0.1
    z = torch.randn(n, 4, generator=generator).abs() * 0.5
    z[torch.arange(n), torch.where(misled, 1 - y, y)] += 2
    z[misled, 2] += 3
    return z, y, misled.long()


def test_a_feature_that_goes_with_mistakes_is_found_and_switched_off():
    fitted = fit("neurontune", presence(), columns={})
    assert (fitted.head.weight[:, 2] == 0).all()
    numbers = fitted.history[-1]
    assert numbers["biased_features"] == int((fitted.head.weight == 0).all(0).sum())
    assert 0.03 < numbers["held_out_mistakes"] < 0.2


def test_first_stage_never_sees_the_held_out_fifth_of_each_class():
    z, y, groups = presence(500)
    moved = z.clone()
    moved[stratified_rows(y, 0.2, 0)] *= 1.001  # what is found there is the same, so everything else must be
    numbers = {"epochs": 0, "threshold": 0.2}
    fitted, again = (fit("neurontune", (x, y, groups), options=numbers, schedule=SHORT) for x in (z, moved))
    torch.testing.assert_close(again.head.weight, fitted.head.weight, atol=1e-6, rtol=0)


def test_a_run_without_biased_features_says_so(caplog):
    fit("neurontune", planted(100), options={"threshold": 1e6}, schedule=SHORT)
    assert "no biased feature" in caplog.text


def test_a_head_with_hidden_layers_is_changed_where_its_last_layer_is():
    make("neurontune").check(Setup(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), False, 2))
    with pytest.raises(HeadError, match="without a linear layer"):
        make("neurontune").check(Setup(nn.Identity(), False, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": float("nan")}, {"classes": "most"}, {"held_out": 1.0}, {"epochs": -1}, {"learning_rate": 0.0},
        {"batch_size": 0},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(InvalidConfigError, match=next(iter(options))):
        make("neurontune", method_options=options)


def test_a_class_of_one_example_and_a_diverged_layer_are_refused():
    with pytest.raises(InvalidInputError, match=r"class 1 has 1 training.*at least 2 are needed"):
        fit("neurontune", (torch.randn(3, 2), torch.tensor([0, 0, 1]), torch.zeros(3, dtype=torch.long)))
    with pytest.raises(NonFiniteError, match="lower its learning_rate"):
        retrained_without(
            torch.full((2, 1), float("inf")), torch.tensor([0, 1]), torch.ones(2, 1), None, torch.tensor([False]),
            epochs=1, learning_rate=1.0, batch_size=2, seed=0,
        )  # fmt: skip
