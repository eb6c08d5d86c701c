"""Intercepts that even out the cells: chosen by the worst cell on held-out examples.

A head's intercepts say how often it names each class. Where one class's worst cell is far below another's, moving them
gives to the one what the other has to spare. Four numbers cannot be learned by heart, but the worst of a few small
cells is a noisy number, so nothing is moved unless the held-out gain exceeds its standard error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, one_hot
from aifs_peft.discovery.config import DEFAULT_CONFIG, HeadConfig


@dataclass(frozen=True)
class Intercepts:
    """What is added to the logits of the classes, and what that gains.

    Args:
        shift: Shape `(K,)`, mean zero; all zero where nothing is moved.
        gain: Of the worst cell, on examples that chose neither the head nor the shift; NaN where it was not asked.
        error: Standard error of the gain.
    """

    shift: Array
    gain: float = float("nan")
    error: float = float("nan")

    @property
    def moved(self) -> bool:
        """Whether any intercept is moved."""
        return bool(np.any(self.shift))


def even_intercepts(
    logits: Array,
    y: IntArray,
    cells: Array,
    fold: IntArray,
    *,
    weights: Array | None = None,
    config: HeadConfig = DEFAULT_CONFIG.heads,
) -> Intercepts:
    """The shift of the logits with the best worst cell, if it is better by more than its standard error.

    Args:
        logits: Of each example by a head that did not see it, shape `(n, K)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        cells: How much each example belongs to each cell of its class, in `[0, 1]`, shape `(n, C)`: one-hot, or
            posteriors of an attribute. Cell `c` of one class and of another are different cells.
        fold: Which held-out part an example is in, shape `(n,)`: a shift is judged on a part that did not choose it.
        weights: Of the examples; all one if `None`.
        config: Its `shift_cell` is the smallest cell that may judge.

    Returns:
        The intercepts; not moved where any cell is too small to tell: its class would pay for another's.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.repeat([0, 1], 500); score = rng.normal(size=1000) + 2 * y  # the middle is at 1, not at 0
        >>> logits = np.stack([-score, score], axis=1)
        >>> found = even_intercepts(logits, y, np.ones((1000, 1)), np.arange(1000) % 3)
        >>> found.moved, bool(0.7 < (found.shift[0] - found.shift[1]) / 2 < 1.3), bool(found.gain > 5 * found.error)
        (True, True, True)
    """
    K = logits.shape[1]
    none = Intercepts(np.zeros(K))
    each = cells if weights is None else cells * weights[:, None]
    # Weight of each example in each cell of label and attribute, (n, K C), and how many examples that is worth.
    M = (one_hot(y, K)[:, :, None] * each[:, None, :]).reshape(len(y), -1)
    sizes = M.sum(axis=0) ** 2 / np.maximum((M**2).sum(axis=0), 1e-12)
    present = np.flatnonzero(sizes)
    classes, sizes = present // cells.shape[1], sizes[present]
    if len(np.unique(classes)) < K or sizes.min() < config.shift_cell:
        return none
    M = M[:, present]
    crossed = np.empty(len(y), dtype=bool)
    for j in np.unique(fold):
        out = fold == j
        shift = _evening(logits[~out], y[~out], M[~out], classes, config)
        crossed[out] = (logits[out] + shift).argmax(axis=1) == y[out]
    before, after = _accuracies(logits.argmax(axis=1) == y, M), _accuracies(crossed, M)
    gain = float(after.min() - before.min())
    # Any cell may be worse than it looks: the error is that of the worst one before and of the least sure one after.
    variances = [p * (1.0 - p) / sizes for p in (before, after)]
    error = float(np.sqrt(variances[0][before.argmin()] + max(variances[1].max(), 0.01 / sizes.min())))
    if gain <= error:
        return Intercepts(np.zeros(K), gain, error)
    return Intercepts(_evening(logits, y, M, classes, config), gain, error)


def _accuracies(hits: Array, M: Array) -> Array:
    """Share of each cell, of weights `M (n, cells)`, that is classified rightly."""
    return np.asarray(hits @ M / np.maximum(M.sum(axis=0), 1e-12))


def _evening(logits: Array, y: IntArray, M: Array, classes: IntArray, config: HeadConfig) -> Array:
    """The shift `(K,)` with the best worst cell on the way of raising the classes whose own worst cell is low."""
    K = logits.shape[1]
    top = np.partition(logits, K - 2, axis=1)
    step = float(np.mean(top[:, -1] - top[:, -2]))
    shift, best, highest = np.zeros(K), np.zeros(K), -1.0
    for _ in range(config.shift_steps):
        accuracies = _accuracies((logits + shift).argmax(axis=1) == y, M)
        if accuracies.min() > highest:
            best, highest = shift, float(accuracies.min())
        worst = np.full(K, 1.0)
        np.minimum.at(worst, classes, accuracies)
        step *= config.shift_decay
        shift = shift + 2.0 * step * (worst.mean() - worst)
        shift = shift - shift.mean()
    return best
