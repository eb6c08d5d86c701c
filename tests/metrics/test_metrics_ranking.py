"""Areas under the ROC curve: exact, binned, and the cells of the bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from aifs_peft.errors import InvalidInputError
from aifs_peft.metrics import group_metrics
from aifs_peft.metrics.ranking import CELLS, BinnedScores, ExactScores, auc_of_cells


def rankings(store, labels, scores, slots=None):
    labels = np.asarray(labels)
    store.add(np.zeros(len(labels), int) if slots is None else np.asarray(slots), labels, np.asarray(scores))
    return list(store.rankings())


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30))
def test_exact_area_equals_sklearn_with_ties(rows):
    labels, scores = np.array([r[0] for r in rows], int), np.array([r[1] for r in rows], float)
    (ranking,) = rankings(ExactScores(1, 2), labels, scores)
    if len(set(labels)) < 2:
        assert np.isnan(ranking.auc)
        return
    assert ranking.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    # few distinct scores: the cells of the bootstrap lose nothing
    assert float(auc_of_cells(*ranking.cells)) == pytest.approx(ranking.auc, abs=1e-12)


def test_cells_are_bounded_and_nearly_exact():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20000)
    (ranking,) = rankings(ExactScores(1, 2), labels, rng.normal(size=20000) + labels)
    assert ranking.cells.shape[1] <= 2 * CELLS
    assert ranking.cells.sum() == 20000
    assert float(auc_of_cells(*ranking.cells)) == pytest.approx(ranking.auc, abs=1e-3)


def test_binned_area_is_that_of_the_binned_scores():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 3000), rng.random(3000)
    scores = 0.7 * scores + 0.3 * labels
    exact = roc_auc_score(labels, scores)
    for bins in (8, 64, 4096):
        (ranking,) = rankings(BinnedScores(1, 2, bins), labels, scores)
        position = np.minimum((scores * bins).astype(int), bins - 1)
        assert ranking.auc == pytest.approx(roc_auc_score(labels, position), abs=1e-12)
        counts = [np.bincount(position[labels == k], minlength=bins) for k in (0, 1)]
        bound = (counts[0] * counts[1]).sum() / (2 * counts[0].sum() * counts[1].sum())
        assert abs(ranking.auc - exact) <= bound
        assert ranking.cells.shape[1] <= 2 * CELLS
        assert ranking.cells.sum() == 3000


def test_binned_classes_equal_exact_ones_on_a_grid():
    rng = np.random.default_rng(1)
    labels, group = rng.integers(0, 3, 500), rng.integers(0, 2, 500)
    table = rng.multinomial(16, [0.3, 0.3, 0.4], 500) / 16  # scores on the edges of 16 bins, and 1.0 in the last
    table = np.where(table == 1.0, 15 / 16, table)
    exact = group_metrics(labels, table.argmax(1), group, table / table.sum(1, keepdims=True))
    binned = group_metrics(labels, table.argmax(1), group, table / table.sum(1, keepdims=True), score_bins=16)
    for g in ("0", "1"):
        assert binned["groups"][g]["roc_auc"] == pytest.approx(exact["groups"][g]["roc_auc"], abs=1e-12)


def test_binned_scores_must_be_probabilities():
    with pytest.raises(InvalidInputError, match="score_bins needs scores"):
        group_metrics([0, 1], [0, 1], [0, 0], [0.5, 1.5], score_bins=8)


def test_macro_area_leaves_an_absent_class_out_and_says_so():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 100)
    table = rng.dirichlet([1, 1, 1], 100)
    result = group_metrics(labels, table.argmax(1), np.zeros(100, int), table)
    expected = np.mean([roc_auc_score(labels == k, table[:, k]) for k in (0, 1)])
    assert result["worst_group_roc_auc"] == pytest.approx(expected, abs=1e-12)
    assert "without class 2" in result["groups"]["0"]["reasons"]["roc_auc"]


def test_many_slots_use_wide_keys():
    labels, slots = np.tile([0, 1], 33000), np.repeat(np.arange(33000), 2)
    found = rankings(ExactScores(33000, 2), labels, np.tile([0.1, 0.9], 33000), slots)
    assert [r.auc for r in found[-3:]] == [1.0] * 3
    assert len(found) == 33000


def test_float32_and_float64_batches_rank_together():
    store = ExactScores(1, 2)
    third = np.float32(1 / 3)
    store.add(np.zeros(2, int), np.array([0, 1]), np.array([third, third]))
    store.add(np.zeros(1, int), np.array([1]), np.array([1 / 3]))  # a little below its float32 rounding
    (ranking,) = store.rankings()
    assert ranking.auc == 0.25
