"""Recall@K against a loop, groups, ties, and what is refused."""

import numpy as np
import pytest

from aifs_peft.errors import InvalidInputError
from aifs_peft.metrics import recall_at_k


def by_hand(scores, relevant, k):
    hits = []
    for row, right in zip(scores, relevant, strict=True):
        first = sorted(range(len(row)), key=lambda j: (-row[j], j))[:k]
        hits.append(any(right[j] for j in first))
    return np.array(hits)


def test_against_a_loop_with_groups():
    rng = np.random.default_rng(0)
    scores, relevant = rng.integers(0, 6, (80, 12)).astype(float), rng.random((80, 12)) < 0.2
    relevant[np.arange(80), rng.integers(0, 12, 80)] = True
    groups = rng.choice([0, 1, 3], 80)
    found = recall_at_k(scores, relevant, (1, 3, 20), groups, ["a", "b", "c", "d"])
    for k in (1, 3, 20):
        hits = by_hand(scores, relevant, k)
        assert found[f"recall@{k}"] == pytest.approx(hits.mean())
        per_group = {name: hits[groups == g].mean() for g, name in ((0, "a"), (1, "b"), (3, "d"))}
        assert found[f"group_recall@{k}"] == pytest.approx(per_group)
        assert found[f"worst_group_recall@{k}"] == pytest.approx(min(per_group.values()))
    assert found["recall@20"] == 1.0  # more than the gallery has
    assert (found["n"], sum(found["group_n"].values()), "c" in found["group_n"]) == (80, 80, False)


def test_without_groups_nothing_is_said_of_them():
    assert set(recall_at_k([[0.1, 0.2]], [[0, 1]], k=(1,))) == {"n", "recall@1"}


@pytest.mark.parametrize(
    ("scores", "relevant", "options", "words"),
    [
        ([[1.0, 2.0]], [[1, 0, 1]], {}, r"scores has shape \(1, 2\) and relevant \(1, 3\)"),
        ([1.0, 2.0], [1, 0], {}, "queries, gallery"),
        ([[1.0, float("nan")]], [[1, 0]], {}, "not finite"),
        ([[1.0, 2.0], [1.0, 2.0]], [[1, 0], [0, 0]], {}, "1 queries have no relevant entry .the first is row 1"),
        ([[1.0, 2.0]], [[1, 0]], {"groups": [0, 1]}, "groups must be 1 integers"),
        ([[1.0, 2.0]], [[1, 0]], {"groups": [-1]}, "integers from 0"),
        ([[1.0, 2.0]], [[1, 0]], {"groups": [2], "group_names": ["a"]}, "group_names has 1 names"),
    ],
)
def test_what_is_refused(scores, relevant, options, words):
    with pytest.raises(InvalidInputError, match=words):
        recall_at_k(scores, relevant, **options)
