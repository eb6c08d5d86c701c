"""Linear heads on latents, in NumPy: balanced logistic regression and the additive head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]


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


def softmax(logits: Array) -> Array:
    """Row-wise softmax, shape kept."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


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
        >>> import numpy as np
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
    index = np.arange(n)
    sign = (2 * y - 1).astype(X.dtype)

    def objective(flat: Array) -> tuple[float, Array]:
        W = flat.reshape(rows, k + 1)
        scores = X @ W[:, :k].T.astype(X.dtype) + W[:, k].astype(X.dtype)
        if rows == 1:
            margin = sign * scores[:, 0]
            loss = float(w @ np.logaddexp(0.0, -margin).astype(X.dtype))
            residual = (-w * sign / (1.0 + np.exp(np.minimum(margin, 60.0))))[:, None]
        else:
            p = softmax(scores)
            loss = -float(w @ np.log(np.maximum(p[index, y], 1e-30)))
            p[index, y] -= 1.0
            residual = p * w[:, None]
        gradient = np.empty_like(W)
        gradient[:, :k] = residual.T @ X + penalty * W[:, :k]
        gradient[:, k] = residual.sum(axis=0)
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
