"""How well a partition explains examples that its offsets were not fitted to.

Of two partitions the one with the better held-out likelihood is nearer to an attribute that moves all classes alike:
styles of single classes gain little, and what chance gives is lost on other examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp

from aifs_peft.discovery.arrays import Array, IntArray, random_folds
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.mixture.em import Moments, attribute_moments, shrink, solve_offsets


@dataclass(frozen=True)
class HeldOutPart:
    """One fold of the examples, and what the others give without an attribute.

    Args:
        rows: Of the fold, shape `(m,)`.
        X: Their latents, shape `(m, k)`.
        sums: Of the other folds' latents per class, shape `(K, k)`.
        second: Their uncentred second moment, shape `(k, k)`.
        alone: Log-density of the fold without attribute, by the other folds' fit, up to a constant, shape `(m,)`.
    """

    rows: IntArray
    X: Array
    sums: Array
    second: Array
    alone: Array


@dataclass(frozen=True)
class HeldOut:
    """Examples dealt into folds, on which partitions are compared; what is the same for all is computed once.

    Args:
        y: Labels in `0..K-1`, shape `(n,)`.
        parts: The folds.
        config: Shrinkage of the covariance (`mixture`), least share of a value (`many_classes`).
    """

    y: IntArray
    parts: tuple[HeldOutPart, ...]
    config: DiscoveryConfig

    @staticmethod
    def of(X: Array, y: IntArray, n_classes: int, *, rng: np.random.Generator, config: DiscoveryConfig) -> HeldOut:
        """Deal the examples, and fit the model without attribute.

        Costs `O(n k^2)`.

        Args:
            X: Reduced latents, shape `(n, k)`.
            y: Labels in `0..n_classes-1`, shape `(n,)`.
            n_classes: `K`.
            rng: Source of the folds.
            config: Their number (`many_classes`), and what `HeldOut` keeps.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> y = rng.integers(0, 3, 1500); a = np.where(rng.random(1500) < 0.7, y, rng.integers(0, 3, 1500))
            >>> X = rng.normal(size=(1500, 8)); X[:, :3] += 5 * np.eye(3)[a]; X[:, 3:6] += 5 * np.eye(3)[y]
            >>> chance = np.where(rng.random(1500) < 0.3, rng.integers(0, 3, 1500), y)
            >>> held_out = HeldOut.of(X, y, 3, rng=rng, config=DiscoveryConfig())
            >>> held_out.gain(np.eye(3)[a]) > 0.5, abs(held_out.gain(np.eye(3)[chance])) < 0.1
            (True, True)
        """
        folds = config.many_classes.gain_folds
        fold = random_folds(len(y), folds, rng)
        rows = [np.flatnonzero(fold == j) for j in range(folds)]
        own = [Moments.of(X[r], y[r], n_classes) for r in rows]
        counts, sums = sum(m.counts for m in own), sum(m.sums for m in own)
        second = np.sum([m.second for m in own], axis=0)
        parts = []
        for r, mine in zip(rows, own, strict=True):
            rest, scatter = sums - mine.sums, second - mine.second
            means = rest / np.maximum(counts - mine.counts, 1.0)[:, None]
            sigma = shrink((scatter - rest.T @ means) / (len(y) - len(r)), config.mixture.shrinkage)
            alone = _log_density(mine.X, mine.y, means, np.zeros((1, X.shape[1])), sigma)[:, 0]
            parts.append(HeldOutPart(r, mine.X, rest, scatter, alone))
        return HeldOut(y, tuple(parts), config)

    def gain(self, R: Array) -> float:
        """Mean log-likelihood of the latents given their labels, beyond that of the model without attribute, in nats.

        Costs `O(n k^2 + n k K)`, in the precision of the latents.

        Args:
            R: Weights of the attribute values, shape `(n, K)`.
        """
        own = [attribute_moments(part.X, self.y[part.rows], R[part.rows]) for part in self.parts]
        cells, sums = (np.sum([moments[i] for moments in own], axis=0) for i in range(2))
        total = 0.0
        for part, (my_cells, my_sums) in zip(self.parts, own, strict=True):
            fit = solve_offsets(
                cells - my_cells,
                part.sums,
                sums - my_sums,
                part.second,
                tied=False,
                shrinkage=self.config.mixture.shrinkage,
            )
            labels = self.y[part.rows]
            prior = np.log(np.maximum(fit.prior, self.config.many_classes.least_share))[labels]
            density = _log_density(part.X, labels, fit.alpha, fit.beta, fit.sigma)
            total += float(np.sum(logsumexp(prior + density, axis=1) - part.alone))
        return total / len(self.y)


def _log_density(X: Array, y: IntArray, alpha: Array, beta: Array, sigma: Array) -> Array:
    """Normal log-density of each row at `alpha_y + beta_a` for every value `a`, up to a constant, `(n, len(beta))`."""
    factor = cholesky(sigma, lower=True)
    whiten = solve_triangular(factor, np.eye(len(factor)), lower=True).T
    rest = X @ whiten.astype(X.dtype)
    rest -= (alpha @ whiten).astype(X.dtype)[y]
    offsets = beta @ whiten
    size = np.einsum("ij,ij->i", rest, rest, dtype=np.float64)
    distance = size[:, None] - 2.0 * rest @ offsets.T.astype(X.dtype) + np.sum(offsets**2, axis=1)
    return np.asarray(-0.5 * distance - np.sum(np.log(np.diag(factor))))
