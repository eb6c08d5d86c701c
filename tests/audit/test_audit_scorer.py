"""Inferred groups of held-out examples, and the scorers for model selection that rest on them."""

import numpy as np
import pandas as pd
import pytest
from planted_audit import planted
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aifs_peft import AIFSClassifier, discover, make_worst_inferred_group_scorer, worst_inferred_group_scorer
from aifs_peft.audit import infer_groups
from aifs_peft.audit.scorer import worst_cell
from aifs_peft.errors import InvalidConfigError, InvalidInputError


@pytest.fixture(scope="module")
def found():
    Z, y, _ = planted(n=2000, contrast=7.0, core=3.0)
    return discover(Z, y, random_state=0)


@pytest.mark.parametrize(
    ("n", "aligned"), [(2000, 0.95), (200, 0.95), (2000, 0.5), (200, 0.5), (500, 0.05), (500, 1.0)]
)
def test_held_out_groups_are_read_whatever_their_bias(found, n, aligned):
    Z, y, mark = planted(n=n, aligned=aligned, contrast=7.0, core=3.0, seed=1)
    assert np.mean(infer_groups(found, Z, y) == mark) > 0.98


def test_noise_along_other_directions_does_not_hide_them():
    rng = np.random.default_rng(0)
    Z, y, mark = planted(n=4000, width=40)
    Z[:, 10:14] += 8 * rng.normal(size=(4000, 1))
    result = discover(Z[:2000], y[:2000], random_state=0)
    assert np.mean(infer_groups(result, Z[2000:], y[2000:]) == mark[2000:]) > 0.97


def test_many_classes_and_string_labels():
    Z, y, mark = planted(n=4000, classes=4, width=40)
    names = np.array(["ant", "bee", "cat", "dog"])
    result = discover(Z[:3000], names[y[:3000]], random_state=0)
    assert np.mean(infer_groups(result, Z[3000:], names[y[3000:]]) == mark[3000:]) > 0.95


def test_without_a_shortcut_the_label_is_all_there_is():
    Z, y, _ = planted(n=400, contrast=0.0)
    assert np.array_equal(infer_groups(discover(Z, y, random_state=0), Z, y), y)


def test_mistakes_are_told(found):
    Z, y, _ = planted(n=100)
    with pytest.raises(InvalidInputError, match="latents of width 3"):
        infer_groups(found, Z[:, :3], y)
    with pytest.raises(InvalidInputError, match="labels 7 are none of the 2 classes"):
        infer_groups(found, Z, np.where(y == 0, 7, y))
    with pytest.raises(InvalidInputError, match="50 labels were given for 100 latents"):
        infer_groups(found, Z, y[:50])
    with pytest.raises(InvalidInputError, match="a str was given"):
        make_worst_inferred_group_scorer("discovery")
    with pytest.raises(InvalidInputError, match="min_cell=0"):
        make_worst_inferred_group_scorer(found, min_cell=0)
    with pytest.raises(InvalidConfigError, match="LogisticRegression has found no groups of its own"):
        worst_inferred_group_scorer(LogisticRegression().fit(Z, y), Z, y)
    with pytest.raises(InvalidConfigError, match="AIFSClassifier has found no groups"):
        worst_inferred_group_scorer(AIFSClassifier("erm").fit(Z, y), Z, y)


def test_score_is_that_of_the_worst_true_cell(found):
    Z, y, mark = planted(n=2000, contrast=7.0, core=3.0, seed=1)
    model = LogisticRegression().fit(*planted(n=2000, contrast=7.0, core=3.0)[:2])
    hits = model.predict(Z) == y
    cells = 2 * y + mark
    expected = min(hits[cells == c].mean() for c in range(4))
    assert make_worst_inferred_group_scorer(found)(model, Z, y) == pytest.approx(expected, abs=0.05)


def test_search_prefers_what_plain_accuracy_does_not(found):
    Z, y, mark = planted(n=2000, contrast=7.0, core=3.0)
    weights = 1.0 / np.bincount(2 * y + mark)[2 * y + mark]

    class Balanced(LogisticRegression):
        def __init__(self, balanced=False):
            super().__init__()
            self.balanced = balanced

        def fit(self, X, t):
            rows = np.array([np.flatnonzero((x == Z).all(axis=1))[0] for x in X])
            return super().fit(X, t, sample_weight=weights[rows] * 500 if self.balanced else None)

    grid = {"balanced": [False, True]}
    by_accuracy = GridSearchCV(Balanced(), grid, cv=3).fit(Z, y)
    by_groups = GridSearchCV(Balanced(), grid, cv=3, scoring=make_worst_inferred_group_scorer(found)).fit(Z, y)
    assert by_accuracy.best_params_ == {"balanced": False}
    assert by_groups.best_params_ == {"balanced": True}


def test_scorer_takes_the_estimators_own_groups_also_in_a_pipeline():
    Z, y, _ = planted(n=1500, contrast=7.0, core=3.0)
    frame = pd.DataFrame(Z).add_prefix("z")
    names = np.array(["cat", "dog"])
    pipeline = make_pipeline(StandardScaler(), AIFSClassifier(random_state=0))
    scores = cross_val_score(pipeline, frame, names[y], cv=2, scoring=worst_inferred_group_scorer)
    assert scores.min() > 0.75


def test_own_groups_of_a_classifier_that_finds_nothing_are_the_classes():
    Z, y, _ = planted(n=600, contrast=0.0)
    model = AIFSClassifier(random_state=0).fit(Z[:300], y[:300])
    hits = model.predict(Z[300:]) == y[300:]
    expected = min(hits[y[300:] == c].mean() for c in (0, 1))
    assert worst_inferred_group_scorer(model, Z[300:], y[300:]) == pytest.approx(expected)


def test_small_cells_do_not_vote():
    hits = np.array([True] * 10 + [False] * 2)
    cells = np.array([0] * 10 + [1] * 2)
    assert worst_cell(hits, cells, 5) == 1.0
    assert worst_cell(hits, cells, 2) == 0.0
    assert worst_cell(hits, cells, 100) == 1.0
