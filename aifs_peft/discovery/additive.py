"""The additive head: the linear discriminant of the class with the attribute's effect held constant.

In `z | y, a ~ N(alpha_y + beta_a, Sigma)` the aligned examples, nearly all of the data, show only the sum
`alpha_y + beta_y`. How it splits rests on the few conflicting examples, and their noise in many dimensions is what
makes reweighting fail when conflicts are rare. Two things help. Empirical Bayes: along the principal components the
class offsets are shrunk by their estimated signal-to-noise ratio, and what is taken from the class is given to the
attribute, since the sum is well known. And the attribute's directions are added to the covariance, so that the head
turns away from them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.heads import LinearHead

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

# Half-width, in components, of the window over which signal and noise are compared.
WINDOW = 25


@dataclass(frozen=True)
class AdditiveModel:
    """Offsets and covariance of the additive model for given responsibilities.

    Args:
        alpha: Class offsets, shape `(K, k)`; their mean is the data's balanced centre.
        beta: Attribute offsets, shape `(K, k)`, mean zero.
        sigma: Covariance within cells, shape `(k, k)`, not shrunk.
        cells: Weight of each cell, rows `y`, columns `a`, shape `(K, K)`.
    """

    alpha: Array
    beta: Array
    sigma: Array
    cells: Array


def smoothed_offsets(X: Array, y: IntArray, R: Array) -> tuple[Array, Array]:
    """Class and attribute offsets `alpha (K, k)`, `beta (K, k)`, both mean zero, split by `split_by_signal`.

    What counterfactuals are made with: least squares leaves in `beta` the noise of the few conflicting examples in
    every component, and a head that is taught to ignore `beta` then ignores the wrong direction.

    Args:
        X: Principal coordinates of unit variance, by falling variance, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Weights of the attribute values, shape `(n, K)`.
    """
    return split_by_signal(additive_model(X, y, R))


def additive_model(X: Array, y: IntArray, R: Array, *, second: Array | None = None) -> AdditiveModel:
    """Fit the additive model to `X (n, k)` with labels `y (n,)` and attribute weights `R (n, K)`.

    `second` is `X.T @ X`, for callers that fit the same rows many times.

    Example:
        >>> import numpy as np
        >>> y = np.array([0, 0, 1, 1]); R = np.eye(2)[[0, 1, 0, 1]]
        >>> X = np.array([[0.0, 0.0], [0.0, 4.0], [2.0, 0.0], [2.0, 4.0]])
        >>> model = additive_model(X, y, R)
        >>> np.allclose(np.diff(model.alpha, axis=0), [2, 0], atol=0.01)
        True
        >>> np.allclose(np.diff(model.beta, axis=0), [0, 4], atol=0.01)
        True
    """
    n, K = R.shape
    weights = R.astype(X.dtype)
    labels = np.zeros((n, K), dtype=X.dtype)
    labels[np.arange(n), y] = 1.0
    cells = (labels.T @ weights).astype(np.float64)
    gram = np.block([[np.diag(cells.sum(axis=1)), cells], [cells.T, np.diag(cells.sum(axis=0))]])
    target = np.vstack([labels.T @ X, weights.T @ X]).astype(np.float64)
    # The ridge settles the constant that may move between alpha and beta, and attribute values that nobody has.
    coefficients = np.linalg.solve(gram + 1e-3 * np.eye(2 * K), target)
    cross = coefficients.T @ target
    second = (X.T @ X).astype(np.float64) if second is None else second
    scatter = second - cross - cross.T + coefficients.T @ gram @ coefficients
    alpha, beta = coefficients[:K], coefficients[K:]
    shift = beta.mean(axis=0)
    return AdditiveModel(alpha + shift, beta - shift, 0.5 * (scatter + scatter.T) / n, cells)


def model_given_offsets(X: Array, y: IntArray, R: Array, beta: Array) -> AdditiveModel:
    """The additive model with attribute offsets `beta (K, k)` that are known from elsewhere; the rest as it follows.

    Example:
        >>> import numpy as np
        >>> y = np.array([0, 0, 1, 1]); R = np.eye(2)[[0, 0, 1, 1]]
        >>> X = np.array([[0.0, 0.0], [0.0, 0.0], [2.0, 4.0], [2.0, 4.0]])
        >>> model = model_given_offsets(X, y, R, np.array([[0.0, -2.0], [0.0, 2.0]]))
        >>> np.diff(model.alpha, axis=0).tolist()
        [[2.0, 0.0]]
    """
    n, K = R.shape
    onehot = np.eye(K)[y]
    cells = onehot.T @ R
    counts = np.maximum(cells.sum(axis=1), 1e-12)
    means, shares = (onehot.T @ X) / counts[:, None], cells / counts[:, None]
    residual = X - means[y].astype(X.dtype)
    within = (residual.T @ residual).astype(np.float64) / n
    spread = np.diag(counts @ shares) - (shares * counts[:, None]).T @ shares
    return AdditiveModel(means - shares @ beta, beta, within - beta.T @ spread @ beta / n, cells)


def with_conflicting_covariance(
    model: AdditiveModel, X: Array, y: IntArray, R: Array, *, weight: float
) -> AdditiveModel:
    """The model with `weight` of its covariance from conflicting examples alone, around the split offsets.

    Where class and attribute interact, a cell lies beside the sum of its offsets. The aligned cells, nearly all of the
    data, are fitted by definition and do not show it; the conflicting ones do, and a head should allow for it.

    Args:
        model: Fitted to the same `X (n, k)`, `y (n,)` and `R (n, K)`.
        X: Reduced latents.
        y: Labels.
        R: Weights of the attribute values.
        weight: Of the conflicting examples' covariance, in `[0, 1]`.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0); y = rng.integers(0, 3, 3000)
        >>> a = np.where(rng.random(3000) < 0.9, y, rng.integers(0, 3, 3000)); R = np.eye(3)[a]
        >>> X = rng.normal(size=(3000, 2)); X[y != a, 0] *= 3.0  # conflicting examples vary more
        >>> model = with_conflicting_covariance(additive_model(X, y, R), X, y, R, weight=1.0)
        >>> bool(model.sigma[0, 0] > 7), bool(0.8 < model.sigma[1, 1] < 1.2)
        (True, True)
    """
    alpha, beta = split_by_signal(model)
    W = R.astype(X.dtype)
    W[np.arange(len(y)), y] = 0.0
    rows = np.flatnonzero(W.sum(axis=1) > 0.0)
    W = W[rows]
    residual = X[rows] - (model.alpha.mean(axis=0) + alpha)[y[rows]].astype(X.dtype)
    second = (residual.T @ (residual * W.sum(axis=1, keepdims=True))).astype(np.float64)
    cross = (W.T @ residual).astype(np.float64).T @ beta
    scatter = second - cross - cross.T + beta.T @ (W.sum(axis=0, dtype=np.float64)[:, None] * beta)
    total = max(float(W.sum(dtype=np.float64)), 1.0)
    return replace(model, sigma=(1.0 - weight) * model.sigma + weight * scatter / total)


def split_by_signal(model: AdditiveModel, *, window: int = WINDOW) -> tuple[Array, Array]:
    """Centred class offsets shrunk by signal-to-noise along the components, and the attribute's share of the rest.

    Each centred class offset has sampling variance `Sigma_jj (1/n_aligned + 1/n_conflicting) / 4 * (1 - 1/K)` in
    component `j`. The signal is the mean square over classes and neighbouring components, less that.

    Returns:
        `alpha (K, k)` and `beta (K, k)`, both mean zero, with `alpha + beta` as estimated.
    """
    alpha = model.alpha - model.alpha.mean(axis=0)
    K, k = alpha.shape
    aligned = np.diag(model.cells)
    conflicting = model.cells.sum(axis=1) - aligned
    counts = 0.25 * (1.0 / np.maximum(aligned, 1.0) + 1.0 / np.maximum(conflicting, 1.0)) * (1.0 - 1.0 / K)
    noise = np.diag(model.sigma) * float(np.mean(counts))
    half = min(window, max(k // 4, 1))
    padded = np.pad(np.mean(alpha**2, axis=0) - noise, half, mode="edge")
    signal = np.maximum(np.convolve(padded, np.full(2 * half + 1, 1.0 / (2 * half + 1)), mode="valid"), 0.0)
    kept = alpha * (signal / np.maximum(signal + noise, 1e-12))
    return kept, model.beta + (alpha - kept)


def additive_head(model: AdditiveModel, *, shrinkage: float, avoidance: float, split: bool = True) -> LinearHead:
    """The linear discriminant of the class, turned away from the attribute.

    Args:
        model: The fitted additive model.
        shrinkage: Of `Sigma` towards a multiple of the identity, in `[0, 1]`.
        avoidance: How often `beta beta' / K`, the covariance of an attribute independent of the class, is added to
            `Sigma`: 0 ignores the attribute, 1 is the discriminant of a balanced population, more turns away further.
        split: Whether the offsets are to be split by their signal; not where they are posterior means already.
    """
    alpha, beta = split_by_signal(model) if split else (model.alpha - model.alpha.mean(axis=0), model.beta)
    K, k = alpha.shape
    sigma = (1.0 - shrinkage) * model.sigma + (shrinkage * np.trace(model.sigma) / k + 1e-6) * np.eye(k)
    sigma = sigma + avoidance * beta.T @ beta / K
    weight = np.linalg.solve(sigma, alpha.T).T
    centre = model.alpha.mean(axis=0)
    return LinearHead(weight, -0.5 * np.sum(weight * alpha, axis=1) - weight @ centre)
