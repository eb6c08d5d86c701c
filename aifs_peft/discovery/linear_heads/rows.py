"""Which rows a head is fitted to where there are more than it needs: every rare cell whole, a sample of the others.

The error of a head falls with the rows of its smallest cell. A hundred thousand rows, with each cell of label and
attribute as full as there are examples of it, fix the few hundred weights of a head as well as a million; and they are
what a logistic regression has to hold in memory.
"""

from __future__ import annotations

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import HeadConfig


def most_rows(n_classes: int, k: int, config: HeadConfig) -> int:
    """How many rows a logistic regression is fitted to.

    Args:
        n_classes: `K`.
        k: Number of coordinates.
        config: Its `fit_rows` and `fit_rows_per_weight`.

    Example:
        >>> most_rows(2, 256, HeadConfig()), most_rows(10, 256, HeadConfig())
        (100000, 462600)
    """
    return max(config.fit_rows, config.fit_rows_per_weight * (n_classes - 1) * (k + 1))


def sampled_rows(cell: IntArray, most: int, rng: np.random.Generator) -> tuple[IntArray, Array | None]:
    """At most `most` rows, from each cell as many as from another unless it has fewer, and how many each stands for.

    Args:
        cell: Number of each row's cell, shape `(n,)`.
        most: Number of rows.
        rng: Source of the sample; nothing is drawn where there are no more than `most`.

    Returns:
        Row numbers, rising, and for each of them the number of rows of its cell per row that is taken; `None` where all
        are.

    Example:
        >>> rows, times = sampled_rows(np.repeat([0, 1], [90, 10]), 40, np.random.default_rng(0))
        >>> np.bincount(np.repeat([0, 1], [90, 10])[rows]).tolist(), float(times.sum())
        ([30, 10], 100.0)
    """
    n = len(cell)
    if n <= most:
        return np.arange(n), None
    sizes = np.bincount(cell)
    quota, left = np.zeros(len(sizes), dtype=np.int64), most
    order = np.argsort(sizes, kind="stable")
    for place, c in enumerate(order):
        quota[c] = min(sizes[c], left // (len(order) - place))
        left -= int(quota[c])
    shuffled = rng.permutation(n)
    taken = [shuffled[cell[shuffled] == c][: quota[c]] for c in np.flatnonzero(quota)]
    rows = np.sort(np.concatenate(taken))
    return rows, (sizes / np.maximum(quota, 1))[cell[rows]]
