"""Inferred attribute values of examples that discovery has not seen, from their latents and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp

from aifs_peft.discovery import Discovery
from aifs_peft.discovery.inputs import as_latents
from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.errors import InvalidInputError

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

STEPS = 200
TOLERANCE = 1e-6
# Ridge on the covariance in units of its mean eigenvalue; from 1 to 10 held-out dominoes latents and planted ones of 16
# and 256 dimensions were read alike, 0.1 failed on 100 to 300 examples.
SHRINKAGE = 3.0
# Weight of the spread of all values in that of one, in examples.
OF_ALL = 20.0


def label_indices(y: ArrayLike, classes: NDArray[Any]) -> IntArray:
    """Position of each label among the sorted `classes`, `(n,)`.

    Args:
        y: labels, `(n,)`.
        classes: sorted distinct labels, `(K,)`.

    Raises:
        InvalidInputError: For a label that is none of them.

    Example:
        >>> label_indices(["dog", "cat"], np.array(["cat", "dog"])).tolist()
        [1, 0]
    """
    labels = np.asarray(y)
    known = {label: i for i, label in enumerate(classes.tolist())}
    unknown = sorted({str(label) for label in labels.tolist() if label not in known})
    if unknown:
        raise InvalidInputError(
            f"labels {', '.join(unknown[:5])} are none of the {len(classes)} classes {classes.tolist()[:10]}; give "
            "labels in the form that discovery was given."
        )
    return np.array([known[label] for label in labels.tolist()], dtype=np.int64)


def infer_groups(discovery: Discovery, Z: ArrayLike, y: ArrayLike) -> IntArray:
    """Which attribute value each held-out example carries, by the offsets that discovery has found.

    Labels are read, true groups never. Along the attribute's directions a latent less its class's offset lies in one of
    `A` clusters whose distances are known. Where they lie here, how wide they are and which shares they have in each
    class is fitted by EM, so that data of another bias than the training set's are read rightly, too.

    Args:
        discovery: found on other latents of the same encoder.
        Z: latents, `(n, d)`; at least some dozens.
        y: labels, `(n,)`, as given to discovery.

    Returns:
        `(n,)` int64 in `[0, A)`, equal to the label's index where aligned; everywhere when nothing was found.

    Raises:
        InvalidInputError: For latents of another width, or unknown labels.

    Example:
        >>> from aifs_peft.discovery import discover
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 2000); a = np.where(rng.random(2000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(2000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> found = discover(Z[:1000], y[:1000], random_state=0)
        >>> bool(np.mean(infer_groups(found, Z[1000:], y[1000:]) == a[1000:]) > 0.99)
        True
    """
    latents = as_latents(Z)
    labels = label_indices(np.asarray(y), discovery.classes_)
    if len(labels) != len(latents):
        raise InvalidInputError(f"{len(labels)} labels were given for {len(latents)} latents; needed is one each.")
    if latents.shape[1] != discovery.displacements_.shape[1]:
        raise InvalidInputError(
            f"latents of width {latents.shape[1]} were given; discovery was done on width "
            f"{discovery.displacements_.shape[1]}. Take latents of the same encoder, before any further step."
        )
    if not discovery.found:
        return labels
    v, offsets = _coordinates(latents, labels, discovery)
    starts = (v.mean(axis=0) - offsets[labels].mean(axis=0), v.mean(axis=0) - offsets.mean(axis=0))
    fits = [_fit(v, labels, offsets, start) for start in starts]
    best, _ = max(fits, key=lambda fit: fit[1])
    return np.asarray(best.argmax(axis=1), dtype=np.int64)


def _coordinates(latents: Array, labels: IntArray, discovery: Discovery) -> tuple[Array, Array]:
    """Latents less their class's offset, and the attribute's offsets, along its directions: `(n, r)`, `(A, r)`.

    The directions are those of a discriminant whose covariance is strongly shrunk: these few examples are no measure of
    all its directions.
    """
    reduction = principal_components(latents, rng=np.random.default_rng(0))
    X = reduction.transform(latents).astype(np.float64) * reduction.scale
    beta = (discovery.displacements_ - discovery.displacements_.mean(axis=0)) @ reduction.components.T
    alpha = discovery.class_displacements_ @ reduction.components.T
    counts = np.maximum(np.bincount(labels, minlength=len(alpha)), 1)
    sums = np.stack([np.bincount(labels, column, len(alpha)) for column in X.T], axis=1)
    residual = X - (sums / counts[:, None])[labels]
    covariance = residual.T @ residual / len(X)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    basis, sizes, _ = np.linalg.svd(np.linalg.solve(covariance, beta.T), full_matrices=False)
    basis = basis[:, sizes > 1e-6 * max(float(sizes[0]), 1e-300)]
    return (X - alpha[labels]) @ basis, beta @ basis


def _fit(v: Array, labels: IntArray, offsets: Array, position: Array) -> tuple[Array, float]:
    """Responsibilities `(n, A)` and log-likelihood of clusters at `position + offsets`, by EM from there."""
    n, (A, r) = len(v), offsets.shape
    classes, code = np.unique(labels, return_inverse=True)
    onehot = np.eye(len(classes))[code]
    prior = np.full((len(classes), A), 1.0 / A)
    nearest = ((v - position)[:, None] - offsets[None]) ** 2
    spread = v - position - offsets[nearest.sum(axis=2).argmin(axis=1)]
    floor = 1e-6 * float(np.mean(np.sum((v - v.mean(axis=0)) ** 2, axis=1))) * np.eye(r)
    covariances = np.repeat((spread.T @ spread / n + floor)[None], A, axis=0)
    previous = -np.inf
    for _ in range(STEPS):
        logits = np.log(prior)[code]
        for a in range(A):
            factor = cholesky(covariances[a], lower=True)
            white = solve_triangular(factor, (v - position - offsets[a]).T, lower=True)
            logits[:, a] -= 0.5 * np.sum(white**2, axis=0) + float(np.sum(np.log(np.diag(factor))))
        total = logsumexp(logits, axis=1, keepdims=True)
        R, likelihood = np.exp(logits - total), float(total.sum())
        if likelihood - previous < TOLERANCE * n:
            break
        previous = likelihood
        weights = R.sum(axis=0)
        position = np.asarray((v - R @ offsets).mean(axis=0))
        residuals = [v - position - offset for offset in offsets]
        scatter = np.stack([(R[:, a : a + 1] * e).T @ e for a, e in enumerate(residuals)])
        # Few examples of a value say little about its spread: it is drawn towards that of all.
        covariances = (scatter + OF_ALL * scatter.sum(axis=0) / n) / (weights + OF_ALL)[:, None, None] + floor
        prior = (onehot.T @ R + 1.0) / (onehot.sum(axis=0) + A)[:, None]
    return R, likelihood
