"""Latents in standard deviations within classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

# Part of the covariance that is replaced by a multiple of the identity, at most, and per component and example.
MOST_SHRINKAGE, SHRINKAGE = 0.05, 0.1
# Added to the variances of components, which are one over all classes: a class may not vary at all along one.
FLOOR = 1e-6


@dataclass(frozen=True)
class WithinClasses:
    """Reduced latents and what unit covariance within classes makes of them.

    Args:
        centres: class means in the coordinates given, `(K, k)`.
        factor: lower Cholesky factor of the covariance within classes, `(k, k)`.
    """

    centres: Array
    factor: Array

    @classmethod
    def of(cls, X: Array, y: IntArray, n_classes: int) -> WithinClasses:
        """Of reduced latents `(n, k)` with unit variance each, and classes `(n,)` in `0..n_classes-1`.

        Example:
            >>> X, y = np.array([[0.0], [2.0], [5.0], [7.0]]), np.array([0, 0, 1, 1])
            >>> WithinClasses.of(X, y, 2).centres.tolist()
            [[1.0], [6.0]]
        """
        n, k = X.shape
        X = X.astype(np.float64)
        counts = np.maximum(np.bincount(y, minlength=n_classes), 1)
        centres = np.stack([np.bincount(y, column, n_classes) for column in X.T], axis=1) / counts[:, None]
        residual = X - centres[y]
        covariance = residual.T @ residual / n
        weight = min(MOST_SHRINKAGE, SHRINKAGE * k / n)
        target = weight * float(np.trace(covariance)) / k + FLOOR
        return cls(centres, cholesky((1.0 - weight) * covariance + target * np.eye(k), lower=True))

    def white(self, rows: Array) -> Array:
        """Displacements or latents `(m, k)` in the coordinates of unit covariance, `(m, k)`."""
        return np.asarray(solve_triangular(self.factor, np.asarray(rows, dtype=np.float64).T, lower=True).T)

    @property
    def means(self) -> Array:
        """Class means in the coordinates of unit covariance, centred, `(K, k)`."""
        return self.white(self.centres - self.centres.mean(axis=0))
