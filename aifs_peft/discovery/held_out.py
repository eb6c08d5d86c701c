"""Which attribute value examples carry that discovery has not seen, from their latents, labels and what was found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.principal_components import principal_components

STEPS = 200
TOLERANCE = 1e-6
# Ridge on the covariance in units of its mean eigenvalue; from 1 to 10 held-out dominoes latents and planted ones of 16
# and 256 dimensions were read alike, 0.1 failed on 100 to 300 examples.
SHRINKAGE = 3.0
# Weight of the spread of all values in that of one, in examples.
OF_ALL = 20.0
# With more values than these all share one spread and one start is tried: the cost grows with n times their number.
MANY = 16


def held_out_values(
    Z: Array,
    labels: IntArray,
    displacements: Array,
    class_displacements: Array | None = None,
    values: IntArray | None = None,
) -> IntArray:
    """Attribute value of each example, by known distances of the values and shares that are fitted here.

    Along the attribute's directions a latent less its class's offset lies in one of `A` clusters whose distances are
    known. Where they lie here, how wide they are and which shares they have in each class is fitted by EM, so that data
    of another bias than the training set's are read rightly, too. Labels are read, true groups never.

    Args:
        Z: latents, `(n, d)`; some dozens or more to be of use.
        labels: class indices, `(n,)`.
        displacements: of each attribute value, `(A, d)`; the first `K` belong to the classes.
        class_displacements: of each class with the attribute held constant, `(K, d)`. None where they are not known:
            each class then has a position of its own, and one that shows a single cluster is taken for aligned.
        values: those that occur in training, sorted, `(v,)`; no other is given. None for all.

    Returns:
        `(n,)` int64, among `values`; the label where the latents say nothing (one example, or all the same).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y, a = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
        >>> Z = rng.normal(size=(400, 4)) + np.stack([8 * a, 5 * y, 0 * y, 0 * y], axis=1)
        >>> offsets = np.array([[-4.0, 0, 0, 0], [4.0, 0, 0, 0]]), np.array([[0, -2.5, 0, 0], [0, 2.5, 0, 0]])
        >>> bool(np.mean(held_out_values(Z, y, *offsets) == a) > 0.99)
        True
    """
    known = np.arange(len(displacements)) if values is None else np.asarray(values, dtype=np.int64)
    if not len(known):
        return np.asarray(labels, dtype=np.int64)
    # Position of each label's own value among those that occur; the first where it does not.
    own = np.where(np.isin(labels, known), np.searchsorted(known, labels).clip(max=len(known) - 1), 0)
    if len(Z) < 2 or len(known) < 2 or bool(np.all(Z[0] == Z)):
        return np.asarray(known[own], dtype=np.int64)
    given = np.asarray(displacements, dtype=np.float64)[known]
    alpha = None if class_displacements is None else np.asarray(class_displacements, dtype=np.float64)[labels]
    v, offsets = _coordinates(np.asarray(Z), labels, given - given.mean(axis=0), alpha)
    if not v.shape[1]:  # the directions are outside of what these examples span
        return np.asarray(known[own], dtype=np.int64)
    code = np.unique(labels, return_inverse=True)[1]
    # Which position each example shares: that of all, or of its class.
    place = np.zeros(len(v), dtype=np.int64) if alpha is not None else code
    fits = [_fit(v, code, place, offsets, start) for start in _starts(v, place, own, offsets, free=alpha is None)]
    best, _ = max(fits, key=lambda fit: fit[1])
    return np.asarray(known[best.argmax(axis=1)], dtype=np.int64)


def _coordinates(Z: Array, labels: IntArray, beta: Array, alpha: Array | None) -> tuple[Array, Array]:
    """Latents less their class's offset, and the attribute's offsets, along its directions: `(n, r)`, `(A, r)`.

    The directions are those of a discriminant whose covariance is strongly shrunk: these few examples are no measure of
    all its directions.
    """
    reduction = principal_components(Z, rng=np.random.default_rng(0))
    X = reduction.transform(Z).astype(np.float64) * reduction.scale
    beta = beta @ reduction.components.T
    residual = X - _means(X, labels)[labels]
    covariance = residual.T @ residual / len(X)
    # Of one example per class there is no spread: then the plain directions.
    ridge = SHRINKAGE * np.trace(covariance) / len(covariance) or 1.0
    covariance += ridge * np.eye(len(covariance))
    basis, sizes, _ = np.linalg.svd(np.linalg.solve(covariance, beta.T), full_matrices=False)
    basis = basis[:, sizes > 1e-6 * max(float(sizes[0]), 1e-300)]
    return (X if alpha is None else X - alpha @ reduction.components.T) @ basis, beta @ basis


def _means(X: Array, code: IntArray) -> Array:
    """Mean of the rows of each code, `(codes, d)`; zero for a code that no row has."""
    counts = np.maximum(np.bincount(code), 1)
    sums = np.stack([np.bincount(code, column) for column in X.T], axis=1)
    return np.asarray(sums / counts[:, None])


def _starts(v: Array, place: IntArray, own: IntArray, offsets: Array, free: bool) -> Iterator[Array]:
    """Positions to begin from, `(places, r)`: all aligned, all values alike; where free, each other value."""
    yield _means(v - offsets[own], place)
    if len(offsets) > MANY:
        return
    yield _means(v, place) - offsets.mean(axis=0)
    for turn in range(1, len(offsets)) if free else ():
        yield _means(v - offsets[(own + turn) % len(offsets)], place)


def _fit(v: Array, code: IntArray, place: IntArray, offsets: Array, position: Array) -> tuple[Array, float]:
    """Responsibilities `(n, A)` and log-likelihood of clusters at `position[place] + offsets`, by EM from there."""
    n, (A, r) = len(v), offsets.shape
    onehot = np.eye(int(code.max()) + 1)[code]
    prior = np.full((onehot.shape[1], A), 1.0 / A)
    e = v - position[place]
    spread = e - offsets[((e[:, None] - offsets[None]) ** 2).sum(axis=2).argmin(axis=1)]
    floor = 1e-6 * float(np.mean(np.sum((v - v.mean(axis=0)) ** 2, axis=1))) * np.eye(r)
    covariances = np.repeat((spread.T @ spread / n + floor)[None], A if A <= MANY else 1, axis=0)
    previous = -np.inf
    for _ in range(STEPS):
        logits = np.log(prior)[code] + _log_densities(e, offsets, covariances)
        total = logsumexp(logits, axis=1, keepdims=True)
        R, likelihood = np.exp(logits - total), float(total.sum())
        if likelihood - previous < TOLERANCE * n:
            break
        previous = likelihood
        weights = R.sum(axis=0)
        e = v - _means(v - R @ offsets, place)[place]
        if len(covariances) == 1:
            across = e.T @ (R @ offsets)
            covariances = ((e.T @ e - across - across.T + (offsets.T * weights) @ offsets) / n + floor)[None]
        else:
            scatter = np.stack([(R[:, a : a + 1] * (e - offsets[a])).T @ (e - offsets[a]) for a in range(A)])
            # Few examples of a value say little about its spread: it is drawn towards that of all.
            covariances = (scatter + OF_ALL * scatter.sum(axis=0) / n) / (weights + OF_ALL)[:, None, None] + floor
        prior = (onehot.T @ R + 1.0) / (onehot.sum(axis=0) + A)[:, None]
    return R, likelihood


def _log_densities(e: Array, offsets: Array, covariances: Array) -> Array:
    """Of each row under each cluster, up to a constant, `(n, A)`."""
    out = np.empty((len(e), len(offsets)))
    for i, covariance in enumerate(covariances):
        of = slice(None) if len(covariances) == 1 else slice(i, i + 1)
        factor = cholesky(covariance, lower=True)
        white, centres = (solve_triangular(factor, rows.T, lower=True).T for rows in (e, offsets[of]))
        out[:, of] = -0.5 * cdist(white, centres, "sqeuclidean") - float(np.sum(np.log(np.diag(factor))))
    return out
