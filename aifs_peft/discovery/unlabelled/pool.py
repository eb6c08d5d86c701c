"""The pool: unlabelled latents in the coordinates of the training set, and what is needed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.hints.sampler import Whitened
from aifs_peft.discovery.inputs import as_latents
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.unlabelled.mixture import PoolData
from aifs_peft.errors import InvalidInputError

UNLABELLED = "hint:unlabelled"


@dataclass(frozen=True)
class Pool:
    """Unlabelled examples, as a claim that an attribute goes with the label less often there.

    Args:
        X: Their latents in reduced coordinates, shape `(m, k)`.
        source: Its name among the candidates.
    """

    X: Array
    source: str = UNLABELLED

    def within(self, old: Reduction, new: Reduction) -> Pool:
        """The same examples in the coordinates of another reduction of the same latents.

        Args:
            old: Reduction in whose coordinates they are given.
            new: Reduction in whose coordinates they are wanted.
        """
        turned = old.components @ new.components.T
        moved = (self.X * old.scale) @ turned + (old.mean - new.mean) @ new.components.T
        return Pool(np.asarray(moved / new.scale, dtype=np.float32), self.source)


def as_pool(unlabelled: Any, reduction: Reduction, *, config: DiscoveryConfig) -> Pool:
    """Unlabelled latents, checked and reduced.

    Args:
        unlabelled: Latents, shape `(m, d)`, NumPy or torch.
        reduction: Of the training set, whose latents have width `d`.
        config: Fewest rows, and most that are looked at.

    Raises:
        InvalidInputError: For another shape or width, NaN or infinite values, or fewer rows than are needed.

    Example:
        >>> from aifs_peft.discovery.principal_components import principal_components
        >>> rng = np.random.default_rng(0); Z = rng.normal(size=(200, 4))
        >>> pool = as_pool(Z[:60], principal_components(Z, 3, rng=rng), config=DiscoveryConfig())
        >>> pool.X.shape
        (60, 3)
    """
    try:
        latents = as_latents(unlabelled)
    except InvalidInputError as error:
        raise InvalidInputError(f"unlabelled: {error}") from error
    width, least = reduction.components.shape[1], config.unlabelled.min_rows
    if latents.shape[1] != width:
        raise InvalidInputError(
            f"unlabelled has shape {latents.shape}; needed are latents of width {width}, those of the same encoder "
            "as the labelled examples. Encode both with one encoder and one way of pooling."
        )
    if len(latents) < least:
        raise InvalidInputError(
            f"unlabelled holds {len(latents)} examples; at least {least} are needed to see how they differ from the "
            "labelled ones, some hundred are better. Add more, or leave it out."
        )
    if len(latents) > config.inputs.fit_rows:
        # Evenly spaced rows, not a draw: no source of chance is touched by a pool.
        latents = latents[np.linspace(0, len(latents) - 1, config.inputs.fit_rows).astype(np.int64)]
    return Pool(reduction.transform(latents))


def whitened_data(
    X: Array, y: IntArray, pool: Pool, n_classes: int, k: int, config: DiscoveryConfig
) -> tuple[PoolData, Whitened]:
    """Training set and pool in the first `k` coordinates, whitened by the covariance within the training set's classes.

    Args:
        X: Reduced latents of the training set, shape `(n, k')`, `k' >= k`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        pool: Unlabelled examples in the same coordinates.
        n_classes: `K`.
        k: Number of coordinates.
        config: How much the covariance is shrunk.

    Example:
        >>> rng = np.random.default_rng(0); X = rng.normal(size=(900, 3)) * 2; y = np.arange(900) % 2; X[:, 0] += 4 * y
        >>> data, _ = whitened_data(X, y, Pool(X[:50]), 2, 3, DiscoveryConfig())
        >>> data.means.round(0).__abs__().tolist(), data.U.shape
        ([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], (50, 3))
    """
    white = Whitened.of(np.ascontiguousarray(X[:, :k]), y, n_classes, config.hints)
    return PoolData(coordinates(X, white), y, coordinates(pool.X, white), white.means), white


def coordinates(X: Array, white: Whitened) -> Array:
    """Reduced latents in whitened coordinates, centred at the mean of the class means.

    Args:
        X: Shape `(n, k')`.
        white: Whitening of the first `k <= k'` of them.

    Returns:
        Shape `(n, k)`, float32.

    Example:
        >>> rng = np.random.default_rng(0); X = rng.normal(size=(900, 3)) * 2; y = np.arange(900) % 2
        >>> coordinates(X, Whitened.of(X, y, 2, DiscoveryConfig().hints)).std(axis=0).round(1).tolist()
        [1.0, 1.0, 1.0]
    """
    centred = X[:, : white.means.shape[1]] - white.centres.mean(axis=0).astype(X.dtype)
    turned = solve_triangular(white.factor.astype(X.dtype), centred.T, lower=True, check_finite=False).T
    return np.ascontiguousarray(turned, dtype=np.float32)
