"""Wrong labels beside a shortcut, and wrong labels alone."""

import numpy as np
import pytest

from aifs_peft import AIFSClassifier
from aifs_peft.discovery import discover
from aifs_peft.discovery.arrays import one_hot
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.gate import NO_CLASS
from aifs_peft.discovery.result import Candidate
from aifs_peft.discovery.search.finding import Partition
from aifs_peft.discovery.search.noisy_labels import (
    MISLABELLED,
    class_beside,
    class_not_told,
    classes_beside,
    judge_again,
    told_beside,
)


def draw(seed=0, n=3000, share=0.85, noise=0.25, attribute=8.0, core=1.5, d=32):
    """Labels of which some are wrong, an attribute that goes with what they say, and a core that does not."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 2, n)
    y = np.where(rng.random(n) < noise, 1 - true, true)
    a = np.where(rng.random(n) < share, y, 1 - y)
    Z = rng.normal(size=(n, d))
    Z[:, 0] += attribute * a
    Z[:, 1:4] += core / np.sqrt(3.0) * true[:, None]
    return Z, y, a, true


@pytest.mark.parametrize("seed", range(3))
def test_a_shortcut_is_found_beside_a_quarter_of_wrong_labels(seed):
    Z, y, a, _ = draw(seed)
    found = discover(Z, y, random_state=0)
    assert found.found
    assert np.mean(a[found.conflicting_] != y[found.conflicting_]) > 0.95
    assert np.mean(found.conflicting_[a != y]) > 0.95
    # The contrast of the class alone would not have been enough.
    best = max((c for c in found.candidates_ if c.accepted), key=lambda c: c.gain)
    assert best.class_strength < DEFAULT_CONFIG.gate.class_strength


def test_the_head_is_right_where_the_shortcut_is_wrong():
    Z, y, _, _ = draw(0)
    held, _, a, true = draw(1, noise=0.0, share=0.5)
    worst = {}
    for recipe in ("erm", "discovery"):
        right = AIFSClassifier(recipe, random_state=0).fit(Z, y).predict(held) == true
        worst[recipe] = min(right[(a == i) & (true == j)].mean() for i in (0, 1) for j in (0, 1))
    assert worst["discovery"] > worst["erm"] + 0.3


@pytest.mark.parametrize("noise", [0.1, 0.25])
@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_alone_are_no_shortcut(seed, noise):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 2, 3000)
    Z = rng.normal(size=(3000, 32))
    Z[:, 0] += 7.0 * true
    y = np.where(rng.random(3000) < noise, 1 - true, true)
    result = discover(Z, y, random_state=0)
    assert not result.found
    assert any("mislabelled" in c.reason for c in result.candidates_)


def partition(y, conflicting, *, gain, reason):
    """A refined partition of labels by which of them conflict."""
    attribute = np.where(conflicting, 1 - y, y)
    record = Candidate(
        source="trimmed", k=16, share=0.1, gain=gain, cosine=0.0, strength=5.5, class_strength=0.3, association=0.7,
        conflicts=float(conflicting.mean()), accepted=reason == "accepted", reason=reason,
    )  # fmt: skip
    return Partition(record, one_hot(attribute, 2), mixture=None)


def test_a_partition_that_holds_clearer_wrong_labels_is_refused():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 1000)
    wrong = rng.random(1000) < 0.1
    y = np.where(wrong, 1 - true, true)
    X = rng.normal(size=(1000, 16))
    X[:, 0] += 8.0 * true
    more = wrong | (rng.random(1000) < 0.05)
    others = ~wrong & (rng.random(1000) < 0.15)
    labels = partition(y, wrong, gain=500.0, reason=f"{NO_CLASS}: mislabelled? (0.30 < 0.80)")
    mixed = partition(y, more, gain=200.0, reason="accepted")
    apart = partition(y, others, gain=200.0, reason="accepted")
    clearer = partition(y, more, gain=900.0, reason="accepted")
    judged, found = judge_again([labels, mixed, apart, clearer], X, y, [], config=DEFAULT_CONFIG)
    assert [p.record.reason for p in judged[1:]] == [MISLABELLED, "accepted", "accepted"]
    assert not judged[1].record.accepted
    assert found == [labels]
    # It is known at every number of components once one has shown it.
    again, _ = judge_again([mixed], X, y, found, config=DEFAULT_CONFIG)
    assert again[0].record.reason == MISLABELLED


def test_the_area_is_of_the_class_beside_the_attribute():
    Z, y, a, true = draw(0, noise=0.0, attribute=8.0, core=3.0)
    area, error = class_beside(Z, y, a, config=DEFAULT_CONFIG)
    assert area > 0.9
    # Labels that the attribute alone explains leave nothing to tell.
    only, error = class_beside(
        Z, np.where(np.random.default_rng(5).random(len(a)) < 0.15, 1 - a, a), a, config=DEFAULT_CONFIG
    )
    assert abs(only - 0.5) < 4 * error
    assert 0 < error < 0.05
    assert true.shape == y.shape


def test_unequal_classes_with_wrong_labels():
    Z, y, a, _ = draw(0, n=4000, core=1.5)
    keep = np.flatnonzero((y == 0) | (np.random.default_rng(1).random(len(y)) < 0.5))  # one class twice as frequent
    found = discover(Z[keep], y[keep], random_state=0)
    assert found.found
    assert np.mean((a != y)[keep][found.conflicting_]) > 0.95


def many(seed=0, K=4, n=2000, share=0.7, core=1.0, d=64):
    """A plain attribute beside a class that is hard to tell."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    a = np.where(rng.random(n) < share, y, (y + rng.integers(1, K, n)) % K)
    Z = rng.normal(size=(n, d))
    Z[np.arange(n), a] += 6.0
    Z[np.arange(n), K + y] += core
    return Z, y, a


@pytest.mark.parametrize(("K", "share"), [(3, 0.7), (4, 0.85)])
def test_of_many_classes_a_plain_shortcut_is_found_beside_a_class_that_is_hard_to_tell(K, share):
    Z, y, a = many(K=K, share=share)
    found = discover(Z, y, random_state=0)
    assert found.found
    assert np.mean(found.groups_ == a) > 0.99
    # By its contrast alone the class would not have been seen.
    accepted = [c for c in found.candidates_ if c.accepted and c.source.endswith("refined")]
    assert min(c.class_strength for c in accepted) < DEFAULT_CONFIG.gate.trimmed_class_strength


@pytest.mark.parametrize("share", [0.7, 0.9])
def test_of_many_classes_nothing_is_found_where_nothing_tells_the_class(share):
    """The attribute is the class, and the label has errors."""
    Z, y, _ = many(share=share, core=0.0)
    result = discover(Z, y, random_state=0)
    assert not result.found
    assert any("mislabelled" in c.reason for c in result.candidates_)


def test_the_area_of_many_classes_is_of_the_class_beside_the_attribute():
    none, some = (classes_beside(*many(core=core), config=DEFAULT_CONFIG) for core in (0.0, 1.0))
    assert abs(none[0] - 0.5) < 3 * none[1]
    assert some[0] > 0.6
    assert some[0] > 0.5 + 5 * some[1]
    Z, y, a = many()
    assert classes_beside(Z, y, y, config=DEFAULT_CONFIG) == (0.5, np.inf)  # nothing conflicts: nothing can be told
    # All partitions must show it.
    assert told_beside(Z, y, [a, a], 6.0, config=DEFAULT_CONFIG)
    assert not told_beside(Z, y, [a, y], 6.0, config=DEFAULT_CONFIG)


def test_wrong_labels_spread_over_many_cells_are_no_shortcut():
    """Of ten classes hardly any cell has five wrong labels; all cells together tell that the class is not there."""
    rng = np.random.default_rng([202, 10, 5])
    true = rng.integers(0, 10, 3000)
    Z = rng.normal(size=(3000, 64))
    Z[np.arange(3000), true] += 4.0
    y = np.where(rng.random(3000) < 0.05, rng.integers(0, 10, 3000), true)
    result = discover(Z, y, random_state=0)
    assert not result.found
    refused = [c for c in result.candidates_ if "held-out examples: area" in c.reason]
    assert refused  # else another test of the gate did it, and this draw shows nothing
    assert class_not_told(Z, y, true, config=DEFAULT_CONFIG)
    # A class that is there beside the attribute is told by as few examples.
    Z[np.arange(3000), 10 + y] += 2.0
    assert class_not_told(Z, y, true, config=DEFAULT_CONFIG) == ""
