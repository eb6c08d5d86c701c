"""Weighted multinomial logistic regression, in NumPy: fitted hundreds of times, in the precision of the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from aifs_peft.discovery.arrays import Array, IntArray


@dataclass(frozen=True)
class LinearHead:
    """Logits `X @ weight.T + bias`.

    Args:
        weight: Shape `(K, k)`.
        bias: Shape `(K,)`.
    """

    weight: Array
    bias: Array

    def logits(self, X: Array) -> Array:
        """Shape `(n, K)` for `X (n, k)`."""
        return np.asarray(X @ self.weight.T.astype(X.dtype) + self.bias.astype(X.dtype))

    def shifted(self, shift: Array) -> LinearHead:
        """The head with `shift (K,)` added to its logits."""
        return LinearHead(self.weight, self.bias + shift)


def fit_logistic(
    X: Array,
    y: IntArray,
    n_classes: int,
    *,
    l2: float,
    weights: Array | None = None,
    start: LinearHead | None = None,
    max_iter: int = 200,
    tol: float = 1e-4,
) -> LinearHead:
    """Multinomial logistic regression by L-BFGS: weighted mean cross-entropy `+ l2 / 2 * ||W||^2`.

    SciPy's optimiser on a loss in the precision of `X` (float32 in discovery), warm from `start`.

    Args:
        X: Features, shape `(n, k)`, about unit variance.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        l2: Penalty on the weights, not on the bias; at least 0.
        weights: Of the examples, shape `(n,)`; normalised to mean one. Default: all one.
        start: Where to start, for example the solution at a neighbouring penalty.
        max_iter: L-BFGS steps at most.
        tol: Stop when the largest gradient entry is below this.

    Returns:
        The fitted head. For two classes its two rows are opposite.

    Example:
        >>> X = np.array([[-1.0], [-2.0], [1.0], [2.0]]); y = np.array([0, 0, 1, 1])
        >>> fit_logistic(X, y, 2, l2=0.01).logits(X).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """
    n, k = X.shape
    w = np.full(n, 1.0 / n) if weights is None else np.asarray(weights, dtype=np.float64) / np.sum(weights)
    w = w.astype(X.dtype)
    # Two classes need one row: half the work, and the same optimum up to the split into two opposite rows.
    rows = 1 if n_classes == 2 else n_classes
    penalty = 0.5 * l2 if rows == 1 else l2
    loss_of = _logistic_loss if rows == 1 else _softmax_loss

    def objective(flat: Array) -> tuple[float, Array]:
        W = flat.reshape(rows, k + 1)
        # One row per class: sums over the classes then run along the examples.
        scores = W[:, :k].astype(X.dtype) @ X.T
        scores += W[:, k:].astype(X.dtype)
        loss, residual = loss_of(scores, y, w)
        gradient = np.empty_like(W)
        gradient[:, :k] = residual @ X + penalty * W[:, :k]
        gradient[:, k] = residual.sum(axis=1)
        return loss + 0.5 * penalty * float(np.sum(W[:, :k] ** 2)), gradient.ravel()

    x0 = np.zeros((rows, k + 1))
    if start is not None:
        full = np.hstack([start.weight, start.bias[:, None]])
        x0 = (full[1:] - full[:1]) if rows == 1 else full
    options = {"maxiter": max_iter, "gtol": tol, "ftol": 1e-9}
    W = minimize(objective, x0.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(rows, k + 1)
    if rows == 1:
        W = np.vstack([-0.5 * W, 0.5 * W])
    return LinearHead(W[:, :k], W[:, k])


def fit_on_common_scale(
    X: Array,
    y: IntArray,
    n_classes: int,
    *,
    l2: float,
    scale: Array,
    weights: Array | None = None,
    start: LinearHead | None = None,
) -> LinearHead:
    """Logistic regression on coordinates with one common scale, told as a head on the whitened ones.

    Args:
        X: Whitened coordinates, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        l2: Penalty on the weights of the scaled coordinates, whose mean variance is one.
        scale: Standard deviations before whitening, shape `(k,)`.
        weights: Of the examples, shape `(n,)`.
        start: Where to start, a head on the whitened coordinates.

    Example:
        >>> X = np.array([[-1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]]); y = np.array([0, 0, 1, 1])
        >>> small, large = (
        ...     fit_on_common_scale(X, y, 2, l2=1.0, scale=np.array(scale)) for scale in ([0.1, 1.0], [1.0, 0.1])
        ... )
        >>> bool(small.weight[1, 0] < large.weight[1, 0])  # a direction of small variance is penalised more
        True
    """
    factor = scale / np.sqrt(np.mean(scale**2))
    first = None if start is None else LinearHead(start.weight / factor, start.bias)
    head = fit_logistic(X * factor.astype(X.dtype), y, n_classes, l2=l2, weights=weights, start=first)
    return LinearHead(head.weight * factor, head.bias)


def _logistic_loss(scores: Array, y: IntArray, w: Array) -> tuple[float, Array]:
    """Weighted loss of two classes from the score of the second, `(1, n)`, and its gradient by the scores."""
    sign = (2 * y - 1).astype(scores.dtype)
    margin = sign * scores[0]
    loss = float(w @ np.logaddexp(0.0, -margin).astype(scores.dtype))
    return loss, (-w * sign / (1.0 + np.exp(np.minimum(margin, 60.0))))[None]


def _softmax_loss(scores: Array, y: IntArray, w: Array) -> tuple[float, Array]:
    """Weighted cross-entropy from the scores `(K, n)`, which are used up, and its gradient by them."""
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    index = np.arange(len(y))
    loss = -float(w @ np.log(np.maximum(scores[y, index], 1e-30)))
    scores[y, index] -= 1.0
    scores *= w
    return loss, scores
