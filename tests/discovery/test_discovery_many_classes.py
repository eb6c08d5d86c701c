"""Many classes: a rough partition is sharpened, and the head knows that it is rough."""

from dataclasses import fields

import numpy as np
import pytest

import aifs_peft.discovery.mixture.refine as refine
from aifs_peft.discovery import GateThresholds, discover
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.linear_heads.choice import choose_head
from aifs_peft.discovery.linear_heads.families import HeadSetting, default_setting, fit_head
from aifs_peft.discovery.mixture.additive import (
    AdditiveMoments,
    additive_model,
    split_by_signal,
    with_conflicting_covariance,
)
from aifs_peft.discovery.mixture.refine import _assign, refine_attribute


def planted(K=5, n=4000, k=24, seed=0, spurious=4.0, core=2.5, tails=None):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    a = np.where(rng.random(n) < 0.95, y, (y + rng.integers(1, K, n)) % K)
    X = rng.normal(size=(n, k))
    if tails is not None:
        X *= np.sqrt(tails / rng.chisquare(tails, size=n))[:, None]
    X[:, :K] += spurious * np.eye(K)[a]
    X[:, K : 2 * K] += core * np.eye(K)[y]
    return X.astype(np.float32), y, a


def rough_start(y, a, K, seed=1):
    """Half of the conflicting examples missed, and as many aligned ones called."""
    rng = np.random.default_rng(seed)
    start = np.where(rng.random(len(y)) < 0.5, a, y)
    wrong = rng.choice(np.flatnonzero(a == y), np.count_nonzero(a != start), replace=False)
    start[wrong] = (y[wrong] + rng.integers(1, K, len(wrong))) % K
    return start


def exact(groups, y, a):
    called, true = groups != y, a != y
    hit = np.count_nonzero(called & (groups == a))
    return hit / called.sum(), hit / true.sum()


@pytest.mark.parametrize(("tails", "least"), [(None, 0.75), (8.0, 0.7)])
def test_a_rough_partition_becomes_sharper(tails, least):
    X, y, a = planted(tails=tails, spurious=5.0)
    start = rough_start(y, a, 5)
    assert max(exact(start, y, a)) < 0.6
    R = refine_attribute(X, y, start, 5, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    np.testing.assert_allclose(R.sum(axis=1), 1.0, atol=1e-6)
    precision, recall = exact(R.argmax(axis=1), y, a)
    assert precision > least
    assert recall > least


def test_same_folds_give_the_same_weights():
    X, y, a = planted(n=1500)
    start = rough_start(y, a, 5)
    first, second = (
        refine_attribute(X, y, start, 5, rng=np.random.default_rng(3), config=DEFAULT_CONFIG) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_a_start_that_confuses_values_is_put_right():
    """The conflicting examples are known, their values are wrong in half of the cases and always in the same way."""
    X, y, a = planted(K=5, spurious=5.0)
    swapped = np.where(a == 1, 2, np.where(a == 2, 1, a))
    start = np.where((a != y) & (swapped != y), swapped, a)
    rows = (a != y) & np.isin(a, (1, 2)) & ~np.isin(y, (1, 2))
    assert np.all(start[rows] != a[rows])
    R = refine_attribute(X, y, start, 5, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    assert np.mean(R.argmax(axis=1)[rows] == a[rows]) > 0.8


def test_cells_are_even_in_the_first_rounds_only(monkeypatch):
    X, y, a = planted(n=1000)
    seen = []
    assign = refine._assign

    def record(*arguments, even, config):
        seen.append(even)
        return assign(*arguments, even=even, config=config)

    monkeypatch.setattr(refine, "_assign", record)
    refine_attribute(X, y, a, 5, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    assert seen == [True] * 5 + [False] * 3


def test_clear_evidence_for_unequal_cells_is_followed():
    rng = np.random.default_rng(0)
    n = 4000
    y = rng.integers(0, 4, n)
    step = rng.choice([1, 2, 3], n, p=[0.6, 0.2, 0.2])
    a = np.where(rng.random(n) < 0.9, y, (y + step) % 4)
    X = rng.normal(size=(n, 16))
    X[:, :4] += 6 * np.eye(4)[a]
    X[:, 4:8] += 3 * np.eye(4)[y]
    R = refine_attribute(X.astype(np.float32), y, a, 4, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    assert min(exact(R.argmax(axis=1), y, a)) > 0.9


def two_values(n=300):
    """Three classes; in class 0 a fifth lies towards value 1, most of it more than towards value 2."""
    y = np.repeat([0, 1, 2], n // 3)
    ratio, position = np.full((n, 3), -20.0), np.full((n, 3), 0.1)
    ratio[np.arange(n), y] = 0.0
    ratio[:20, 1], ratio[:20, 2] = 8.0 + np.arange(20) / 10, 8.0
    position[:20, 1:] = 0.9
    return ratio, position, y


def test_even_rounds_fill_the_cells_of_a_class_alike():
    ratio, position, y = two_values()
    expected = 20 / 300 * 100  # the share of all classes, of class 0
    for even in (True, False):
        R = _assign(ratio, position, y, 0.5, even=even, config=DEFAULT_CONFIG.refinement)
        np.testing.assert_allclose(R.sum(axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(R[:100, 1:].sum(), expected, rtol=0.01)
        np.testing.assert_array_equal(R[20:], np.eye(3)[y[20:]])
        assert np.all(np.diff(R[:20, 1]) > 0)  # the most evident ones weigh most
        halves = R[:100, 1:].sum(axis=0)
        if even:
            np.testing.assert_allclose(halves, expected / 2, rtol=0.01)
        else:
            assert halves[0] > 1.3 * halves[1]


def test_the_share_of_conflicting_examples_is_limited():
    ratio, position, y = two_values()
    R = _assign(ratio, position, y, 0.03, even=True, config=DEFAULT_CONFIG.refinement)
    np.testing.assert_allclose(R[:100, 1:].sum(), 3.0, rtol=0.01)


def test_examples_just_past_the_middle_do_not_move():
    ratio, position, y = two_values()
    position[:20, 1:] = 0.55
    for even in (True, False):
        np.testing.assert_array_equal(
            _assign(ratio, position, y, 0.5, even=even, config=DEFAULT_CONFIG.refinement), np.eye(3)[y]
        )


def test_the_second_moment_may_be_given():
    X, y, a = planted(n=500)
    X = X.astype(np.float64)
    R = np.eye(5)[a]
    plain, given = additive_model(X, y, R), additive_model(X, y, R, second=X.T @ X)
    np.testing.assert_allclose(plain.sigma, given.sigma, atol=1e-10)


@pytest.mark.parametrize("aligned", [1.0, 0.8])
def test_moments_of_mostly_aligned_examples_are_those_of_all(aligned):
    X, y, a = planted(n=500)
    X = X.astype(np.float64)
    R = np.where(np.random.default_rng(0).random(500)[:, None] < aligned, np.eye(5)[y], np.eye(5)[a])
    R[::7] = 0.6 * R[::7] + 0.1 * (1.0 - R[::7])
    for given in (None, X.T @ X):
        quick, plain = refine._mostly_aligned(X, y, R, given), AdditiveMoments.of(X, y, R, second=given)
        for field in fields(AdditiveMoments):
            np.testing.assert_allclose(getattr(quick, field.name), getattr(plain, field.name), atol=1e-9)


def test_the_order_of_the_examples_does_not_matter_to_what_is_judged():
    X, y, a = planted(n=600)
    start = rough_start(y, a, 5)
    order = np.random.default_rng(0).permutation(600)

    def dealt(rows):
        """Folds that go with the examples, not with their places."""
        return lambda n, folds, rng: (rows * 7 // 3) % folds

    results = []
    for rows in (np.arange(600), order):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(refine, "random_folds", dealt(rows))
            R = refine_attribute(X[rows], y[rows], start[rows], 5, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
        results.append(R[np.argsort(rows)])
    np.testing.assert_allclose(results[0], results[1], atol=1e-3)


def test_an_unconfirmed_partition_of_many_classes_is_called_rough():
    X, y, _ = planted(K=5, n=1500, spurious=6.0)
    confirmed = discover(X, y, random_state=0)
    assert confirmed.found
    assert not confirmed.rough_
    # A gate that no mixture passes leaves the trimmed discriminant's partition.
    alone = discover(X, y, random_state=0, gate=GateThresholds(strength=100.0))
    assert alone.found
    assert alone.rough_
    assert np.mean(alone.groups_ == confirmed.groups_) > 0.98


def interacting(n=6000, K=4, k=24, seed=0):
    """Every cell lies beside the sum of its offsets, in some directions."""
    rng = np.random.default_rng(seed)
    beside = np.random.default_rng(99).normal(size=(K, K, 6)) * 3.0
    beside[np.arange(K), np.arange(K)] = 0.0

    def draw(y, a):
        X = rng.normal(size=(len(y), k))
        X[:, :K] += 5.0 * np.eye(K)[a]
        X[:, K : 2 * K] += 2.0 * np.eye(K)[y]
        X[:, 2 * K : 2 * K + 6] += beside[y, a] + 2.0 * np.eye(K, 6)[y]
        return X.astype(np.float32)

    y = rng.integers(0, K, n)
    a = np.where(rng.random(n) < 0.9, y, rng.integers(0, K, n))
    test_y, test_a = rng.integers(0, K, n), rng.integers(0, K, n)
    return draw(y, a), y, a, draw(test_y, test_a), test_y


def test_the_interacting_head_allows_for_what_class_and_attribute_do_together():
    X, y, a, test_X, test_y = interacting()
    R, hits = np.eye(4)[a], {}
    for family in ("additive", "interacting"):
        head = fit_head(X, y, R, HeadSetting(family, 0.02), rng=np.random.default_rng(0))
        hits[family] = np.mean(head.logits(test_X).argmax(axis=1) == test_y)
    assert hits["interacting"] > hits["additive"] + 0.02


def test_conflicting_covariance_is_that_of_the_residuals():
    X, y, a = planted(K=3, n=600, k=10)
    X = X.astype(np.float64)
    R = np.random.default_rng(0).dirichlet(np.ones(3), 600)
    R[a == y] = np.eye(3)[y[a == y]]
    model = additive_model(X, y, R)
    alpha, beta = split_by_signal(model, config=DEFAULT_CONFIG.mixture)
    scatter, total = np.zeros((10, 10)), 0.0
    for i in np.flatnonzero(a != y):
        for value in set(range(3)) - {y[i]}:
            residual = X[i] - model.alpha.mean(axis=0) - alpha[y[i]] - beta[value]
            scatter += R[i, value] * np.outer(residual, residual)
            total += R[i, value]
    mixed = with_conflicting_covariance(model, X, y, R, weight=0.25, config=DEFAULT_CONFIG.mixture)
    np.testing.assert_allclose(mixed.sigma, 0.75 * model.sigma + 0.25 * scatter / total, atol=1e-10)


def test_only_a_rough_partition_has_the_interacting_head_as_default():
    assert default_setting(10).family == "additive"
    assert default_setting(10, rough=True).family == "interacting"
    assert default_setting(2).family == "additive"


def test_two_classes_are_not_offered_the_interacting_head():
    for K in (2, 3):
        X, y, a = planted(K=K, n=1500, k=10)
        scores = choose_head(X, y, np.eye(K)[a], rng=np.random.default_rng(0)).scores
        assert any("interacting" in name for name in scores) == (K > 2)
