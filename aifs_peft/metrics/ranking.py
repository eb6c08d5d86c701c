"""Scores kept for the area under the ROC curve: all of them (exact), or a histogram (constant memory).

The area depends on the order of the scores, so no finite set of sums holds it. `ExactScores` keeps one float
per example and class column (40 MB for ten million float32 scores); `BinnedScores` keeps counts in equal bins
of [0, 1], treats scores of one bin as ties and is off by at most half the share of positive-negative pairs
that share a bin. Both give the same number whatever the batching and order, because both count pairs in
integers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Scores = NDArray[np.floating]

# Cells per class of the histogram that the bootstrap resamples: exact for classes of up to this many rows.
CELLS = 128


@dataclass(frozen=True)
class Ranking:
    """One class against the rest, in one slot.

    Attributes:
        slot: group or attribute id.
        column: 0 for two classes, else the class.
        positives: examples of the class.
        negatives: the others.
        auc: area under the curve; NaN unless both counts are positive.
        cells: `(2, cells)` counts of negatives and positives in cells of ascending score.
    """

    slot: int
    column: int
    positives: int
    negatives: int
    auc: float
    cells: Ints


def auc_of_cells(negatives: NDArray[np.int64], positives: NDArray[np.int64]) -> NDArray[np.float64]:
    """Area under the ROC curve from counts in cells of ascending score, ties within a cell counted half.

    Args:
        negatives: `(..., cells)`.
        positives: `(..., cells)`.

    Returns:
        `(...)`, NaN where one class has no example.

    Example:
        >>> float(auc_of_cells(np.array([2, 1]), np.array([1, 2])).round(4))
        0.6667
    """
    below = np.cumsum(negatives, -1) - negatives
    # Twice the Mann-Whitney count is an integer below 2**63 for up to 2 * 10**9 rows of each class.
    twice = (positives * (2 * below + negatives)).sum(-1)
    pairs = positives.sum(-1) * negatives.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(twice / (2.0 * pairs))


class ExactScores:
    """Every score, with the slot and class it belongs to."""

    def __init__(self, slots: int, classes: int) -> None:
        self.slots, self.classes = slots, classes
        self._dtype = np.min_scalar_type(slots * classes)  # small keys sort by radix, in linear time
        self._keys: list[NDArray[np.unsignedinteger]] = []
        self._scores: list[Scores] = []

    def add(self, slots: NDArray[np.intp], labels: NDArray[np.intp], scores: Scores) -> None:
        """Keep one score (or row of class scores) per example; copies, so that callers may reuse buffers."""
        self._keys.append((slots * self.classes + labels).astype(self._dtype))
        self._scores.append(scores.copy())

    def merge(self, other: "ExactScores") -> None:
        """Add the scores of another process or part."""
        self._keys += other._keys
        self._scores += other._scores

    def rankings(self) -> Iterator[Ranking]:
        """One ranking per slot and column, in that order, also for empty slots."""
        columns = 1 if self.classes == 2 else self.classes
        keys = np.concatenate([np.empty(0, self._dtype), *self._keys])
        shape = (0,) if self.classes == 2 else (0, self.classes)
        scores = np.concatenate(self._scores) if self._scores else np.empty(shape)
        scores = scores[np.argsort(keys, kind="stable")]
        ends = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=self.slots * self.classes))])
        for slot in range(self.slots):
            bounds = ends[slot * self.classes : (slot + 1) * self.classes + 1]
            for column in range(columns):
                label = 1 if self.classes == 2 else column
                values = scores if self.classes == 2 else scores[:, column]
                positive = np.sort(values[bounds[label] : bounds[label + 1]])
                rest = (values[bounds[0] : bounds[label]], values[bounds[label + 1] : bounds[-1]])
                yield _ranking(slot, column, positive, np.sort(np.concatenate(rest)))


class BinnedScores:
    """Counts of scores in equal bins of [0, 1]: memory does not grow with the data."""

    def __init__(self, slots: int, classes: int, bins: int) -> None:
        columns = 1 if classes == 2 else classes
        self.slots, self.classes, self.bins = slots, classes, bins
        self.counts: Ints = np.zeros((slots, columns, 2, bins), np.int64)

    def add(self, slots: NDArray[np.intp], labels: NDArray[np.intp], scores: Scores) -> None:
        """Count one score in [0, 1] (or row of them) per example; the accumulator checks the range."""
        table = scores[:, None] if scores.ndim == 1 else scores
        for column in range(table.shape[1]):
            positive = labels == (1 if self.classes == 2 else column)
            position = np.minimum((table[:, column] * self.bins).astype(np.intp), self.bins - 1)
            index = np.ravel_multi_index(
                (slots, np.full_like(slots, column), positive, position), self.counts.shape
            )
            np.add.at(self.counts.reshape(-1), index, 1)

    def merge(self, other: "BinnedScores") -> None:
        """Add the counts of another process or part."""
        self.counts += other.counts

    def rankings(self) -> Iterator[Ranking]:
        """One ranking per slot and column, in that order, also for empty slots."""
        for slot in range(self.slots):
            for column in range(self.counts.shape[1]):
                negative, positive = self.counts[slot, column]
                auc = float(auc_of_cells(negative, positive))
                cells = self.counts[slot, column]
                cells = cells[:, cells.any(0)]
                if cells.shape[1] > 2 * CELLS:  # pool neighbours so that the bootstrap's cost stays bounded
                    starts = np.unique(np.linspace(0, cells.shape[1], 2 * CELLS, endpoint=False).astype(int))
                    cells = np.add.reduceat(cells, starts, axis=1)
                yield Ranking(slot, column, int(positive.sum()), int(negative.sum()), auc, cells)


def _ranking(slot: int, column: int, positive: Scores, negative: Scores) -> Ranking:
    """Exact area of two sorted samples: share of ordered pairs, ties counted half (Mann-Whitney)."""
    if not (len(positive) and len(negative)):
        empty = np.zeros((2, 0), np.int64)
        return Ranking(slot, column, len(positive), len(negative), float("nan"), empty)
    twice = int(np.searchsorted(negative, positive, "left").sum())
    twice += int(np.searchsorted(negative, positive, "right").sum())
    auc = twice / (2.0 * len(positive) * len(negative))
    edges = np.unique(np.concatenate([_spread(negative), _spread(positive)]))
    counts = [np.diff(np.searchsorted(sample, edges, "right"), prepend=0) for sample in (negative, positive)]
    return Ranking(slot, column, len(positive), len(negative), auc, np.stack(counts).astype(np.int64))


def _spread(ordered: Scores) -> Scores:
    """At most `CELLS` evenly spaced order statistics, the largest among them."""
    steps = np.linspace(0, len(ordered) - 1, min(CELLS, len(ordered)))
    return ordered[np.rint(steps).astype(np.intp)]
