"""Small array functions that several stages share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft._rows import BLOCK_ROWS as BLOCK_ROWS
from aifs_peft._rows import row_chunks as row_chunks  # rows are cut here as in `data`

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]


def one_hot(values: IntArray, n_values: int, dtype: Any = np.float64) -> Array:
    """Indicators of values.

    Args:
        values: In `0..n_values-1`, shape `(n,)`.
        n_values: Number of values.
        dtype: Of the result.

    Returns:
        Shape `(n, n_values)`.

    Example:
        >>> one_hot(np.array([1, 0]), 2).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    out: Array = np.zeros((len(values), n_values), dtype=dtype)
    out[np.arange(len(values)), values] = 1.0
    return out


def conflicting(R: Array, y: IntArray) -> BoolArray:
    """Which examples most probably carry the attribute value of another class than their own.

    Args:
        R: Weights of the attribute values, shape `(n, K)`.
        y: Labels in `0..K-1`, shape `(n,)`.

    Example:
        >>> conflicting(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1])).tolist()
        [False, True]
    """
    return np.asarray(R.argmax(axis=1) != y)


def softmax_in_place(logits: Array) -> float:
    """Turn `logits (n, K)` into row-wise probabilities, in place, and return the sum of the rows' log normalisers.

    For loops over all examples in every round, whose likelihood needs the normalisers: `scipy.special.logsumexp` with a
    second exponential took 2 to 5 times as long (10,000 rows of 2 to 10 values, float32 and float64). Elsewhere
    `scipy.special.softmax` is used, which gives the same probabilities.

    Example:
        >>> logits = np.log(np.array([[1.0, 3.0]]))
        >>> round(float(np.exp(softmax_in_place(logits))), 2), logits.round(2).tolist()
        (4.0, [[0.25, 0.75]])
    """
    top = logits.max(axis=1, keepdims=True)
    np.subtract(logits, top, out=logits)
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    np.divide(logits, total, out=logits)
    return float(np.sum(top, dtype=np.float64) + np.sum(np.log(total), dtype=np.float64))


def orthonormal_basis(displacements: Array, most: int, *, tolerance: float = 1e-6) -> Array:
    """Orthonormal basis of the span of displacements.

    Args:
        displacements: Shape `(a, d)`.
        most: Largest number of directions.
        tolerance: Singular values up to this share of the largest count as zero.

    Returns:
        Shape `(d, r)`, `r <= most`; `r = 0` where all displacements are zero.

    Example:
        >>> np.abs(orthonormal_basis(np.array([[-1.0, 0.0], [1.0, 0.0]]), 1)).tolist()
        [[1.0], [0.0]]
    """
    _, sizes, directions = np.linalg.svd(displacements, full_matrices=False)
    rank = int(np.count_nonzero(sizes > tolerance * sizes.max(initial=0.0)))
    return np.asarray(directions[: min(rank, most)].T.copy())


def random_folds(n: int, folds: int, rng: np.random.Generator) -> IntArray:
    """A fold for each example, at random and of nearly equal size.

    Args:
        n: Number of examples.
        folds: Number of folds.
        rng: Source of the order.

    Returns:
        Numbers in `0..folds-1`, shape `(n,)`.

    Example:
        >>> np.bincount(random_folds(10, 5, np.random.default_rng(0))).tolist()
        [2, 2, 2, 2, 2]
    """
    return np.asarray(rng.permutation(n) % folds)


def deal(order: IntArray, folds: int) -> IntArray:
    """Fold of each example when they are dealt one by one in `order`; sorted by cell, all folds share each cell.

    Not scikit-learn's `StratifiedKFold`: it warns or refuses where a cell has fewer examples than there are folds, and
    such cells (rare conflicting examples, a few known values) are what these folds are for.

    Args:
        order: The examples in the order in which they are dealt, a permutation of `0..n-1`.
        folds: Number of folds.

    Returns:
        Numbers in `0..folds-1`, shape `(n,)`.

    Example:
        >>> cells = np.array([0, 1, 0, 1, 0, 1])
        >>> deal(np.argsort(cells, kind="stable"), 3).tolist()
        [0, 0, 1, 1, 2, 2]
    """
    fold = np.empty(len(order), dtype=np.int64)
    fold[order] = np.arange(len(order)) % folds
    return fold
