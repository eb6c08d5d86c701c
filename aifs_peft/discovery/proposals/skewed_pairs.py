"""A proposal for more than two classes where many examples conflict: directions in which pairs of classes are skewed.

The examples of class `b` that carry the value of class `c` lie on one side of the rest of `b`, and those of `c` that
carry the value of `b` lie on the opposite side of the rest of `c`: along one direction the two classes are skewed in
opposite ways. A discriminant does not show it where many conflict: it avoids directions of large variance within the
classes, and there the attribute is one.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from aifs_peft.discovery.arrays import Array, IntArray, one_hot
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.mixture.em import shrink


def skewed_pairs(X: Array, y: IntArray, n_classes: int, *, config: DiscoveryConfig) -> IntArray:
    """Cut every pair of classes in two along the direction in which they are skewed the most, in opposite ways.

    Costs `O(n k^2)` and `O(n k)` per class and step.

    Args:
        X: Reduced latents, shape `(n, k)`; few components, as a third moment is noisy in many.
        y: Labels in `0..n_classes-1`, shape `(n,)`, each class at least once.
        n_classes: `K`.
        config: Its `proposals` and the `mixture`'s shrinkage.

    Returns:
        Attribute values, shape `(n,)`; of several pairs that cut an example off, the one that does so most clearly.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 1500); a = np.where(rng.random(1500) < 0.7, y, rng.integers(0, 3, 1500))
        >>> X = rng.normal(size=(1500, 8)); X[:, :3] += 5 * np.eye(3)[a]; X[:, 3:6] += 5 * np.eye(3)[y]
        >>> proposed = skewed_pairs(X - X.mean(axis=0), y, 3, config=DiscoveryConfig())
        >>> bool(np.mean(proposed == a) > 0.95)
        True
    """
    labels = one_hot(y, n_classes)
    means = labels.T @ X / labels.sum(axis=0)[:, None]
    residual = X - means[y]
    factor = cholesky(shrink(residual.T @ residual / len(y), config.mixture.shrinkage), lower=True)
    residual = solve_triangular(factor, residual.T, lower=True).T
    means = solve_triangular(factor, means.T, lower=True).T
    rows = [np.flatnonzero(y == c) for c in range(n_classes)]
    blocks = [residual[r] for r in rows]
    attribute, clearest = y.copy(), np.zeros(len(y))
    for b in range(n_classes):
        for c in range(b + 1, n_classes):
            direction = _opposite_skew(blocks[b], blocks[c], means[c] - means[b], config.proposals.skew_steps)
            for own, other, side in ((b, c, direction), (c, b, -direction)):
                along = blocks[own] @ side
                beyond = along - _upper_cut(along)
                moved = beyond > clearest[rows[own]]
                attribute[rows[own][moved]] = other
                clearest[rows[own][moved]] = beyond[moved]
    return attribute


def _opposite_skew(first: Array, second: Array, start: Array, steps: int) -> Array:
    """Unit vector along which `first` has a tail and `second` an opposite one, by the fixed point of third moments."""
    direction = start / max(float(np.linalg.norm(start)), 1e-12)
    for _ in range(steps):
        moved = first.T @ (first @ direction) ** 2 / len(first) - second.T @ (second @ direction) ** 2 / len(second)
        direction = moved / max(float(np.linalg.norm(moved)), 1e-12)
    return direction


def _upper_cut(values: Array) -> float:
    """Where the upper half of the values falls into two, by the largest variance between both sides (Otsu, 1979)."""
    ordered, n = np.sort(values), len(values)
    if n < 2:
        return float("inf")
    below, sums = np.arange(1, n), np.cumsum(ordered)
    apart = (sums[-1] - sums[:-1]) / (n - below) - sums[:-1] / below
    between = below * (n - below) * apart**2
    least = (n - 1) // 2
    place = least + int(between[least:].argmax())
    return float(0.5 * (ordered[place] + ordered[place + 1]))
