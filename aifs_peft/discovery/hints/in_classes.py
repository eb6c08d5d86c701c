"""An attribute's values told in classes: which class each value goes with, and offsets and shares per class."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.hints.sampler import AttributeFit, Whitened


@dataclass(frozen=True)
class InClasses:
    """A fit whose values are put into classes.

    Args:
        fit: With shares that are read off the responsibilities.
        classes: Which class each value goes with, 0/1, shape `(A, K)`.
        responsibilities: Of the rows it was fitted on, in classes, shape `(n, K)`.
        offsets: In the coordinates that were given, mean zero, shape `(K, k)`.
    """

    fit: AttributeFit
    classes: Array
    responsibilities: Array
    offsets: Array


def to_classes(prior: Array) -> Array:
    """Which class each value goes with, as a 0/1 matrix `(A, K)`: where it is most over-represented in `prior (K, A)`.

    Example:
        >>> to_classes(np.array([[0.9, 0.1], [0.2, 0.8]])).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    relative = prior / np.maximum(prior.sum(axis=0), 1e-12)
    return np.asarray(np.eye(len(prior))[relative.argmax(axis=0)])


def summed(fit: AttributeFit, counts: IntArray) -> tuple[Array, Array]:
    """Offsets `(K, k)` and shares `(K, K)` of the classes' values: means over the values that go with a class.

    Args:
        fit: Offsets and shares of the values.
        counts: Examples per class, shape `(K,)`.

    Example:
        >>> fit = AttributeFit(np.array([[-1.0], [0.5], [0.5]]), np.array([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4]]), 0.9)
        >>> offsets, shares = summed(fit, np.array([50, 50]))
        >>> offsets.tolist(), shares.round(1).tolist()
        ([[-0.75], [0.75]], [[0.8, 0.2], [0.2, 0.8]])
    """
    classes = to_classes(fit.prior)
    weight = (counts @ fit.prior)[:, None] * classes
    share = weight / np.maximum(weight.sum(axis=0), 1e-12)
    offsets = share.T @ fit.offsets
    return offsets - offsets.mean(axis=0), fit.prior @ classes


def in_classes(fit: AttributeFit, data: Whitened, known: IntArray) -> InClasses:
    """A fit told in classes.

    Which value goes with which class is read off all rows: of values that look alike the sampler may empty one.

    Args:
        fit: Offsets and shares of the attribute's values.
        data: The latents that it was fitted on.
        known: Their known values, -1 where unknown, shape `(n,)`.
    """
    R = fit.responsibilities(data, known).astype(np.float64)
    counts = np.bincount(data.y, minlength=len(fit.prior))
    shown = replace(fit, prior=np.stack([R[data.y == c].mean(axis=0) for c in range(len(counts))]))
    classes = to_classes(shown.prior)
    return InClasses(shown, classes, R @ classes, summed(shown, counts)[0] @ data.factor.T)
