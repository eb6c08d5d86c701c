"""Scores kept for the area under the ROC curve: all of them (exact), or a histogram (constant memory).

The area depends on the order of the scores, so no finite set of sums holds it. `ExactScores` keeps one float
per example and class column (40 MB for ten million float32 scores); `BinnedScores` keeps counts in equal bins
of [0, 1], treats scores of one bin as ties and is off by at most half the share of positive-negative pairs
that share a bin. Both give the same number whatever the batching and order, because both count pairs in
integers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Scores = NDArray[np.floating]

# Cells per class of the histogram that the bootstrap resamples: exact for classes of up to this many rows.
CELLS = 128

# Rows that are sorted at a time.
BLOCK = 2**18


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


def by_slot(rankings: Sequence[Ranking]) -> Iterator[tuple[int, list[Ranking]]]:
    """The defined rankings of each slot, in the order of the slots; slots without any are left out."""
    defined = [ranking for ranking in rankings if np.isfinite(ranking.auc)]
    for slot, parts in groupby(defined, key=lambda ranking: ranking.slot):
        yield slot, list(parts)


class ExactScores:
    """Every score, with the slot and class it belongs to.

    Rows wait until `BLOCK` of them are there and are then sorted by slot and class into a block, so that neither
    many small updates nor one large one needs a second copy of all scores.
    """

    def __init__(self, slots: int, classes: int) -> None:
        self.slots, self.classes = slots, classes
        self._dtype = np.min_scalar_type(slots * classes)  # small keys sort by radix, in linear time
        self._rows = 0
        self._waiting: list[tuple[NDArray[np.unsignedinteger], Scores]] = []
        # (start of every slot and class, scores in that order)
        self._blocks: list[tuple[NDArray[np.intp], Scores]] = []

    def add(self, slots: NDArray[np.intp], labels: NDArray[np.intp], scores: Scores) -> None:
        """Keep one score (or row of class scores) per example; copies, so that callers may reuse buffers."""
        self._waiting.append(((slots * self.classes + labels).astype(self._dtype), scores.copy()))
        self._count_waiting(len(scores))

    def _count_waiting(self, rows: int) -> None:
        self._rows += rows
        if self._rows >= BLOCK:
            self._sort_waiting()

    def _sort_waiting(self) -> None:
        if not self._waiting:
            return
        keys, scores = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        counts = np.bincount(keys, minlength=self.slots * self.classes)
        order = np.argsort(keys, kind="stable")
        self._blocks.append((np.concatenate([[0], np.cumsum(counts)]), scores[order]))
        self._waiting, self._rows = [], 0

    def merge(self, other: "ExactScores") -> None:
        """Add the scores of another process or part; blocks are never written to, so they may be shared."""
        self._blocks += other._blocks
        self._waiting += other._waiting
        self._count_waiting(sum(len(keys) for keys, _ in other._waiting))

    def rankings(self) -> Iterator[Ranking]:
        """One ranking per slot and column, in that order, also for empty slots."""
        self._sort_waiting()
        for slot in range(self.slots):
            parts = [self._scores(slot * self.classes + label) for label in range(self.classes)]
            if self.classes == 2:
                yield _ranking(slot, 0, np.sort(parts[1]), np.sort(parts[0]))
                continue
            for column in range(self.classes):
                rest = [part[:, column] for label, part in enumerate(parts) if label != column]
                yield _ranking(slot, column, np.sort(parts[column][:, column]), np.sort(np.concatenate(rest)))

    def _scores(self, key: int) -> Scores:
        empty = np.empty((0,) if self.classes == 2 else (0, self.classes), np.float32)
        return np.concatenate([empty, *(scores[start[key] : start[key + 1]] for start, scores in self._blocks)])


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
            index = np.ravel_multi_index((slots, np.full_like(slots, column), positive, position), self.counts.shape)
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
