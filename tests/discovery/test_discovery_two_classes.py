"""Two classes: cross-fitted EM, relative strength, and which starts lead where."""

from dataclasses import replace

import numpy as np
import pytest

from aifs_peft.discovery import discover
from aifs_peft.discovery.config import DEFAULT_CONFIG, InputConfig
from aifs_peft.discovery.gate import Geometry, refined_verdict, relative_strength
from aifs_peft.discovery.inputs import even_rows
from aifs_peft.discovery.mixture.crossfit import cross_fitted
from aifs_peft.discovery.mixture.em import Moments, fit_mixture
from aifs_peft.discovery.proposals.starts import propose_starts
from aifs_peft.discovery.search.two_classes import find_partition


def planted(rho, *, n=1200, d=150, core=2.0, spurious=6.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < rho, y, 1 - y)
    X = rng.normal(size=(n, d))
    X[:, 0] += core * y
    X[:, 1] += spurious * a
    return (X - X.mean(axis=0)).astype(np.float32), y, a


def test_cross_fitting_lets_go_what_em_remembers():
    X, y, a = planted(0.97, n=600)
    rng = np.random.default_rng(1)
    start = a.copy()
    wrong = rng.choice(np.flatnonzero(a == y), 30, replace=False)
    start[wrong] = 1 - y[wrong]
    remembered = (
        fit_mixture(Moments.of(X, y, 2), np.eye(2)[start], config=DEFAULT_CONFIG.mixture)
        .responsibilities(X, y)
        .argmax(axis=1)
    )
    judged = cross_fitted(X, y, np.eye(2)[start], rng=rng, config=DEFAULT_CONFIG.mixture).argmax(axis=1)
    assert np.mean(judged[wrong] == y[wrong]) > np.mean(remembered[wrong] == y[wrong])
    assert np.mean(judged == a) > 0.98


def test_cross_fitted_keeps_the_order_of_rows_and_sums_to_one():
    X, y, a = planted(0.9, d=20)
    R = cross_fitted(X, y, np.eye(2)[a], rng=np.random.default_rng(0), config=DEFAULT_CONFIG.mixture)
    np.testing.assert_allclose(R.sum(axis=1), 1.0, atol=1e-5)
    assert np.mean(R.argmax(axis=1) == a) > 0.99


def test_a_weak_correlation_is_found_from_a_cut_component():
    # The attribute is the leading direction of variance, as it is for the reduced latents that this works on.
    X, y, a = planted(0.6, n=4000, d=40)
    X = X[:, [1, 0, *range(2, 40)]]
    starts = propose_starts(X, y, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    assert any(start.source == "component" for start in starts)
    best, _, _ = find_partition(X, y, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    assert best is not None
    assert np.mean(best.responsibilities.argmax(axis=1) == a) > 0.98
    independent = np.random.default_rng(3).integers(0, 2, len(y))
    assert not any(
        s.source == "component"
        for s in propose_starts(X, independent, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    )


@pytest.mark.parametrize(("share", "expected"), [(0.97, 64), (0.85, 128)])
def test_few_conflicts_are_looked_at_in_fewer_components(share, expected):
    X, y, _ = planted(share, n=800, d=128)
    best, _, tried = find_partition(X, y, rng=np.random.default_rng(0), config=DEFAULT_CONFIG)
    assert best is not None
    assert best.record.k == expected
    assert {record.k for record in tried} >= {expected}
    assert DEFAULT_CONFIG.two_classes.components_per_conflict * best.record.conflicts * len(y) >= 64


def test_the_gate_says_what_a_refined_partition_lacks():
    y = np.arange(400) % 2
    moved = y.copy()
    moved[:40] = 1 - y[:40]

    def verdict(strength, class_strength):
        shape = Geometry(cosine=0.0, strength=strength, class_strength=class_strength)
        relative = relative_strength(shape, moved, y, 8, DEFAULT_CONFIG.gate)
        return refined_verdict(relative, shape, moved, y, 8, DEFAULT_CONFIG.gate)

    assert verdict(4.0, 2.0) == "accepted"
    assert "attribute contrast too small" in verdict(2.8, 1.5)
    assert "not clearly stronger than the class" in verdict(4.0, 3.0)
    assert "mislabelled" in verdict(4.0, 0.2)


def test_relative_strength_takes_chance_out():
    y = np.arange(400) % 2
    moved = y.copy()
    moved[:20] = 1 - y[:20]
    shape = Geometry(cosine=0.0, strength=4.0, class_strength=2.0)
    few, many = (relative_strength(shape, moved, y, k, DEFAULT_CONFIG.gate) for k in (2, 60))
    assert 2.0 < few < many


def test_even_rows_leave_classes_that_are_about_as_frequent_alone():
    y = (np.arange(1000) < 590).astype(np.int64)
    rows = np.arange(1000)
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert even_rows(y, rows, InputConfig(), rng) is rows
    assert rng.bit_generator.state == before  # what is drawn later stays as it was


@pytest.mark.parametrize("rare", [60, 390])
def test_even_rows_hold_as_many_of_each_class(rare):
    y = (np.arange(1000) >= rare).astype(np.int64)[np.random.default_rng(1).permutation(1000)]
    rows = even_rows(y, np.arange(1000), InputConfig(), np.random.default_rng(0))
    assert np.bincount(y[rows]).tolist() == [rare, rare]
    assert np.array_equal(rows, np.unique(rows))


def test_even_rows_take_a_rare_class_from_all_examples_up_to_the_size_of_the_sample():
    y = (np.arange(5000) >= 400).astype(np.int64)
    sample = np.arange(300, 1300)  # holds 100 of the rare class
    rows = even_rows(y, sample, InputConfig(fit_rows=1000), np.random.default_rng(0))
    assert np.bincount(y[rows]).tolist() == [400, 400]
    rows = even_rows(y, sample, InputConfig(fit_rows=600), np.random.default_rng(0))
    assert np.bincount(y[rows]).tolist() == [300, 300]


def unequal(*, n=800, d=48, seed=0):
    """A rarer class of 12 %, whose styles vary more; an attribute that does not go with the label moves it further."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) >= 0.12).astype(np.int64)
    a = rng.integers(0, 2, n)
    Z = rng.normal(size=(n, d))
    Z *= rng.gamma(2, 0.5, size=(n, 1)) ** -0.5
    Z[y == 0, 4 : 4 + d // 3] *= 2.0
    Z[:, 0] += 2 * y
    Z[:, 1] += 4.5 * a * (1 + 0.5 * (y == 0))
    return Z, y


def test_unequal_classes_raise_no_alarm_where_even_ones_do_not():
    Z, y = unequal()
    never = replace(DEFAULT_CONFIG, inputs=replace(DEFAULT_CONFIG.inputs, unequal=1e9))
    assert discover(Z, y, random_state=0, config=never).found
    result = discover(Z, y, random_state=0)
    assert not result.found
    assert not any(candidate.accepted for candidate in result.candidates_)


def test_a_shortcut_of_unequal_classes_is_told_of_all_examples():
    rng = np.random.default_rng(0)
    n = 1500
    y = (rng.random(n) >= 0.2).astype(np.int64)
    a = np.where(rng.random(n) < 0.9, y, 1 - y)
    Z = rng.normal(size=(n, 150))
    Z[:, 0] += 2 * y
    Z[:, 1] += 6 * a
    result = discover(Z, y, random_state=0)
    assert result.found
    assert np.mean(result.groups_ == a) > 0.98
    taken = max((c for c in result.candidates_ if c.accepted), key=lambda c: c.k)
    assert taken.k > 2 * np.bincount(y).min() // 5  # more components than as many of each class bear


def test_too_few_of_the_rarer_class_say_so():
    Z, y = unequal(n=300)
    y = np.where((y == 0) & (np.cumsum(y == 0) > 20), 1, y)
    result = discover(Z, y, random_state=0)
    assert not result.found
    assert "20 examples of the rarer class are too few" in result.message_
