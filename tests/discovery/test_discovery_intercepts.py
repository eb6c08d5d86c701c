"""Intercepts that even out the cells: moved where that gains, left alone where the gain is noise."""

import numpy as np
import pytest

from aifs_peft import AIFSClassifier
from aifs_peft.discovery.linear_heads.intercepts import even_intercepts


def scores(y, rng, middle=0.0, distance=2.0):
    """Logits of two classes or more, whose best threshold is off by `middle` for class 0."""
    K = int(y.max()) + 1
    logits = rng.normal(size=(len(y), K)) + distance * np.eye(K)[y]
    logits[:, 0] += middle
    return logits


def worst(logits, y):
    hit = logits.argmax(axis=1) == y
    return min(hit[y == c].mean() for c in np.unique(y))


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_a_class_that_is_named_too_often_is_named_less(classes):
    rng = np.random.default_rng(0)
    y = np.arange(300 * classes) % classes
    logits = scores(y, rng, middle=1.5)
    found = even_intercepts(logits, y, np.ones((len(y), 1)), np.arange(len(y)) // classes % 3)
    assert found.moved
    assert found.gain > found.error
    assert found.shift[0] == found.shift.min() < -0.5
    other_y = np.arange(3000) % classes
    other = scores(other_y, rng, middle=1.5)
    assert worst(other + found.shift, other_y) > worst(other, other_y) + 0.1


def test_nothing_is_moved_for_a_gain_within_its_error():
    moved = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = np.arange(400) % 2
        found = even_intercepts(scores(y, rng), y, np.ones((400, 1)), np.arange(400) // 2 % 3)
        moved += found.moved
        assert found.moved == (found.gain > found.error)
    assert moved <= 1


def test_nothing_is_moved_where_a_cell_is_too_small_to_tell():
    """Its class would pay: the other cells of it say nothing of the small one."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    logits, fold = scores(y, rng, middle=1.5), np.arange(400) // 2 % 3
    assert even_intercepts(logits, y, np.ones((400, 1)), fold).moved
    cells = np.stack([np.ones(400), np.zeros(400)], axis=1)
    cells[:10] = cells[:10, ::-1]  # five of each class
    small = even_intercepts(logits, y, cells, fold)
    assert not small.moved
    assert np.isnan(small.gain)


def test_a_weight_is_a_number_of_repetitions():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    logits, times = scores(y, rng, middle=1.0), rng.integers(1, 4, 300)
    fold = np.arange(300) // 2 % 3
    weighted = even_intercepts(logits, y, np.ones((300, 1)), fold, weights=times.astype(float))
    rows = np.repeat(np.arange(300), times)
    repeated = even_intercepts(logits[rows], y[rows], np.ones((len(rows), 1)), fold[rows])
    np.testing.assert_allclose(weighted.gain, repeated.gain)
    assert weighted.error > repeated.error  # repetitions are no new examples


def test_the_fallback_lifts_the_worse_class_and_says_so():
    """The classes have other spreads: evenly weighted they are not equally well recognised."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 3000)
    Z = rng.normal(size=(3000, 6))
    Z[:, 0] = np.where(y == 1, rng.exponential(3.0, 3000), rng.exponential(1.0, 3000))
    clf = AIFSClassifier(random_state=0).fit(Z[:2000], y[:2000])
    plain = AIFSClassifier(class_weight=None, random_state=0).fit(Z[:2000], y[:2000])
    assert not clf.discovery_.found
    assert "intercepts moved towards equal accuracy" in clf.discovery_.message_
    accuracies = [min(np.mean(c.predict(Z[2000:])[y[2000:] == k] == k) for k in (0, 1)) for c in (clf, plain)]
    assert accuracies[0] > accuracies[1] + 0.05
