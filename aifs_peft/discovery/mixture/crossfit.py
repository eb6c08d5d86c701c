"""EM in which every example is judged by a fit that did not see it.

With many components and few conflicting examples a mixture remembers its own examples: one that was called conflicting
pulls the attribute's offset towards itself, and stays. Judged by the other folds' fit it must look like the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from aifs_peft.discovery.arrays import Array, BoolArray, IntArray
from aifs_peft.discovery.config import MixtureConfig
from aifs_peft.discovery.mixture.em import least_squares


def cross_fitted(X: Array, y: IntArray, R: Array, *, rng: np.random.Generator, config: MixtureConfig) -> Array:
    """Cross-fitted EM of the additive mixture from the assignment `R (n, K)`.

    Costs `O(n k^2)` once and `O(n k K + folds * k^3)` per round.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Start, rows sum to one.
        rng: Source of the folds.
        config: Number of folds, which are dealt within the start's cells; most rounds (it stops when no example changes
            its most probable value); shrinkage of the covariance.

    Returns:
        Responsibilities, shape `(n, K)`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(1000, 32)); X[:, 0] += 6 * a; X[:, 1] += 2 * y
        >>> start = np.where(rng.random(1000) < 0.9, a, 1 - a)
        >>> R = cross_fitted(X, y, np.eye(2)[start], rng=rng, config=MixtureConfig())
        >>> bool(np.mean(R.argmax(axis=1) == a) > 0.99)
        True
    """
    n, K = R.shape
    shuffled = rng.permutation(n)
    order = shuffled[np.argsort(K * y[shuffled] + R.argmax(axis=1)[shuffled], kind="stable")]
    folds = Folds.of(X, y, K, order, min(config.folds, n))
    weights = folds.deal(R.astype(X.dtype))
    for _ in range(config.rounds):
        previous = weights.argmax(axis=1)
        weights = _judged_by_others(folds, weights, config.shrinkage)
        if np.array_equal(weights.argmax(axis=1), previous):
            break
    return folds.gather(weights)


@dataclass(frozen=True)
class Folds:
    """The examples fold by fold, and the moments of all but each fold.

    Folds differ by one example at most: where one is short, its last place is empty. What is given per example lies as
    `(folds, values, places)`, so that a step is one product for all folds, and sums over values run along the places.

    Args:
        rows: Example at each place, -1 where it is empty, shape `(F, p)`.
        X: Reduced latents, zero at empty places, shape `(F, p, k)`.
        y: Labels, shape `(F, p)`.
        labels: Indicators of them, zero at empty places, shape `(F, K, p)`.
        sums: Sums of the latents per class, of all but the fold, shape `(F, K, k)`.
        second: Uncentred second moment of all but the fold, shape `(F, k, k)`.
    """

    rows: IntArray
    X: Array
    y: IntArray
    labels: Array
    sums: Array
    second: Array

    @staticmethod
    def of(X: Array, y: IntArray, n_classes: int, order: IntArray, count: int) -> Folds:
        """Deal the examples one by one.

        Args:
            X: Reduced latents, shape `(n, k)`.
            y: Labels in `0..n_classes-1`, shape `(n,)`.
            n_classes: `K`.
            order: In which they are dealt, a permutation of `0..n-1`.
            count: Number of folds, at most `n`.
        """
        places = -(-len(order) // count)
        padded = np.concatenate([order, np.full(places * count - len(order), -1)])
        rows = np.ascontiguousarray(padded.reshape(places, count).T)
        empty = rows < 0
        data, classes = X[rows], y[rows]
        data[empty] = 0.0
        labels = (classes[:, None] == np.arange(n_classes)[:, None]).astype(np.float64)
        labels.swapaxes(1, 2)[empty] = 0.0
        sums = np.matmul(labels.astype(X.dtype), data).astype(np.float64)
        second = np.matmul(data.swapaxes(1, 2), data).astype(np.float64)
        return Folds(rows, data, classes, labels, sums.sum(axis=0) - sums, second.sum(axis=0) - second)

    @property
    def empty(self) -> BoolArray:
        """Which places hold no example, shape `(F, p)`."""
        return np.asarray(self.rows < 0)

    def deal(self, values: Array) -> Array:
        """Values of the examples, `(n, A)`, at their places, `(F, A, p)`; zero where there is none."""
        dealt = values[self.rows]
        dealt[self.empty] = 0.0
        return np.ascontiguousarray(dealt.swapaxes(1, 2))

    def gather(self, dealt: Array) -> Array:
        """The inverse of `deal`."""
        there = ~self.empty
        out = np.empty((int(there.sum()), dealt.shape[1]), dtype=dealt.dtype)
        out[self.rows[there]] = dealt.swapaxes(1, 2)[there]
        return out


def _judged_by_others(folds: Folds, weights: Array, shrinkage: float) -> Array:
    """Responsibilities of each fold by the fit of the others, `(F, K, p)`, from those of the last round."""
    own_cells = np.matmul(folds.labels, weights.astype(np.float64).swapaxes(1, 2))
    own_sums = np.matmul(weights, folds.X).astype(np.float64)
    cells, attribute_sums = own_cells.sum(axis=0) - own_cells, own_sums.sum(axis=0) - own_sums
    alpha, beta, explained = least_squares(cells, folds.sums, attribute_sums)
    own = np.stack(
        [
            _against_covariance(second, left, right, float(count), b, shrinkage)
            for second, left, right, count, b in zip(
                folds.second, *explained, cells.sum(axis=(1, 2)), beta, strict=True
            )
        ]
    )
    # log N up to the part that does not depend on a, see `posterior`: rows a, columns y.
    prior = cells / cells.sum(axis=2, keepdims=True)
    offset = np.log(np.maximum(prior, 1e-300)).swapaxes(1, 2) - np.matmul(own, alpha.swapaxes(1, 2))
    offset -= 0.5 * np.sum(own * beta, axis=2)[:, :, None]
    logits = np.matmul(own.astype(folds.X.dtype), folds.X.swapaxes(1, 2))
    logits += np.take_along_axis(offset.astype(logits.dtype), folds.y[:, None], axis=2)
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    logits.swapaxes(1, 2)[folds.empty] = 0.0
    return np.asarray(logits)


def _against_covariance(
    second: Array, left: Array, right: Array, count: float, beta: Array, shrinkage: float
) -> NDArray[np.float64]:
    """`beta @ inverse(Sigma)`, `(K, k)`, with the covariance of `solve_offsets`, which is factored, never inverted."""
    sigma = left.T @ right
    np.subtract(second, sigma, out=sigma)
    k = len(sigma)
    diagonal = sigma.reshape(-1)[:: k + 1]
    ridge = shrinkage * float(diagonal.mean()) / count + 1e-9
    sigma *= (1.0 - shrinkage) / count
    diagonal += ridge
    # Transposed it is what LAPACK reads, and need not be copied; it is symmetric.
    _, solved, failed = dposv(sigma.T, beta.T, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("the covariance within the cells is not positive definite")
    return np.asarray(solved.T)
