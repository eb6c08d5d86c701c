"""Requested shares equal the measured ones, whatever the class sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aifs_peft.data.sampling import aligned_attribute, check_count, check_share, exact_flips, noisy_labels
from aifs_peft.errors import InvalidInputError

labels_of = st.lists(st.integers(0, 3), min_size=1, max_size=300).map(lambda v: np.array(v, dtype=np.int64))
share_of = st.floats(0, 1)


@settings(max_examples=150)
@given(labels_of, share_of, st.integers(0, 10))
def test_flips_are_exact_overall_and_in_each_stratum(labels, share, seed):
    chosen = exact_flips(labels, share, np.random.default_rng(seed))
    assert chosen.sum() == round(share * len(labels))
    for label in np.unique(labels):
        of_class = labels == label
        assert abs(chosen[of_class].sum() - share * of_class.sum()) <= 1 + 1e-6


@settings(max_examples=100)
@given(labels_of, share_of, st.integers(0, 10))
def test_aligned_share_is_the_requested_one_and_conflicts_are_spread(labels, share, seed):
    values = aligned_attribute(labels, share, 4, np.random.default_rng(seed))
    assert abs((values == labels).mean() - share) <= 0.5 / len(labels) + 1e-9
    assert values.min() >= 0
    assert values.max() <= 3
    for label in np.unique(labels):
        conflicts = values[(labels == label) & (values != labels)]
        counts = [int((conflicts == v).sum()) for v in range(4) if v != label]
        assert max(counts) - min(counts) <= 1


def test_aligned_share_of_one_over_k_is_independence():
    labels = np.repeat(np.arange(4), 400)
    values = aligned_attribute(labels, 0.25, 4, np.random.default_rng(0))
    table = np.zeros((4, 4))
    np.add.at(table, (labels, values), 1)
    assert np.abs(table - 100).max() <= 1


def test_noise_is_exact_and_seeded():
    labels = np.repeat(np.arange(10), 77)
    noisy = noisy_labels(labels, 0.25, 10, np.random.default_rng(3))
    assert (noisy != labels).sum() == round(0.25 * 770)
    assert np.array_equal(noisy, noisy_labels(labels, 0.25, 10, np.random.default_rng(3)))
    assert not np.array_equal(noisy, noisy_labels(labels, 0.25, 10, np.random.default_rng(4)))


def test_wrong_arguments_are_refused():
    with pytest.raises(InvalidInputError, match=r"a must be a share in \[0, 1\]; got 1.2"):
        check_share("a", 1.2)
    with pytest.raises(InvalidInputError, match="share in"):
        check_share("a", float("nan"))
    with pytest.raises(InvalidInputError, match=r"n must lie in 1\.\.5 .* got 6"):
        check_count("n", 6, 5)
    with pytest.raises(InvalidInputError, match="as many values as classes"):
        aligned_attribute(np.array([0, 2]), 0.5, 2, np.random.default_rng(0))
