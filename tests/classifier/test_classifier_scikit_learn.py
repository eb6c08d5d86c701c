"""`AIFSClassifier` in scikit-learn: its own checks for every recipe, and what its users take for granted."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn_contract import CLOSED, RECIPES, SCHEDULE, estimator, expected_failed_checks, failed_checks
from sklearn_features import TABLES, planted

from aifs_peft.discovery.linear_heads.choice import hinted_head
from aifs_peft.discovery.linear_heads.families import HeadSetting, fit_head
from aifs_peft.errors import AIFSError
from aifs_peft.training.latent_trainer import LatentSchedule

FEATURES = [feature for rows in TABLES.values() for feature in rows]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.filterwarnings("ignore")  # the checks provoke warnings
def test_every_recipe_passes_the_checks_or_says_why_not(recipe):
    failed = failed_checks(recipe)
    assert sorted(failed) == sorted(expected_failed_checks(recipe)), failed


@pytest.mark.parametrize("feature", FEATURES, ids=[feature.name for feature in FEATURES])
def test_what_is_taken_for_granted(feature):
    if feature.refused is None:
        feature.run()
        return
    with pytest.raises((AIFSError, NotFittedError)) as raised:
        feature.run()
    assert str(raised.value).startswith(feature.refused)


def every_pair(count):
    """A walk over `0..count-1` in which every ordered pair of two different numbers follows each other once."""
    walk, todo = [0], {i: [j for j in range(count) if j != i] for i in range(count)}
    path = []
    while walk:
        if todo[walk[-1]]:
            walk.append(todo[walk[-1]].pop())
        else:
            path.append(walk.pop())
    return path[::-1]


@pytest.mark.filterwarnings("ignore")
def test_a_second_fit_begins_from_nothing_over_all_pairs_of_recipes():
    Z, y, _ = planted(96)
    schedule = LatentSchedule(epochs=1, learning_rate=SCHEDULE.learning_rate)

    def settings(recipe):
        fresh = estimator(recipe)
        if recipe not in CLOSED:
            fresh.set_params(schedule=schedule)
        return fresh

    wanted = {recipe: settings(recipe).fit(Z, y) for recipe in RECIPES}
    kinds = {type(clf) for clf in wanted.values()}
    used = {kind: kind() for kind in kinds}  # oracles are given their groups by a subclass
    for kind in kinds:
        recipes = [recipe for recipe in RECIPES if type(wanted[recipe]) is kind]
        followed = [recipes[i] for i in every_pair(len(recipes))]
        assert len(followed) == len(recipes) * (len(recipes) - 1) + 1
        for recipe in followed:
            clf = used[kind].set_params(**settings(recipe).get_params()).fit(Z, y)
            fresh = wanted[recipe]
            np.testing.assert_array_equal(clf.decision_function(Z), fresh.decision_function(Z), err_msg=recipe)
            assert {name for name in vars(clf) if name.endswith("_")} == {n for n in vars(fresh) if n.endswith("_")}


@pytest.mark.parametrize("family", ["additive", "interacting", "balanced", "counterfactual", "hinted"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_weight_is_a_number_of_repetitions(family, classes):
    rng = np.random.default_rng(0)
    y = np.arange(600) % classes
    a = np.where(rng.random(600) < 0.8, y, rng.integers(0, classes, 600))
    X = rng.normal(size=(600, 5))
    X[:, 0] += 3 * a
    X[:, 1] += 2 * y
    # Twelve copies of a tenth, so that what the weights do is more than what estimates vary by.
    R, times = np.eye(classes)[a], np.where((X[:, 2] > 1) & (X[:, 3] > 0), 12, 1)
    rows = np.repeat(np.arange(600), times)

    def fit(rows, weights=None):
        if family == "hinted":
            beta = np.linspace(-1, 1, classes)[:, None] * np.eye(5)[:1]
            return hinted_head(X[rows], y[rows], R[rows], beta, weights=weights)
        setting = HeadSetting(family, 0.1)
        # The same counterfactual for all repetitions: with two classes there is one other value.
        return fit_head(X[rows], y[rows], R[rows], setting, rng=np.random.default_rng(0), weights=weights)

    weighted, repeated, plain = fit(np.arange(600), times.astype(float)), fit(rows), fit(np.arange(600))
    # What is left: estimates of the sampling error, for which repeated examples count as new ones.
    tolerance = 0.05
    np.testing.assert_allclose(weighted.weight, repeated.weight, atol=tolerance * np.abs(plain.weight).max())
    assert np.abs(weighted.weight - plain.weight).max() > 2 * np.abs(weighted.weight - repeated.weight).max()


def test_warnings_of_feature_names_are_those_of_scikit_learn():
    import pandas as pd

    Z, y, _ = planted(96)
    clf = estimator("erm").fit(pd.DataFrame(Z, columns=list("abcdef")), y)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        clf.predict(Z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(pd.DataFrame(Z, columns=list("abcdef")))
