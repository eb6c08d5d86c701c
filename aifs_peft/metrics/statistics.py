"""Sufficient statistics per slot (a group or an attribute value): integers, so every order of adding agrees.

Sums of probabilities are kept in fixed point (multiples of 2**-30). Integer addition is associative, so a
streamed, merged or permuted evaluation is bit for bit the one-shot evaluation; the price is a rounding of
5e-10 per example, far below the width of any interval.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifs_peft.metrics.inputs import Batch

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# 2**-30 resolution: float64 sums of one chunk (2**18 rows of at most 4) stay below 2**53, hence exact; int64
# totals overflow only after 2**31 examples.
FIXED = float(2**30)
CHUNK = 2**18


@dataclass(frozen=True)
class Rows:
    """What one chunk contributes, before it is spread over slots; every array has length `n`.

    Attributes:
        cell: `y_true * classes + y_pred`.
        label: true class ids.
        bin_cell: `2 * bin + (y_true == y_pred)`, or `None` without scores.
        moments: fixed-point confidence, its square, Brier score, its square; `(4, n)`, or `None`.
        score: scores as given, for ranking, or `None`.
    """

    cell: NDArray[np.intp]
    label: NDArray[np.intp]
    bin_cell: NDArray[np.intp] | None
    moments: Floats | None
    score: NDArray[np.floating] | None

    def take(self, index: NDArray[np.intp]) -> "Rows":
        """The rows `index`, repeated where a row lies in several overlapping groups."""
        return Rows(
            self.cell[index],
            self.label[index],
            None if self.bin_cell is None else self.bin_cell[index],
            None if self.moments is None else self.moments[:, index],
            None if self.score is None else self.score[index],
        )


def describe_rows(batch: Batch, classes: int, bins: int) -> Rows:
    """Cells, calibration bins and fixed-point moments of one chunk.

    The confidence of a row is the probability it gives to its own prediction `y_pred`; bin `b` of `B` holds
    the confidences in `(b / B, (b + 1) / B]` (Guo et al., ICML 2017). The Brier score is `(p - y)^2` for two
    classes and `sum_k (p_k - [y = k])^2` for more, as in scikit-learn.
    """
    label = batch.y_true.astype(np.intp, copy=False)
    predicted = batch.y_pred.astype(np.intp, copy=False)
    cell = label * classes + predicted
    if batch.score is None:
        return Rows(cell, label, None, None, None)
    score = batch.score.astype(np.float64, copy=False)
    moments = np.empty((4, len(label)))
    if score.ndim == 1:
        clipped = np.clip(score, 0.0, 1.0)  # scores outside [0, 1] void the calibration; see `SlotStatistics`
        confidence = np.where(predicted == 1, clipped, 1.0 - clipped)
        np.square(clipped - label, out=moments[2])
    else:
        rows = np.arange(len(label))
        confidence = score[rows, predicted]
        np.einsum("nk,nk->n", score, score, out=moments[2])
        moments[2] += 1.0 - 2.0 * score[rows, label]
    moments[0] = confidence
    np.square(moments[0], out=moments[1])
    np.square(moments[2], out=moments[3])
    moments *= FIXED
    np.rint(moments, out=moments)
    position = np.maximum(np.ceil(confidence * bins).astype(np.intp) - 1, 0)
    return Rows(cell, label, 2 * position + (label == predicted), moments, batch.score)


class SlotStatistics:
    """Counts of `slots` groups.

    Attributes:
        confusion: `(slots, classes, classes)`, rows true, columns predicted.
        bin_count: `(slots, bins, 2)`, last axis wrong / right.
        bin_moments: `(2, slots, bins, 2)`, fixed-point sums of confidence and of its square.
        brier_moments: `(2, slots)`, fixed-point sums of the Brier score and of its square.
    """

    def __init__(self, slots: int, classes: int, bins: int) -> None:
        self.slots, self.classes, self.bins = slots, classes, bins
        self.confusion: Ints = np.zeros((slots, classes, classes), np.int64)
        self.bin_count: Ints = np.zeros((slots, bins, 2), np.int64)
        self.bin_moments: Ints = np.zeros((2, slots, bins, 2), np.int64)
        self.brier_moments: Ints = np.zeros((2, slots), np.int64)

    def arrays(self) -> tuple[Ints, ...]:
        """Every counter, in one fixed order."""
        return self.confusion, self.bin_count, self.bin_moments, self.brier_moments

    def add(self, slots: NDArray[np.intp], rows: Rows) -> None:
        """Count rows; `slots` has one id per row."""
        _count(self.confusion, slots * self.classes**2 + rows.cell)
        if rows.bin_cell is None or rows.moments is None:
            return
        index = slots * (2 * self.bins) + rows.bin_cell
        _count(self.bin_count, index)
        for total, values in zip(self.bin_moments, rows.moments[:2], strict=True):
            _sum(total, index, values)
        for total, values in zip(self.brier_moments, rows.moments[2:], strict=True):
            _sum(total, slots, values)

    def merge(self, other: "SlotStatistics") -> None:
        """Add the counts of another process or part."""
        for mine, theirs in zip(self.arrays(), other.arrays(), strict=True):
            mine += theirs

    @property
    def n(self) -> Ints:
        """Examples per slot, `(slots,)`."""
        total: Ints = self.confusion.sum((1, 2))
        return total

    @property
    def correct(self) -> Ints:
        """Right predictions per slot, `(slots,)`."""
        diagonal: Ints = np.trace(self.confusion, axis1=1, axis2=2)
        return diagonal

    def calibration_error(self) -> Floats:
        """Expected calibration error per slot: `sum_b n_b / n |accuracy_b - confidence_b|`; NaN if empty."""
        return expected_calibration_error(self.bin_count, self.bin_moments[0].sum(-1) / FIXED)

    def brier(self) -> tuple[Floats, Floats]:
        """Mean Brier score per slot and its standard error; NaN when empty (error NaN for one example)."""
        n = self.n
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self.brier_moments[0] / FIXED / n
            variance = np.maximum(self.brier_moments[1] / FIXED / n - mean**2, 0.0)
            return mean, np.where(n > 1, np.sqrt(variance / np.maximum(n - 1, 1)), np.nan)


def expected_calibration_error(bin_count: NDArray[np.int64], confidence: Floats) -> Floats:
    """Expected calibration error from counts `(..., bins, 2)` and summed confidences `(..., bins)`.

    `sum_b |correct_b - sum of confidence_b| / n`, which equals the usual form without dividing by bin sizes.

    Example:
        >>> float(expected_calibration_error(np.array([[1, 3]]), np.array([2.8])).round(3))
        0.05
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        error: Floats = np.abs(bin_count[..., 1] - confidence).sum(-1) / bin_count.sum((-1, -2))
    return error


def _count(total: Ints, index: NDArray[np.intp]) -> None:
    flat = total.reshape(-1)
    if len(index) * 8 < flat.size:  # a small batch and many cells: do not build a histogram of every cell
        np.add.at(flat, index, 1)
    else:
        flat += np.bincount(index, minlength=flat.size)


def _sum(total: Ints, index: NDArray[np.intp], values: Floats) -> None:
    flat = total.reshape(-1)
    flat += np.bincount(index, values, flat.size).astype(np.int64)
