"""DFR: the refit against scikit-learn by hand, and what becomes of a planted shortcut."""

import numpy as np
import pytest
import torch
from shortcut_latents import fit, planted, worst_group
from sklearn.linear_model import LogisticRegression
from torch import nn

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.methods import EpochContext, Latents, Setup, make
from aifs_peft.methods.last_layer.dfr import balanced_subset
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import AIFSState

TEST = planted(2000, 0.5, seed=9)
SHORT = LatentSchedule(epochs=2)


def l1_logistic(X, y, strength):
    """liblinear's solution, whose intercept is penalised too, by proximal gradient descent."""
    A = np.c_[X, np.ones(len(X))] * np.where(y == 1, 1, -1)[:, None]
    step = 4 / (strength * np.linalg.norm(A, 2) ** 2)
    parameters = np.zeros(A.shape[1])
    for _ in range(20_000):
        parameters = parameters + step * strength * A.T @ (1 / (1 + np.exp(A @ parameters)))
        parameters = np.sign(parameters) * np.maximum(np.abs(parameters) - step, 0)
    return parameters


def test_one_balanced_set_and_one_c_is_an_l1_logistic_regression():
    z, y, groups = planted(800)
    rows = torch.cat([(groups == g).nonzero().squeeze(1)[:8] for g in range(4)])
    validation = tuple(part[rows] for part in (3 * z + 1, y, groups))  # all groups have 8: one possible subset
    assert len(rows) == 32
    options = {"penalties": [0.5], "subsets": 1}
    fitted = fit("dfr-oracle", (z, y, groups), validation=validation, options=options, schedule=SHORT)
    Z = validation[0].double().numpy()
    X = (Z - Z.mean(0)) / Z.std(0)
    difference = (fitted.head.weight[1] - fitted.head.weight[0]).double().numpy()
    bias = float(fitted.head.bias[1] - fitted.head.bias[0])
    mine = np.append(difference * Z.std(0), bias + difference @ Z.mean(0))
    wanted = l1_logistic(X, validation[1].numpy(), 0.5)
    assert 0 < np.count_nonzero(wanted) < len(wanted)  # l1: some latents are not used
    np.testing.assert_allclose(mine, wanted, atol=0.02)
    logits = fitted.head(validation[0])
    assert torch.allclose(logits.sum(1), torch.zeros(len(rows)), atol=1e-4)
    assert fitted.history[-1]["dfr_C"] == 0.5


def test_the_mean_over_subsets_is_in_the_head_for_three_classes():
    z, y, groups = planted(600, num_labels=3, dim=8, aligned=0.8)
    validation = planted(300, num_labels=3, dim=8, aligned=0.6, seed=2)
    options = {"penalties": [0.1], "subsets": 3}
    fitted = fit(
        "dfr-oracle", (z, y, groups), validation=validation, options=options, schedule=SHORT, num_labels=3, seed=5
    )
    Z, labels, g = (part.numpy() for part in validation)
    Z = Z.astype(np.float64)
    X = (Z - Z.mean(0)) / Z.std(0)
    rng = np.random.default_rng(5)
    half = np.zeros(len(g), dtype=bool)
    for group in np.unique(g):
        members = rng.permutation(np.flatnonzero(g == group))
        half[members[: len(members) // 2]] = True
    balanced_subset(g[half], rng)  # the tuning subset
    heads = []
    for _ in range(3):
        rows = balanced_subset(g, rng)
        models = [
            LogisticRegression(C=0.1, l1_ratio=1.0, solver="liblinear", max_iter=1000, random_state=5).fit(
                X[rows], labels[rows] == k
            )
            for k in range(3)
        ]
        heads.append(np.stack([model.decision_function(X) for model in models], axis=1))
    np.testing.assert_allclose(fitted.head(validation[0]).numpy(), np.mean(heads, axis=0), atol=1e-4)


def test_it_takes_the_shortcut_away_and_chooses_c_from_its_list():
    data = planted()
    fitted = fit("dfr-oracle", data, validation=planted(500, 0.8, seed=3))
    assert worst_group(fit("erm", data).head, *TEST) < 0.65
    assert worst_group(fitted.head, *TEST) > 0.85
    assert fitted.history[-1]["dfr_C"] in {1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01}
    assert 0.7 < fitted.history[-1]["dfr_tuning_worst_group"] <= 1.0


def test_c_is_chosen_by_the_worst_group_of_the_other_half():
    fitted = fit("dfr-oracle", planted(300), validation=planted(400, 0.8, seed=3), options={"penalties": [1e-6, 1.0]})
    # With a penalty that leaves nothing, one class is always wrong.
    assert fitted.history[-1]["dfr_C"] == 1.0


def test_a_balanced_subset_has_each_example_once():
    groups = np.array([3] * 9 + [1] * 2 + [5] * 4)
    rows = balanced_subset(groups, np.random.default_rng(0))
    assert len(np.unique(rows)) == len(rows) == 6
    assert np.bincount(groups[rows]).tolist() == [0, 2, 0, 2, 0, 2]


def test_it_repeats_itself():
    first, again = (fit("dfr-oracle", planted(200), validation=planted(200, 0.7, seed=3)) for _ in range(2))
    assert torch.equal(first.head.weight, again.head.weight)


def test_a_head_without_bias_is_fitted_without_one():
    z, y, groups = planted(300, 0.7)
    head = nn.Linear(10, 2, bias=False)
    method = make("dfr-oracle")
    latents = Latents(z, y, torch.arange(300), 300)
    method.finish(
        EpochContext(
            head, AIFSState(10), 2, encoder_trains=False, device=torch.device("cpu"),
            encode_validation=lambda: (latents, {"group": groups}),
        )
    )  # fmt: skip
    assert worst_group(head, *planted(500, 0.5, seed=1)) > 0.8


def test_what_is_missing_is_refused_before_training():
    method = make("dfr-oracle")
    mlp = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(InvalidConfigError, match="needs a linear head, got Sequential"):
        method.check(Setup(mlp, encoder_trains=False, num_labels=2, has_validation=True))
    with pytest.raises(InvalidConfigError, match="fits the last layer on a validation set with the column 'group'"):
        fit("dfr-oracle", planted(50))
    z, y, groups = planted(50)
    with pytest.raises(InvalidConfigError, match=r"reads 'group' of every validation example"):
        fit_on_latents("dfr-oracle", z, y, num_labels=2, validation=(z, y, {}))
    groups[:] = y
    groups[0] = 7
    with pytest.raises(InvalidInputError, match=r"group 7 of the validation set has 1 example\(s\), at least 2"):
        fit("dfr-oracle", planted(50), validation=(z, y, groups))


@pytest.mark.parametrize("options", [{"penalties": []}, {"penalties": "1"}, {"penalties": [0.0]}, {"subsets": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(InvalidConfigError, match=next(iter(options))):
        fit("dfr-oracle", planted(50), validation=planted(50), options=options)


def test_a_validation_set_without_a_class_is_refused():
    data = planted(300, num_labels=3, dim=8)
    z, y, groups = planted(300, num_labels=3, dim=8, seed=1, aligned=0.7)
    keep = y < 2
    with pytest.raises(InvalidInputError, match=r"no example of class \[2\]"):
        fit("dfr-oracle", data, validation=(z[keep], y[keep], groups[keep]), num_labels=3, schedule=SHORT)


def test_groups_that_leave_out_a_class_are_refused():
    z, y = torch.randn(24, 10, generator=torch.Generator().manual_seed(0)), torch.zeros(24, dtype=torch.long)
    groups = torch.tensor([0] * 22 + [1] * 2)
    y[0] = 1  # one of 22 in a group of which two are drawn
    with pytest.raises(InvalidInputError, match="holds one class only; give each combination"):
        fit("dfr-oracle", planted(100), validation=(z, y, groups), schedule=SHORT)
