"""More than two classes, an attribute no clearer than the class: skewed pairs, held-out gain, ends put together."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from aifs_peft.discovery.arrays import random_folds
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.mixture.em import shrink
from aifs_peft.discovery.mixture.predictive import HeldOut
from aifs_peft.discovery.proposals.skewed_pairs import skewed_pairs
from aifs_peft.discovery.proposals.starts import Start
from aifs_peft.discovery.search.recombine import End, _together, recombine


def as_strong_as_the_class(K=4, share=0.7, n=1600, k=12, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    a = np.where(rng.random(n) < share, y, (y + rng.integers(1, K, n)) % K)
    X = rng.normal(size=(n, k))
    X[:, :K] += 4.0 * np.eye(K)[a]
    X[:, K : 2 * K] += 4.0 * np.eye(K)[y]
    return (X - X.mean(axis=0)).astype(np.float32), y, a


def in_folds(X, y):
    return HeldOut.of(X, y, int(y.max()) + 1, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)


def gain(X, y, attribute):
    return in_folds(X, y).gain(np.eye(int(y.max()) + 1)[attribute])


def test_pairs_of_classes_are_cut_where_they_are_skewed_in_opposite_ways():
    X, y, a = as_strong_as_the_class()
    proposed = skewed_pairs(X, y, 4, config=DEFAULT_CONFIG)
    moved, true = proposed != y, a != y
    assert np.mean(proposed[moved] == a[moved]) > 0.8
    assert np.mean(moved[true]) > 0.8


def test_no_example_is_cut_off_from_a_class_of_one():
    X, y, _ = as_strong_as_the_class(n=200)
    y[y == 3] = 0
    y[7] = 3
    assert skewed_pairs(X, y, 4, config=DEFAULT_CONFIG)[7] == 3


def test_the_more_of_the_truth_a_partition_knows_the_more_it_explains():
    X, y, a = as_strong_as_the_class()
    half = np.where(np.arange(len(y)) % 2, a, y)
    two_classes = np.where(y < 2, a, y)
    rng = np.random.default_rng(0)
    chance = np.where(rng.random(len(y)) < 0.3, rng.integers(0, 4, len(y)), y)
    assert gain(X, y, a) > max(gain(X, y, half), gain(X, y, two_classes)) + 0.2
    assert min(gain(X, y, half), gain(X, y, two_classes)) > gain(X, y, chance) + 0.2
    assert abs(gain(X, y, y)) < 0.05


def test_ends_that_know_some_classes_each_give_one_that_knows_all():
    X, y, a = as_strong_as_the_class()
    values = [np.where(y < 2, a, y), np.where(y < 2, y, a)]
    ends = [End(Start("known", 0.0, v), np.eye(4)[v], gain(X, y, v)) for v in values]
    rng, held_out = np.random.default_rng(0), in_folds(X, y)
    new = recombine(X, y, ends, 4, held_out=held_out, rng=rng, config=DEFAULT_CONFIG)
    best = max(new, key=lambda end: end.explained)
    assert best.explained > max(end.explained for end in ends)
    assert np.mean(best.responsibilities.argmax(axis=1) == a) > 0.97
    assert best.start.source == "recombined"
    assert best.times == 0


def test_one_end_cannot_be_recombined_and_none_is_asked_for():
    X, y, a = as_strong_as_the_class(n=400)
    ends = [End(Start("known", 0.0, v), np.eye(4)[v], 0.0) for v in (a, y)]
    rng, held_out = np.random.default_rng(0), in_folds(X, y)
    assert recombine(X, y, ends[:1], 4, held_out=held_out, rng=rng, config=DEFAULT_CONFIG) == []
    none = replace(DEFAULT_CONFIG, many_classes=replace(DEFAULT_CONFIG.many_classes, children=0))
    assert recombine(X, y, ends, 4, held_out=held_out, rng=rng, config=none) == []


def test_the_gain_is_that_of_normal_densities_fitted_to_the_other_folds():
    X, y, a = as_strong_as_the_class(n=300, k=8)
    X, fold, total = X.astype(np.float64), random_folds(300, 5, np.random.default_rng(0)), 0.0
    for j in range(5):
        out, Z = fold == j, np.eye(4)
        design = np.hstack([Z[y], Z[a]])
        gram = design[~out].T @ design[~out] + 1e-3 * np.eye(8)
        offsets = np.linalg.solve(gram, design[~out].T @ X[~out])
        shrinkage = DEFAULT_CONFIG.mixture.shrinkage
        sigma = shrink(np.cov((X - design @ offsets)[~out].T, bias=True), shrinkage)
        means = np.stack([X[~out & (y == c)].mean(axis=0) for c in range(4)])
        alone = shrink(np.cov((X - means[y])[~out].T, bias=True), shrinkage)
        prior = np.maximum(
            [np.bincount(a[~out & (y == c)], minlength=4) / np.sum(~out & (y == c)) for c in range(4)], 1e-4
        )
        for i in np.flatnonzero(out):
            values = [
                np.log(prior[y[i], v]) + multivariate_normal.logpdf(X[i], offsets[y[i]] + offsets[4 + v], sigma)
                for v in range(4)
            ]
            total += logsumexp(values) - multivariate_normal.logpdf(X[i], means[y[i]], alone)
    assert gain(X, y, a) == pytest.approx(total / 300, abs=1e-3)


def test_starts_alike_are_not_refined_again(monkeypatch):
    X, y, a = as_strong_as_the_class(n=400)
    ends = [End(Start("known", 0.0, v), np.eye(4)[v], 0.0) for v in (a, a.copy())]
    monkeypatch.setattr("aifs_peft.discovery.search.recombine.reach", None)  # not called
    rng = np.random.default_rng(4)
    values = iter([a] * 100)
    monkeypatch.setattr("aifs_peft.discovery.search.recombine._together", lambda *_: next(values))
    assert recombine(X, y, ends, 4, held_out=in_folds(X, y), rng=rng, config=DEFAULT_CONFIG) == []


def test_what_is_put_together_comes_from_either():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 500)
    first, second = (np.where(rng.random(500) < 0.5, rng.integers(0, 4, 500), y) for _ in range(2))
    seen = set()
    for _ in range(60):
        values = _together(first, second, y, 4, rng)
        assert np.all((values == first) | (values == second) | (values == y))
        seen.add(int(np.count_nonzero(values != y)))
    both = np.count_nonzero((first == second) & (first != y))
    either = np.count_nonzero((first != y) | (second != y))
    assert min(seen) <= both
    assert max(seen) == either
    assert len(seen) > 10


@pytest.mark.parametrize("share", [0.6, 0.7])
def test_the_gain_does_not_depend_on_the_order_of_the_values(share):
    X, y, a = as_strong_as_the_class(share=share, n=800)
    swapped = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(gain(X, y, a), gain(X, swapped[y], swapped[a]), rtol=1e-4)
