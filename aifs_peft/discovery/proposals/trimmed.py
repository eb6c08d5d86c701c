"""Proposals from tight clusters: Fisher's discriminant of the label without the examples that fit it worst.

A shortcut gives the tightest clusters. Leaving the examples farthest from their class centre out of the
within-class scatter therefore turns Fisher's discriminant of the label towards the shortcut, and the
examples left out are the conflicting ones: their attribute value is the nearest class centre in the
discriminant space. Fitting and trimming alternate, like the concentration steps of the minimum covariance determinant
(Rousseeuw and Van Driessen, 1999).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from aifs_peft.discovery.arrays import Array, BoolArray, IntArray
from aifs_peft.discovery.config import ProposalConfig
from aifs_peft.discovery.mixture.em import Moments


@dataclass(frozen=True)
class TrimmedDiscriminant:
    """A discriminant space in which the shortcut's clusters are tight.

    Args:
        projection: From `k` reduced coordinates to the space, shape `(k, r)`, `r <= K - 1`; the kept
            examples have unit within-class variance there.
        centres: Class centres of the kept examples in that space, shape `(K, r)`.
        attribute: Nearest class centre of each example, shape `(n,)`.
        position: Median over the conflicting examples of their position on the segment from their own class
            centre (0) to the nearest one (1); `nan` without conflicting examples.
        separation: Smallest distance between two class centres, in within-class standard deviations.
    """

    projection: Array
    centres: Array
    attribute: IntArray
    position: float
    separation: float

    def assign(self, X: Array) -> IntArray:
        """Nearest class centre, shape `(n,)`, of reduced latents `X (n, k)`."""
        return _nearest(X @ self.projection.astype(X.dtype), self.centres)


def _nearest(V: Array, centres: Array) -> IntArray:
    scores = V @ centres.T.astype(V.dtype) - 0.5 * np.sum(centres**2, axis=1).astype(V.dtype)
    return np.asarray(scores.argmax(axis=1))


def _kept_moments(data: Moments, kept: BoolArray) -> tuple[Array, Array, Array]:
    """Means of the kept examples per class, their counts, and their uncentred second moment.

    Those of all examples less those of the few that are left out.
    """
    left = np.flatnonzero(~kept)
    counts, sums, second = data.counts, data.sums, data.second
    if len(left):
        out = Moments.of(data.X[left], data.y[left], len(counts))
        counts, sums, second = counts - out.counts, sums - out.sums, second - out.second
    return sums / np.maximum(counts, 1.0)[:, None], counts, second


def _discriminant(data: Moments, kept: BoolArray, ridge: float) -> tuple[Array, Array]:
    """Fisher's discriminant of the kept examples: projection `(k, r)` and class centres `(K, r)` in it."""
    means, counts, second = _kept_moments(data, kept)
    n_classes = len(counts)
    n, k = max(counts.sum(), 1.0), len(second)
    within = (second - (means * counts[:, None]).T @ means) / n
    within = 0.5 * (within + within.T) + (ridge * max(np.trace(within) / k, 1e-9)) * np.eye(k)
    contrast = means - means.mean(axis=0)
    rank = min(n_classes - 1, k)
    if n_classes == 2:
        direction = cho_solve(cho_factor(within), contrast[1] - contrast[0])[:, None]
        direction /= np.sqrt(max(float((direction.T @ within @ direction).item()), 1e-30))
        return direction, means @ direction
    # The discriminant lies in the span of within^-1 contrast: a K x K eigenproblem instead of k x k.
    basis = cho_solve(cho_factor(within), contrast.T)
    inner = contrast @ basis
    values, vectors = eigh(0.5 * (inner + inner.T))
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    projection = (basis @ vectors) / np.sqrt(np.maximum(values, 1e-12))
    return projection, means @ projection


def trimmed_discriminant(
    X: Array, y: IntArray, n_classes: int, *, trim: float, config: ProposalConfig
) -> TrimmedDiscriminant:
    """Fisher's discriminant of `y`, with the examples farthest from their class centre left out.

    Args:
        X: Reduced latents of unit variance, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        trim: Share of each class that is left out, in `[0, 0.5)`.
        config: Ridge of the scatter, and alternations of trimming and fitting.

    Returns:
        The discriminant, and the attribute value of every example.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(1000, 3)); X[:, 0] += 8 * a; X[:, 1] += y
        >>> fit = trimmed_discriminant(X, y, 2, trim=0.1, config=ProposalConfig())
        >>> bool(np.mean(fit.attribute == a) > 0.99), fit.position > 0.7, fit.separation > 5
        (True, True, True)
    """
    data, kept = Moments.of(X, y, n_classes), np.ones(len(y), dtype=bool)
    for _ in range(config.trimmed_rounds):
        projection, centres = _discriminant(data, kept, config.trimmed_ridge)
        V = X @ projection.astype(X.dtype)
        distance = np.sum((V - centres[y].astype(V.dtype)) ** 2, axis=1)
        previous, kept = kept, np.ones(len(y), dtype=bool)
        for c in range(n_classes):
            rows = np.flatnonzero(y == c)
            leave = int(trim * len(rows))
            if leave:
                kept[rows[np.argpartition(distance[rows], len(rows) - leave)[len(rows) - leave :]]] = False
        if np.array_equal(previous, kept):
            break
    projection, centres = _discriminant(data, kept, config.trimmed_ridge)
    V = X @ projection.astype(X.dtype)
    attribute = _nearest(V, centres)
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    return TrimmedDiscriminant(
        projection=projection,
        centres=centres,
        attribute=attribute,
        position=_position(V, y, attribute, centres),
        separation=float(np.min(gaps[~np.eye(n_classes, dtype=bool)])),
    )


def _position(V: Array, y: IntArray, attribute: IntArray, centres: Array) -> float:
    """Median position of the conflicting examples between their own centre (0) and the nearest one (1)."""
    rows = np.flatnonzero(attribute != y)
    if len(rows) == 0:
        return float("nan")
    step = centres[attribute[rows]] - centres[y[rows]]
    length = np.maximum(np.sum(step**2, axis=1), 1e-12)
    return float(np.median(np.sum((V[rows] - centres[y[rows]]) * step, axis=1) / length))
