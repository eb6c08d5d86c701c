"""Step 4: the additive latent mixture `z | y, a ~ N(alpha_y + beta_a, Sigma)`, fitted by EM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

# Sigma is shrunk by this share towards a multiple of the identity: keeps it invertible when k is near n.
SHRINKAGE = 0.05


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

    def responsibilities(self, X: Array, y: IntArray) -> Array:
        """Posterior of the attribute, shape `(n, K)`, of reduced latents `X (n, k)` with labels `y (n,)`."""
        own = self.beta @ self.precision
        return posterior(X @ own.T, y, self.alpha, self.beta, own, self.prior)[0]


@dataclass(frozen=True)
class Moments:
    """What EM needs of the data besides the attribute: computed once per number of components."""

    X: Array
    y: IntArray
    counts: Array
    sums: Array
    second: Array

    @staticmethod
    def of(X: Array, y: IntArray, n_classes: int) -> Moments:
        """Moments of `X (n, k)` with labels `y (n,)` in `0..n_classes-1`."""
        onehot = np.zeros((len(y), n_classes), dtype=X.dtype)
        onehot[np.arange(len(y)), y] = 1.0
        sums = (onehot.T @ X).astype(np.float64)
        return Moments(X, y, np.bincount(y, minlength=n_classes).astype(np.float64), sums, (X.T @ X).astype(np.float64))


def shrink(covariance: Array, share: float) -> Array:
    """`(1 - share) * covariance + share * mean variance * I`."""
    k = covariance.shape[0]
    shrunk: Array = (1.0 - share) * covariance + (share * np.trace(covariance) / k + 1e-9) * np.eye(k)
    return shrunk


def posterior(
    projected: Array, y: IntArray, alpha: Array, beta: Array, own: Array, prior: Array
) -> tuple[Array, float]:
    """Posterior `(n, K)` and the sum of log normalisers, from `projected = X @ own'`, where `own = beta Sigma^-1`."""
    # log N up to the part that does not depend on a: z'P b_a - alpha_y'P b_a - b_a'P b_a / 2.
    offset = np.log(np.maximum(prior, 1e-300)) - alpha @ own.T - 0.5 * np.sum(own * beta, axis=1)
    logits = projected + offset[y].astype(projected.dtype)
    top = logits.max(axis=1, keepdims=True)
    np.subtract(logits, top, out=logits)
    np.exp(logits, out=logits)
    norm = logits.sum(axis=1, keepdims=True)
    np.divide(logits, norm, out=logits)
    return logits, float(np.sum(top, dtype=np.float64) + np.sum(np.log(norm), dtype=np.float64))


@dataclass(frozen=True)
class Offsets:
    """Offsets, covariance and prior of a mixture: what one M-step gives, before anything is inverted."""

    alpha: Array
    beta: Array
    sigma: Array
    prior: Array


def attribute_moments(X: Array, y: IntArray, R: Array) -> tuple[Array, Array]:
    """Weight of each cell `(K, K)`, rows `y`, and the sums of `X (n, k)` per attribute value, `(K, k)`."""
    cells = np.stack([R[y == c].sum(axis=0, dtype=np.float64) for c in range(R.shape[1])])
    return cells, (R.T.astype(X.dtype) @ X).astype(np.float64)


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
        shrinkage: See `fit_mixture`.
    """
    K, n = len(cells), float(cells.sum())
    gram = np.block([[np.diag(cells.sum(axis=1)), cells], [cells.T, np.diag(cells.sum(axis=0))]])
    target = np.vstack([sums, attribute_sums])
    # A small ridge takes out the one direction (a constant moved from alpha to beta) that the data leave
    # free, and holds an attribute value that nobody has at zero.
    coefficients = np.linalg.solve(gram + 1e-3 * np.eye(2 * K), target)
    alpha, beta = coefficients[:K], coefficients[K:]
    shift = beta.mean(axis=0)
    alpha, beta = alpha + shift, beta - shift
    coefficients = np.vstack([alpha, beta])
    scatter = (second - coefficients.T @ target - target.T @ coefficients + coefficients.T @ gram @ coefficients) / n
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
    max_iter: int = 60,
    tol: float = 1e-5,
    shrinkage: float = SHRINKAGE,
) -> Mixture:
    """EM from the attribute assignment `R`.

    Each step costs `O(n * k * K)`: the covariance comes from moments, not from residuals.

    Args:
        data: Moments of the reduced latents.
        R: Start, shape `(n, K)`, rows sum to one.
        tied: One `rho = pi(a = y | y)` for all classes instead of a free table (steadier for many classes).
        max_iter: EM steps at most.
        tol: Stop when the log-likelihood per row rises by less, in nats.
        shrinkage: Of the shared covariance, in `[0, 1]`.

    Returns:
        The last fit, its log-likelihood included.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 2000); a = np.where(rng.random(2000) < 0.9, y, 1 - y)
        >>> X = rng.normal(size=(2000, 4)); X[:, 0] += 6 * a; X[:, 1] += 2 * y
        >>> start = np.full((2000, 2), 0.1); start[np.arange(2000), a] = 0.9
        >>> fit = fit_mixture(Moments.of(X, y, 2), start)
        >>> bool(np.mean(fit.responsibilities(X, y).argmax(axis=1) == a) > 0.99)
        True
    """
    previous = -np.inf
    for step in range(1, max_iter + 1):
        fit, log_det = _maximise(data, R, tied=tied, shrinkage=shrinkage)
        own = fit.beta @ fit.precision
        R, normalisers = posterior(data.X @ own.T.astype(data.X.dtype), data.y, fit.alpha, fit.beta, own, fit.prior)
        current = _log_likelihood(data, fit, log_det, normalisers)
        if current - previous < tol * len(data.y) and step > 1:
            break
        previous = current
    return Mixture(fit.alpha, fit.beta, fit.precision, fit.prior, current, step)


def partition_fit(data: Moments, R: Array, *, shrinkage: float = SHRINKAGE) -> Mixture:
    """The mixture's parameters for a given attribute assignment `R (n, K)`: one M-step, no likelihood."""
    return _maximise(data, R, tied=False, shrinkage=shrinkage)[0]


def null_log_likelihood(data: Moments, *, shrinkage: float = SHRINKAGE) -> float:
    """Log-likelihood of `z | y ~ N(alpha_y, Sigma)`, the model without attribute."""
    K = len(data.counts)
    n, k = data.X.shape
    alpha = data.sums / np.maximum(data.counts, 1.0)[:, None]
    sigma = shrink((data.second - data.sums.T @ alpha) / n, shrinkage)
    factor = cholesky(sigma, lower=True)
    precision = cho_solve((factor, True), np.eye(k))
    fit = Mixture(alpha, np.zeros((K, k)), precision, np.full((K, K), 1.0 / K), 0.0, 0)
    return _log_likelihood(data, fit, 2.0 * float(np.sum(np.log(np.diag(factor)))), 0.0)
