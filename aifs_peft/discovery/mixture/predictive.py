"""How well a partition explains examples that its offsets were not fitted to.

Of two partitions the one with the better held-out likelihood is nearer to an attribute that moves all classes alike:
styles of single classes gain little, and what chance gives is lost on other examples.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp

from aifs_peft.discovery.arrays import Array, IntArray, random_folds
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.mixture.em import Moments, attribute_moments, shrink, solve_offsets


def held_out_gain(X: Array, y: IntArray, R: Array, *, rng: np.random.Generator, config: DiscoveryConfig) -> float:
    """Mean log-likelihood of the latents given their labels, beyond that of the model without attribute, in nats.

    Costs `O(n k^2 + n k K)`.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Weights of the attribute values, shape `(n, K)`.
        rng: Source of the folds; the same for partitions that are compared.
        config: Number of folds (`many_classes`) and shrinkage (`mixture`).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 1500); a = np.where(rng.random(1500) < 0.7, y, rng.integers(0, 3, 1500))
        >>> X = rng.normal(size=(1500, 8)); X[:, :3] += 5 * np.eye(3)[a]; X[:, 3:6] += 5 * np.eye(3)[y]
        >>> chance = np.where(rng.random(1500) < 0.3, rng.integers(0, 3, 1500), y)
        >>> truth, by_chance = (
        ...     held_out_gain(X, y, np.eye(3)[v], rng=np.random.default_rng(1), config=DiscoveryConfig())
        ...     for v in (a, chance)
        ... )
        >>> truth > 0.5, abs(by_chance) < 0.1
        (True, True)
    """
    K, shrinkage = R.shape[1], config.mixture.shrinkage
    fold = random_folds(len(y), config.many_classes.gain_folds, rng)
    total = 0.0
    for j in range(config.many_classes.gain_folds):
        out = fold == j
        data, weights = Moments.of(X[~out], y[~out], K), R[~out]
        cells, sums = attribute_moments(data.X, data.y, weights)
        fit = solve_offsets(cells, data.sums, sums, data.second, tied=False, shrinkage=shrinkage)
        means = data.sums / np.maximum(data.counts, 1.0)[:, None]
        alone = shrink((data.second - data.sums.T @ means) / len(data.y), shrinkage)
        new, labels = X[out].astype(np.float64), y[out]
        prior = np.log(np.maximum(fit.prior, config.many_classes.least_share))[labels]
        with_attribute = logsumexp(prior + _log_density(new, labels, fit.alpha, fit.beta, fit.sigma), axis=1)
        without = _log_density(new, labels, means, np.zeros((1, X.shape[1])), alone)[:, 0]
        total += float(np.sum(with_attribute - without))
    return total / len(y)


def _log_density(X: Array, y: IntArray, alpha: Array, beta: Array, sigma: Array) -> Array:
    """Normal log-density of each row at `alpha_y + beta_a` for every value `a`, up to a constant, `(n, len(beta))`."""
    factor = cholesky(sigma, lower=True)
    rest = solve_triangular(factor, (X - alpha[y]).T, lower=True)
    offsets = solve_triangular(factor, beta.T, lower=True)
    distance = np.sum(rest**2, axis=0)[:, None] - 2.0 * rest.T @ offsets + np.sum(offsets**2, axis=0)
    return np.asarray(-0.5 * distance - np.sum(np.log(np.diag(factor))))
