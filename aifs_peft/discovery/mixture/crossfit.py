"""EM in which every example is judged by a fit that did not see it.

With many components and few conflicting examples a mixture remembers its own examples: one that was called conflicting
pulls the attribute's offset towards itself, and stays. Judged by the other folds' fit it must look like the others.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import MixtureConfig
from aifs_peft.discovery.mixture.em import Moments, Offsets, attribute_moments, posterior, solve_offsets


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
    dealt = [order[j :: config.folds] for j in range(min(config.folds, n))]
    # One copy in the order of the folds: each fold is then a block of rows.
    rows = np.concatenate(dealt)
    X, y, R = np.ascontiguousarray(X[rows]), y[rows], R[rows].astype(X.dtype)
    ends = np.cumsum([len(fold) for fold in dealt])
    blocks = [slice(end - len(fold), end) for fold, end in zip(dealt, ends, strict=True)]
    parts = [Moments.of(X[block], y[block], K) for block in blocks]
    sums, second = (np.sum([getattr(part, name) for part in parts], axis=0) for name in ("sums", "second"))
    for _ in range(config.rounds):
        moments = [attribute_moments(part.X, part.y, R[block]) for part, block in zip(parts, blocks, strict=True)]
        cells, attribute_sums = (np.sum(column, axis=0) for column in zip(*moments, strict=True))
        previous, R = R.argmax(axis=1), np.empty_like(R)
        for part, block, (own_cells, own_sums) in zip(parts, blocks, moments, strict=True):
            others = solve_offsets(
                cells - own_cells, sums - part.sums, attribute_sums - own_sums, second - part.second,
                tied=False, shrinkage=config.shrinkage,
            )  # fmt: skip
            R[block] = _judge(part, others)
        if np.array_equal(R.argmax(axis=1), previous):
            break
    out = np.empty_like(R)
    out[rows] = R
    return out


def _judge(part: Moments, fit: Offsets) -> Array:
    """Responsibilities of a fold; the covariance is factored, never inverted."""
    own = cho_solve(cho_factor(fit.sigma, lower=True), fit.beta.T).T
    return posterior(part.X @ own.T.astype(part.X.dtype), part.y, fit.alpha, fit.beta, own, fit.prior)[0]
