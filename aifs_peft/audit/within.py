"""Latents in standard deviations within classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from aifs_peft.discovery.arrays import row_chunks

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

# Part of the covariance that is replaced by a multiple of the identity, at most, and per component and example.
MOST_SHRINKAGE, SHRINKAGE = 0.05, 0.1
# Added to the variances of components, which are one over all classes: a class may not vary at all along one.
FLOOR = 1e-6


@dataclass(frozen=True)
class ClassMoments:
    """Means of the classes and the covariance within them, of reduced latents.

    Args:
        n: number of examples.
        centres: class means, `(K, k)`.
        covariance: within classes, `(k, k)`.
    """

    n: int
    centres: Array
    covariance: Array

    @classmethod
    def of(cls, X: Array, y: IntArray, n_classes: int) -> ClassMoments:
        """Of reduced latents `(n, k)` and classes `(n,)` in `0..n_classes-1`.

        Example:
            >>> ClassMoments.of(np.array([[0.0], [2.0], [5.0], [7.0]]), np.array([0, 0, 1, 1]), 2).centres.tolist()
            [[1.0], [6.0]]
        """
        X = X.astype(np.float64)
        counts = np.maximum(np.bincount(y, minlength=n_classes), 1)
        centres = np.stack([np.bincount(y, column, n_classes) for column in X.T], axis=1) / counts[:, None]
        for part in row_chunks(len(X)):  # in place: a second array of this size is not needed
            X[part] -= centres[y[part]]
        return cls(len(X), centres, X.T @ X / len(X))

    @classmethod
    def streamed(cls, blocks: Iterable[tuple[slice, Array]], y: IntArray, n_classes: int) -> ClassMoments:
        """The same from blocks of rows, added up in float64 in one pass.

        Args:
            blocks: which rows, and their reduced latents, whose means and variances are about 0 and 1.
            y: classes of all rows, `(n,)`.
            n_classes: `K`.

        Example:
            >>> X, y = np.array([[0.0], [2.0], [5.0], [7.0]]), np.array([0, 0, 1, 1])
            >>> ClassMoments.streamed([(slice(0, 3), X[:3]), (slice(3, 4), X[3:])], y, 2).centres.tolist()
            [[1.0], [6.0]]
        """
        sums, products = np.zeros((n_classes, 0)), np.zeros((0, 0))
        for part, block in blocks:
            X = block.astype(np.float64)
            if not sums.size:
                sums, products = np.zeros((n_classes, X.shape[1])), np.zeros((X.shape[1], X.shape[1]))
            sums += np.stack([np.bincount(y[part], column, n_classes) for column in X.T], axis=1)
            products += X.T @ X
        counts = np.bincount(y, minlength=n_classes)
        centres = sums / np.maximum(counts, 1)[:, None]
        return cls(len(y), centres, (products - (centres * counts[:, None]).T @ centres) / len(y))

    def leading(self, k: int) -> ClassMoments:
        """Of the first `k` coordinates."""
        return ClassMoments(self.n, self.centres[:, :k], self.covariance[:k, :k])


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
    def of(cls, moments: ClassMoments) -> WithinClasses:
        """Of the moments of reduced latents with unit variance each.

        Example:
            >>> X, y = np.array([[0.0], [2.0], [5.0], [7.0]]), np.array([0, 0, 1, 1])
            >>> WithinClasses.of(ClassMoments.of(X, y, 2)).centres.tolist()
            [[1.0], [6.0]]
        """
        covariance, k = moments.covariance, len(moments.covariance)
        weight = min(MOST_SHRINKAGE, SHRINKAGE * k / moments.n)
        target = weight * float(np.trace(covariance)) / k + FLOOR
        return cls(moments.centres, cholesky((1.0 - weight) * covariance + target * np.eye(k), lower=True))

    def white(self, rows: Array) -> Array:
        """Displacements or latents `(m, k)` in the coordinates of unit covariance, `(m, k)`."""
        return np.asarray(solve_triangular(self.factor, np.asarray(rows, dtype=np.float64).T, lower=True).T)

    def reading(self, directions: Array) -> Array:
        """Directions of the coordinates of unit covariance, `(m, k)`, as what reads them off latents, `(k, m)`.

        Example:
            >>> within = WithinClasses(np.zeros((1, 2)), np.array([[2.0, 0.0], [1.0, 3.0]]))
            >>> rows, directions = np.array([[1.0, 4.0]]), np.eye(2)
            >>> bool(np.allclose(rows @ within.reading(directions), within.white(rows) @ directions.T))
            True
        """
        return np.asarray(solve_triangular(self.factor, np.asarray(directions).T, lower=True, trans="T"))

    @property
    def means(self) -> Array:
        """Class means in the coordinates of unit covariance, centred, `(K, k)`."""
        return self.white(self.centres - self.centres.mean(axis=0))
