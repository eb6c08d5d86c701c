"""Stratified bootstrap from counts.

Resampling the rows of a group with replacement and counting them in cells draws exactly a multinomial over
the cells, so replicates are drawn from the counts: the cost depends on the number of cells, never on the
rows. The strata are the slots (groups or attributes): each keeps its size, as in Efron and Tibshirani (1993),
chapter 8.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from aifs_peft.metrics.ranking import Ranking, auc_of_cells, by_slot
from aifs_peft.metrics.statistics import FIXED, SlotStatistics, expected_calibration_error

Floats = NDArray[np.float64]

# Replicated confusion tables held at a time: 2**22 int64 cells are 32 MB.
_CELL_BUDGET = 2**22


def _tables(counts: NDArray[np.int64], n_boot: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Multinomial replicates `(n_boot, cells)` of one slot; cells that hold nothing stay empty."""
    table = np.zeros((n_boot, counts.size), np.int64)
    filled = np.flatnonzero(counts)
    if filled.size:
        total = counts.sum()
        table[:, filled] = rng.multinomial(total, counts[filled] / total, size=n_boot)
    return table


def confusion_replicates(
    statistics: SlotStatistics,
    n_boot: int,
    rng: np.random.Generator,
    reduce: Callable[[NDArray[np.int64]], Floats],
) -> Floats:
    """Replicates of statistics of confusion tables.

    Args:
        statistics: counts of `slots` groups.
        n_boot: number of replicates.
        rng: generator that is drawn from.
        reduce: maps tables `(replicates, slots, classes, classes)` to numbers `(replicates, k)`.

    Returns:
        Shape `(n_boot, k)`.
    """
    slots, classes, _ = statistics.confusion.shape
    step = max(1, min(n_boot, _CELL_BUDGET // (slots * classes**2)))
    parts = []
    for start in range(0, n_boot, step):
        size = min(step, n_boot - start)
        tables = np.stack([_tables(counts.ravel(), size, rng) for counts in statistics.confusion], axis=1)
        parts.append(reduce(tables.reshape(size, slots, classes, classes)))
    return np.concatenate(parts)


def calibration_replicates(statistics: SlotStatistics, n_boot: int, rng: np.random.Generator) -> Floats:
    """Replicates of the expected calibration error per slot, `(n_boot, slots)`; NaN for empty slots.

    Counts of (bin, right or wrong) are multinomial; the summed confidence of a cell with `m` rows is then
    drawn from the normal law with the cell's own mean and variance, which replaces the rows within a cell.
    """
    result = np.full((n_boot, statistics.slots), np.nan)
    for slot, counts in enumerate(statistics.bin_count):
        if not counts.any():
            continue
        table = _tables(counts.ravel(), n_boot, rng).reshape(n_boot, *counts.shape)
        safe = np.maximum(counts, 1)
        mean = statistics.bin_moments[0, slot] / FIXED / safe
        variance = np.maximum(statistics.bin_moments[1, slot] / FIXED / safe - mean**2, 0.0)
        confidence = table * mean + np.sqrt(table * variance) * rng.standard_normal(table.shape)
        result[:, slot] = expected_calibration_error(table, confidence.sum(-1))
    return result


def auc_replicates(rankings: Sequence[Ranking], slots: int, n_boot: int, rng: np.random.Generator) -> Floats:
    """Replicates of the (macro one-vs-rest) area under the curve per slot, `(n_boot, slots)`.

    Positives and negatives are drawn together in the cells of each ranking, then shifted by the small
    difference between the exact area and that of the cells. With several classes the replicates of each class
    are sorted before they are averaged: whatever the true dependence between the classes, the standard
    deviation of the mean is at most that of this coupling, so the interval is conservative rather than too
    narrow.
    """
    result = np.full((n_boot, slots), np.nan)
    for slot, parts in by_slot(rankings):
        columns = []
        for part in parts:
            table = _tables(part.cells.ravel(), n_boot, rng).reshape(n_boot, 2, -1)
            shift = part.auc - float(auc_of_cells(part.cells[0], part.cells[1]))
            columns.append(np.clip(auc_of_cells(table[:, 0], table[:, 1]) + shift, 0.0, 1.0))
        if len(columns) == 1:
            result[:, slot] = columns[0]
        else:
            result[:, slot] = rng.permutation(np.mean([np.sort(column) for column in columns], axis=0))
    return result
