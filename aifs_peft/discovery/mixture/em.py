"""The additive latent mixture `z | y, a ~ N(alpha_y + beta_a, Sigma)`, fitted by EM.

The covariance comes from moments of the data, not from residuals, so that one step costs `O(n k K)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky

from aifs_peft.discovery.arrays import Array, IntArray, one_hot, row_chunks, softmax_in_place
from aifs_peft.discovery.config import MixtureConfig
from aifs_peft.discovery.reduced import ReducedLatents


@dataclass(frozen=True)
class Mixture:
    """A fitted additive mixture in the reduced space.

    Args:
        alpha: Class offsets, shape `(K, k)`.
        beta: Attribute offsets, shape `(K, k)`, mean zero.
        precision: Inverse of the shared covariance, shape `(k, k)`.
        prior: `pi(a | y)`, rows `y`, shape `(K, K)`.
        log_likelihood: Of the rows it was fitted on, given their labels, in nats.
        n_iter: EM steps made.
    """

    alpha: Array
    beta: Array
    precision: Array
    prior: Array
    log_likelihood: float
    n_iter: int

    def responsibilities(self, X: ReducedLatents, y: IntArray) -> Array:
        """Posterior of the attribute, shape `(n, K)`, of reduced latents `X (n, k)` with labels `y (n,)`."""
        own = self.beta @ self.precision
        out = np.empty((len(y), len(own)), dtype=X.dtype)
        for part in row_chunks(len(y)):
            projected = X[part] @ own.T.astype(X.dtype)
            out[part] = posterior(projected, y[part], self.alpha, self.beta, own, self.prior)[0]
        return out


@dataclass(frozen=True)
class Moments:
    """What EM needs of the data besides the attribute: computed once per number of components.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        counts: Examples per class, shape `(K,)`.
        sums: Sums of the latents per class, shape `(K, k)`.
        second: Uncentred second moment `X.T @ X`, shape `(k, k)`.
    """

    X: Array
    y: IntArray
    counts: Array
    sums: Array
    second: Array

    @staticmethod
    def of(X: Array, y: IntArray, n_classes: int) -> Moments:
        """Moments of `X (n, k)` with labels `y (n,)` in `0..n_classes-1`."""
        sums = (one_hot(y, n_classes, X.dtype).T @ X).astype(np.float64)
        return Moments(X, y, np.bincount(y, minlength=n_classes).astype(np.float64), sums, (X.T @ X).astype(np.float64))


def shrink(covariance: Array, share: float) -> Array:
    """`(1 - share) * covariance + share * mean variance * I`: invertible also where `k` is near `n`.

    Args:
        covariance: Shape `(k, k)`.
        share: In `[0, 1]`.

    Example:
        >>> shrink(np.diag([1.0, 3.0]), 0.5).round(6).tolist()
        [[1.5, 0.0], [0.0, 2.5]]
    """
    k = covariance.shape[0]
    shrunk: Array = (1.0 - share) * covariance + (share * np.trace(covariance) / k + 1e-9) * np.eye(k)
    return shrunk


def posterior(
    projected: Array, y: IntArray, alpha: Array, beta: Array, own: Array, prior: Array
) -> tuple[Array, float]:
    """Posterior of the attribute, `(n, K)`, and the sum of log normalisers.

    Args:
        projected: `X @ own.T`, shape `(n, K)`.
        y: Labels, shape `(n,)`.
        alpha: Class offsets, shape `(K, k)`.
        beta: Attribute offsets, shape `(K, k)`.
        own: `beta @ inverse(Sigma)`, shape `(K, k)`.
        prior: `pi(a | y)`, rows `y`, shape `(K, K)`.

    Example:
        >>> beta, alpha = np.array([[-1.0], [1.0]]), np.zeros((2, 1))
        >>> R, _ = posterior(np.array([[2.0]]) @ beta.T, np.array([0]), alpha, beta, beta, np.full((2, 2), 0.5))
        >>> R.round(3).tolist()
        [[0.018, 0.982]]
    """
    # log N up to the part that does not depend on a: z'P b_a - alpha_y'P b_a - b_a'P b_a / 2.
    offset = np.log(np.maximum(prior, 1e-300)) - alpha @ own.T - 0.5 * np.sum(own * beta, axis=1)
    logits = projected + offset[y].astype(projected.dtype)
    normalisers = softmax_in_place(logits)
    return logits, normalisers


@dataclass(frozen=True)
class Offsets:
    """What one M-step gives, before anything is inverted.

    Args:
        alpha: Class offsets, shape `(K, k)`.
        beta: Attribute offsets, mean zero, shape `(K, k)`.
        sigma: Shared covariance, shrunk, shape `(k, k)`.
        prior: `pi(a | y)`, rows `y`, shape `(K, K)`.
    """

    alpha: Array
    beta: Array
    sigma: Array
    prior: Array


def attribute_moments(X: Array, y: IntArray, R: Array) -> tuple[Array, Array]:
    """Weight of each cell, and sums of the latents per attribute value.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Responsibilities, shape `(n, K)`.

    Returns:
        Cells `(K, K)`, rows `y`, and sums `(K, k)`.

    Example:
        >>> X, R = np.array([[1.0], [5.0]]), np.array([[0.5, 0.5], [0.0, 1.0]])
        >>> cells, sums = attribute_moments(X, np.array([0, 1]), R)
        >>> cells.tolist(), sums.tolist()
        ([[0.5, 0.5], [0.0, 1.0]], [[0.5], [5.5]])
    """
    cells = np.stack([R[y == c].sum(axis=0, dtype=np.float64) for c in range(R.shape[1])])
    return cells, (R.T.astype(X.dtype) @ X).astype(np.float64)


def least_squares(cells: Array, sums: Array, attribute_sums: Array) -> tuple[Array, Array, tuple[Array, Array]]:
    """Class and attribute offsets from moments, of one fit or of several at once.

    Args:
        cells: Weight of each cell, rows `y`, columns `a`, shape `(..., K, K)`.
        sums: Sums of the latents per class, shape `(..., K, k)`.
        attribute_sums: The same per attribute value, weighted by responsibility, shape `(..., K, k)`.

    Returns:
        `alpha (..., K, k)`, `beta (..., K, k)` of mean zero, and two factors `(..., 2 * K, k)` whose product, the first
        one transposed, is what the offsets explain of the uncentred second moment.

    Example:
        >>> cells, sums = np.full((2, 2), 10.0), np.array([[0.0], [40.0]])  # classes 2 apart, no attribute
        >>> alpha, beta, (left, right) = least_squares(cells, sums, np.array([[20.0], [20.0]]))
        >>> alpha.round(2).tolist(), np.abs(beta).round(2).tolist(), (left.T @ right).round().tolist()
        ([[0.0], [2.0]], [[0.0], [0.0]], [[80.0]])
    """
    K = cells.shape[-1]
    gram = np.zeros((*cells.shape[:-2], 2 * K, 2 * K))
    gram[..., :K, K:] = cells
    gram[..., K:, :K] = np.swapaxes(cells, -1, -2)
    place = np.arange(K)
    gram[..., place, place] = cells.sum(axis=-1)
    gram[..., K + place, K + place] = cells.sum(axis=-2)
    target = np.concatenate([sums, attribute_sums], axis=-2)
    # A small ridge takes out the one direction (a constant moved from alpha to beta) that the data leave
    # free, and holds an attribute value that nobody has at zero.
    coefficients = np.linalg.solve(gram + 1e-3 * np.eye(2 * K), target)
    shift = coefficients[..., K:, :].mean(axis=-2, keepdims=True)
    coefficients[..., :K, :] += shift
    coefficients[..., K:, :] -= shift
    return coefficients[..., :K, :], coefficients[..., K:, :], (coefficients, 2.0 * target - gram @ coefficients)


def solve_offsets(
    cells: Array, sums: Array, attribute_sums: Array, second: Array, *, tied: bool, shrinkage: float
) -> Offsets:
    """Weighted least squares on class and attribute, shared covariance and prior, from moments.

    Args:
        cells: Weight of each cell, rows `y`, columns `a`, shape `(K, K)`.
        sums: Sums of the latents per class, shape `(K, k)`.
        attribute_sums: The same per attribute value, weighted by responsibility, shape `(K, k)`.
        second: Uncentred second moment, shape `(k, k)`.
        tied: See `fit_mixture`.
        shrinkage: Of the covariance, in `[0, 1]`.

    Example:
        >>> cells, sums = np.full((2, 2), 10.0), np.array([[0.0], [40.0]])  # classes 2 apart, no attribute
        >>> fit = solve_offsets(cells, sums, np.array([[20.0], [20.0]]), np.array([[100.0]]), tied=False, shrinkage=0.0)
        >>> fit.alpha.round(2).tolist(), np.abs(fit.beta).round(2).tolist(), fit.sigma.round(2).tolist()
        ([[0.0], [2.0]], [[0.0], [0.0]], [[0.5]])
    """
    K, n = len(cells), float(cells.sum())
    alpha, beta, (left, right) = least_squares(cells, sums, attribute_sums)
    scatter = (second - left.T @ right) / n
    sigma = shrink(0.5 * (scatter + scatter.T), shrinkage)
    if tied:
        rho = min(max(np.trace(cells) / n, 1.0 / K), 1.0 - 1.0 / n)
        prior = np.full((K, K), (1.0 - rho) / max(K - 1, 1))
        np.fill_diagonal(prior, rho)
    else:
        prior = cells / cells.sum(axis=1, keepdims=True)
    return Offsets(alpha, beta, sigma, prior)


def _maximise(data: Moments, R: Array, *, tied: bool, shrinkage: float) -> tuple[Mixture, float]:
    """M-step, and the log-determinant of its covariance."""
    cells, attribute_sums = attribute_moments(data.X, data.y, R)
    offsets = solve_offsets(cells, data.sums, attribute_sums, data.second, tied=tied, shrinkage=shrinkage)
    factor = cholesky(offsets.sigma, lower=True)
    precision = cho_solve((factor, True), np.eye(len(factor)))
    fit = Mixture(offsets.alpha, offsets.beta, precision, offsets.prior, 0.0, 0)
    return fit, 2.0 * float(np.sum(np.log(np.diag(factor))))


def _log_likelihood(data: Moments, fit: Mixture, log_det: float, normalisers: float) -> float:
    """Of the data given their labels: the attribute-free part in closed form from the moments."""
    n, k = data.X.shape
    projected = fit.alpha @ fit.precision
    quadratic = np.sum(fit.precision * data.second) - 2.0 * np.sum(projected * data.sums)
    quadratic += np.sum(data.counts * np.sum(projected * fit.alpha, axis=1))
    return float(normalisers - 0.5 * quadratic - 0.5 * n * (log_det + k * np.log(2.0 * np.pi)))


def fit_mixture(
    data: Moments,
    R: Array,
    *,
    tied: bool = False,
    config: MixtureConfig,
) -> Mixture:
    """EM (Dempster, Laird and Rubin, 1977) from the attribute assignment `R`.

    Args:
        data: Moments of the reduced latents.
        R: Start, shape `(n, K)`, rows sum to one.
        tied: One `rho = pi(a = y | y)` for all classes instead of a free table (steadier for many classes).
        config: Steps at most, tolerance, shrinkage of the covariance.

    Returns:
        The last fit, its log-likelihood included.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 2000); a = np.where(rng.random(2000) < 0.9, y, 1 - y)
        >>> X = rng.normal(size=(2000, 4)); X[:, 0] += 6 * a; X[:, 1] += 2 * y
        >>> start = np.full((2000, 2), 0.1); start[np.arange(2000), a] = 0.9
        >>> fit = fit_mixture(Moments.of(X, y, 2), start, config=MixtureConfig())
        >>> bool(np.mean(fit.responsibilities(X, y).argmax(axis=1) == a) > 0.99)
        True
    """
    previous = -np.inf
    for step in range(1, config.max_iter + 1):
        fit, log_det = _maximise(data, R, tied=tied, shrinkage=config.shrinkage)
        own = fit.beta @ fit.precision
        R, normalisers = posterior(data.X @ own.T.astype(data.X.dtype), data.y, fit.alpha, fit.beta, own, fit.prior)
        current = _log_likelihood(data, fit, log_det, normalisers)
        if current - previous < config.tolerance * len(data.y) and step > 1:
            break
        previous = current
    return Mixture(fit.alpha, fit.beta, fit.precision, fit.prior, current, step)


def partition_fit(data: Moments, R: Array, *, config: MixtureConfig) -> Mixture:
    """The mixture's parameters for a given attribute assignment: one M-step, no likelihood.

    Args:
        data: Moments of the reduced latents.
        R: Assignment, shape `(n, K)`, rows sum to one.
        config: Shrinkage of the covariance.

    Example:
        >>> X, y = np.array([[0.0], [4.0], [1.0], [5.0]]), np.array([0, 0, 1, 1])
        >>> fit = partition_fit(Moments.of(X, y, 2), np.eye(2)[[0, 1, 0, 1]], config=MixtureConfig())
        >>> np.diff(fit.beta, axis=0).round(1).tolist()
        [[4.0]]
    """
    return _maximise(data, R, tied=False, shrinkage=config.shrinkage)[0]


def null_log_likelihood(data: Moments, *, config: MixtureConfig) -> float:
    """Log-likelihood of `z | y ~ N(alpha_y, Sigma)`, the model without attribute, in nats.

    Args:
        data: Moments of the reduced latents.
        config: Shrinkage of the covariance.

    Example:
        >>> X, y = np.array([[-1.0], [1.0], [2.0], [4.0]]), np.array([0, 0, 1, 1])  # two classes, variance 1
        >>> round(null_log_likelihood(Moments.of(X, y, 2), config=MixtureConfig()), 3)  # 4 * (-log(2 pi) - 1) / 2
        -5.676
    """
    K = len(data.counts)
    n, k = data.X.shape
    alpha = data.sums / np.maximum(data.counts, 1.0)[:, None]
    sigma = shrink((data.second - data.sums.T @ alpha) / n, config.shrinkage)
    factor = cholesky(sigma, lower=True)
    precision = cho_solve((factor, True), np.eye(k))
    fit = Mixture(alpha, np.zeros((K, k)), precision, np.full((K, K), 1.0 / K), 0.0, 0)
    return _log_likelihood(data, fit, 2.0 * float(np.sum(np.log(np.diag(factor)))), 0.0)
