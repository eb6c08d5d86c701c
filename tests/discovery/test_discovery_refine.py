"""Many classes: a rough partition is sharpened, and the head knows that it is rough."""

import numpy as np
import pytest

from aifs_peft.discovery import GateThresholds, discover
from aifs_peft.discovery.additive import additive_model
from aifs_peft.discovery.refine import CELL_CAP, _assign, refine_attribute
from aifs_peft.discovery.selection import default_setting


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
    R = refine_attribute(X, y, start, 5, rng=np.random.default_rng(0))
    np.testing.assert_allclose(R.sum(axis=1), 1.0, atol=1e-6)
    precision, recall = exact(R.argmax(axis=1), y, a)
    assert precision > least
    assert recall > least


def test_same_folds_give_the_same_weights():
    X, y, a = planted(n=1500)
    start = rough_start(y, a, 5)
    first, second = (refine_attribute(X, y, start, 5, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_cell_takes_no_more_than_its_cap_and_the_most_evident_ones():
    n = 300
    y = np.repeat([0, 1, 2], 100)
    ratio = np.zeros((n, 3))
    ratio[y == 0, 1] = np.arange(100)  # every example of class 0 looks like value 1
    ratio[y == 0, 2] = -1.0
    position = np.where(ratio > 0, 0.9, 0.1)
    attribute = _assign(ratio, position, y, share=0.1)
    called = np.flatnonzero(attribute != y)
    cap = round(CELL_CAP * 0.1 * 100 / 2)
    np.testing.assert_array_equal(called, np.arange(100 - cap, 100))
    assert set(attribute[called]) == {1}
    near = np.where(ratio > 0, 0.55, 0.1)  # just past the middle: hard examples
    np.testing.assert_array_equal(_assign(ratio, near, y, share=0.1), y)


def test_the_second_moment_may_be_given():
    X, y, a = planted(n=500)
    X = X.astype(np.float64)
    R = np.eye(5)[a]
    plain, given = additive_model(X, y, R), additive_model(X, y, R, second=X.T @ X)
    np.testing.assert_allclose(plain.sigma, given.sigma, atol=1e-10)


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


def test_a_rough_partition_has_its_own_default_head():
    assert default_setting(10).family == "additive"
    assert default_setting(10, rough=True).family == "counterfactual"
