"""Coordinates in which the examples of a class are about normal with unit covariance.

Latents of real encoders have far heavier tails than a normal distribution: some examples are far out in everything. A
mixture of normals spends its cells on them before it sees an attribute of two standard deviations (on pictures of cars
and trucks it was 170 nats better that way, and EM left the true attribute when it was started there). So the part of
each example beside the class means is moved along its ray, to the distance at which a normal distribution would have
it. Directions, and with them the additive geometry, stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.stats import chi2

from aifs_peft.discovery.arrays import Array, IntArray, orthonormal_basis
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.hints.sampler import Whitened
from aifs_peft.discovery.unlabelled.mixture import PoolData
from aifs_peft.discovery.unlabelled.pool import Pool


@dataclass(frozen=True)
class Coordinates:
    """From reduced latents to the coordinates of the mixture.

    Args:
        first: Whitening by the covariance within the training set's classes.
        classes: Orthonormal basis of the class means there, shape `(k, K - 1)`.
        radii: Distances from them, ascending, shape `(q,)`.
        normal: The distances of a normal distribution with the same ranks, shape `(q,)`.
        limit: What coordinates are softly limited to, in standard deviations.
        second: Whitening of what has been moved.
    """

    first: Whitened
    classes: Array
    radii: Array
    normal: Array
    limit: float
    second: Whitened

    @staticmethod
    def of(X: Array, y: IntArray, n_classes: int, k: int, config: DiscoveryConfig) -> Coordinates:
        """Those of a training set.

        Args:
            X: Reduced latents, shape `(n, k')`, `k' >= k`.
            y: Labels in `0..n_classes-1`, shape `(n,)`.
            n_classes: `K`.
            k: Number of coordinates, more than `K - 1`.
            config: How much covariances are shrunk, and how finely distances are ranked.

        Example:
            >>> rng = np.random.default_rng(0); y = np.arange(900) % 2
            >>> X = rng.standard_t(4, size=(900, 1)) * rng.normal(size=(900, 3)); X[:, 0] += 4 * y
            >>> made = Coordinates.of(X, y, 2, 3, DiscoveryConfig())
            >>> def kurtosis(V): return np.mean((V - V.mean(0)) ** 4, axis=0) / V.var(axis=0) ** 2
            >>> kurtosis(X[y == 0])[1] > 5, kurtosis(made.transform(X)[y == 0])[1] < 3.5
            (np.True_, np.True_)
        """
        first = Whitened.of(np.ascontiguousarray(X[:, :k]), y, n_classes, config.hints)
        Z = _whitened(X, first)
        classes = orthonormal_basis(first.means, n_classes - 1)
        radii = np.linalg.norm(_beside(Z, classes), axis=1)
        ranks = (np.arange(min(len(radii), config.unlabelled.ranks)) + 0.5) / min(len(radii), config.unlabelled.ranks)
        free = k - classes.shape[1]
        normal = np.sqrt(np.mean(radii**2) / free * chi2.ppf(ranks, free))
        radii = np.quantile(radii, ranks)
        moved = _moved(Z, classes, radii, normal, config.unlabelled.soft_limit)
        second = Whitened.of(moved, y, n_classes, config.hints)
        return Coordinates(first, classes, radii, normal, config.unlabelled.soft_limit, second)

    def transform(self, X: Array) -> Array:
        """Reduced latents in these coordinates, centred at the mean of the class means.

        Args:
            X: Shape `(n, k')`.

        Returns:
            Shape `(n, k)`, float32.
        """
        moved = _moved(_whitened(X, self.first), self.classes, self.radii, self.normal, self.limit)
        return np.ascontiguousarray(_whitened(moved, self.second), dtype=np.float32)

    def back(self, offsets: Array) -> Array:
        """Differences in these coordinates as differences of reduced latents, shape `(A, k)` to `(A, k)`."""
        return np.asarray(offsets @ self.second.factor.T @ self.first.factor.T)

    def data(self, X: Array, y: IntArray, pool: Pool) -> PoolData:
        """Training set and pool in these coordinates.

        Args:
            X: Reduced latents of the training set.
            y: Its labels.
            pool: Unlabelled examples.
        """
        return PoolData(self.transform(X), y, self.transform(pool.X), self.second.means)


def _whitened(X: Array, white: Whitened) -> Array:
    centred = X[:, : white.means.shape[1]] - white.centres.mean(axis=0).astype(X.dtype)
    return np.asarray(solve_triangular(white.factor.astype(X.dtype), centred.T, lower=True, check_finite=False).T)


def _beside(Z: Array, classes: Array) -> Array:
    basis = classes.astype(Z.dtype)
    return np.asarray(Z - (Z @ basis) @ basis.T)


def _moved(Z: Array, classes: Array, radii: Array, normal: Array, limit: float) -> Array:
    beside = _beside(Z, classes)
    radius = np.linalg.norm(beside, axis=1)
    factor = np.interp(radius, radii, normal) / np.maximum(radius, 1e-12)
    moved = Z + beside * (factor - 1.0).astype(Z.dtype)[:, None]
    return np.asarray(limit * np.tanh(moved / limit)) if limit else moved
