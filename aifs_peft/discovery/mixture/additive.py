"""The additive model for a given partition: offsets of class and attributes, and how they share what they explain.

In `z | y, a ~ N(alpha_y + beta_a, Sigma)` the aligned examples, nearly all of the data, show only the sum
`alpha_y + beta_y`. How it splits rests on the few conflicting examples, and their noise in many dimensions is what
makes reweighting fail when conflicts are rare. Empirical Bayes helps (Efron and Morris, 1973): along the principal
components the class offsets are shrunk by their estimated signal-to-noise ratio, and what is taken from the class is
given to the attribute, since the sum is well known.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, one_hot, row_chunks
from aifs_peft.discovery.config import DEFAULT_CONFIG, MixtureConfig
from aifs_peft.discovery.mixture.joint import joint_offsets, joint_responsibilities
from aifs_peft.discovery.reduced import ReducedLatents


@dataclass(frozen=True)
class AdditiveModel:
    """Offsets and covariance of the additive model for given responsibilities.

    Args:
        alpha: Class offsets, shape `(K, k)`; their mean is the data's balanced centre.
        beta: Attribute offsets, mean zero, shape `(K, k)`; of `m` attributes below each other, `(m * K, k)`.
        sigma: Covariance within cells, shape `(k, k)`, not shrunk.
        noise: Sampling variance of a centred class offset in units of `sigma`, mean over the classes.
        shares: What part of a class offset's sampling error each attribute's offset carries with the opposite sign,
            shape `(m,)`, sum one.
    """

    alpha: Array
    beta: Array
    sigma: Array
    noise: float
    shares: Array


@dataclass(frozen=True)
class AdditiveMoments:
    """All that the additive model needs of the examples: sums over them, which blocks of rows give one after the other.

    Args:
        count: Number of examples, or sum of their weights.
        cells: Weight of each label and attribute value, shape `(K, m * K)`.
        between: Weight of each two attribute values, shape `(m * K, m * K)`.
        target: Sums of the latents per class and per attribute value, shape `(K + m * K, k)`.
        second: Uncentred second moment, shape `(k, k)`.
        parts: Weight of the aligned and of the conflicting examples of each class, per attribute, shape `(2, K, m)`.
        signs: Products of the signs that tell aligned (1) from conflicting (-1), summed per class, `(K, m, m)`.
    """

    count: float
    cells: Array
    between: Array
    target: Array
    second: Array
    parts: Array
    signs: Array

    @staticmethod
    def of(
        X: Array, y: IntArray, R: Array, *, second: Array | None = None, weights: Array | None = None
    ) -> AdditiveMoments:
        """Moments of one block of rows.

        Args:
            X: Reduced latents, shape `(n, k)`.
            y: Labels in `0..K-1`, shape `(n,)`.
            R: Weights of the attribute values, shape `(n, K)` or `(n, m, K)`.
            second: `X.T @ X` of the weighted rows, where it is known.
            weights: Of the examples, shape `(n,)`: everything is there so many times. All one if `None`.

        Example:
            >>> AdditiveMoments.of(np.array([[1.0], [5.0]]), np.array([0, 1]), np.eye(2)).target.tolist()
            [[1.0], [5.0], [1.0], [5.0]]
        """
        n, K = len(y), R.shape[-1]
        values = R.reshape(n, -1).astype(X.dtype)
        labels = one_hot(y, K, X.dtype)
        w = None if weights is None else weights[:, None].astype(X.dtype)
        labels_w, values_w, X_w = (labels, values, X) if w is None else (labels * w, values * w, X * w)
        cells = (labels_w.T @ values).astype(np.float64)
        between = (values_w.T @ values).astype(np.float64)
        for start in range(0, values.shape[1], K):
            # An example has one value of each attribute: its expected indicators are uncorrelated.
            own = slice(start, start + K)
            between[own, own] = np.diag(cells[:, own].sum(axis=0))
        return AdditiveMoments(
            float(n) if weights is None else float(weights.sum()),
            cells,
            between,
            np.vstack([labels_w.T @ X, values_w.T @ X]).astype(np.float64),
            (X_w.T @ X).astype(np.float64) if second is None else second,
            *_signs(y, R, None if w is None else w[:, 0]),
        )

    def __add__(self, other: AdditiveMoments) -> AdditiveMoments:
        """Moments of the rows of both."""
        return AdditiveMoments(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: AdditiveMoments) -> AdditiveMoments:
        """Moments of the rows of this that are not those of the other."""
        return AdditiveMoments(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def fit(self) -> AdditiveModel:
        """The additive model by least squares."""
        K, columns, k = len(self.cells), self.cells.shape[1], self.target.shape[1]
        cells, target, n = self.cells, self.target, self.count
        gram = np.block([[np.diag(cells[:, :K].sum(axis=1)), cells], [cells.T, self.between]])
        # The ridge settles the constants that may move between alpha and beta, and attribute values that nobody has.
        coefficients = np.linalg.solve(gram + 1e-3 * np.eye(K + columns), target)
        cross = coefficients.T @ target
        scatter = self.second - cross - cross.T + coefficients.T @ gram @ coefficients
        alpha, beta = coefficients[:K], coefficients[K:].reshape(-1, K, k)
        shift = beta.mean(axis=1)
        beta = (beta - shift[:, None]).reshape(columns, -1)
        error = _sampling_error(self.parts, self.signs)
        return AdditiveModel(alpha + shift.sum(axis=0), beta, 0.5 * (scatter + scatter.T) / n, *error)


def smoothed_offsets(
    X: ReducedLatents, y: IntArray, R: Array, *, config: MixtureConfig = DEFAULT_CONFIG.mixture
) -> tuple[Array, Array]:
    """Class and attribute offsets, both mean zero, split by `split_by_signal`.

    What counterfactuals are made with: least squares leaves in `beta` the noise of the few conflicting examples in
    every component, and a head that is taught to ignore `beta` then ignores the wrong direction.

    Args:
        X: Principal coordinates of unit variance, by falling variance, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Weights of the attribute values, shape `(n, K)`; of `m` attributes `(n, m, K)`.
        config: See `split_by_signal`.

    Returns:
        `alpha (K, k)` and `beta (K, k)`, of `m` attributes `(m * K, k)`.

    Example:
        >>> y = np.array([0, 0, 1, 1]); R = np.eye(2)[[0, 1, 0, 1]]
        >>> X = np.array([[0.0, 0.0], [0.0, 4.0], [2.0, 0.0], [2.0, 4.0]])
        >>> alpha, beta = smoothed_offsets(X, y, R)
        >>> np.abs(np.diff(beta, axis=0)).round().tolist()
        [[0.0, 4.0]]
    """
    return split_by_signal(additive_model(X, y, R), config=config)


def additive_model(
    X: ReducedLatents, y: IntArray, R: Array, *, second: Array | None = None, weights: Array | None = None
) -> AdditiveModel:
    """Fit the additive model by least squares, in blocks of rows.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Weights of the attribute values, shape `(n, K)`; of `m` attributes `(n, m, K)`.
        second: `X.T @ X`, for callers that fit the same rows many times (of the weighted rows, where they are).
        weights: Of the examples, shape `(n,)`, above 0; only their ratios count. All one if `None`.

    Example:
        >>> y = np.array([0, 0, 1, 1]); R = np.eye(2)[[0, 1, 0, 1]]
        >>> X = np.array([[0.0, 0.0], [0.0, 4.0], [2.0, 0.0], [2.0, 4.0]])
        >>> model = additive_model(X, y, R)
        >>> np.allclose(np.diff(model.alpha, axis=0), [2, 0], atol=0.01)
        True
        >>> np.allclose(np.diff(model.beta, axis=0), [0, 4], atol=0.01)
        True
    """
    n = len(y)
    # Of an example that weighs `w`, everything that is summed over examples is there `w` times.
    w = None if weights is None else weights * (n / weights.sum())
    total: AdditiveMoments | None = None
    for part in row_chunks(n):
        known = None if second is None else (second if total is None else np.zeros_like(second))
        own = AdditiveMoments.of(X[part], y[part], R[part], second=known, weights=None if w is None else w[part])
        total = own if total is None else total + own
    assert total is not None  # noqa: S101 - there is at least one row
    return total.fit()


def _signs(y: IntArray, R: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """`parts` and `signs` of `AdditiveMoments`."""
    n, K = len(y), R.shape[-1]
    R = R.reshape(n, -1, K)
    signs = 2.0 * R[np.arange(n), :, y].astype(np.float64) - 1.0
    m = signs.shape[1]
    parts, products = np.zeros((2, K, m)), np.zeros((K, m, m))
    for c in range(K):
        rows = signs[y == c]
        w = np.ones((len(rows), 1)) if weights is None else weights[y == c, None].astype(np.float64)
        parts[0, c] = (0.5 * (1.0 + rows) * w).sum(axis=0)
        parts[1, c] = (0.5 * (1.0 - rows) * w).sum(axis=0)
        products[c] = (rows * w).T @ rows
    return parts, products


def _sampling_error(parts: Array, signs: Array) -> tuple[float, Array]:
    """`noise` and `shares` of `AdditiveModel`.

    Within a class the class offset is the intercept of a regression on the signs that tell aligned (1) from conflicting
    (-1). For one attribute its variance is `(1 / n_aligned + 1 / n_conflicting) / 4`; centring over the classes takes
    one part in `K`.
    """
    _, K, m = parts.shape
    parts = np.maximum(parts, 1.0)
    both, apart = parts[0] + parts[1], parts[0] - parts[1]
    grams = np.empty((K, m + 1, m + 1))
    grams[:, 1:, 1:] = signs
    grams[:, 0, 1:] = grams[:, 1:, 0] = apart
    grams[:, 0, 0] = both.mean(axis=1)
    inner = np.arange(1, m + 1)
    grams[:, inner, inner] = both
    # All classes in one call: they are tiny, and this is done in every round of every start.
    inverse = (np.linalg.pinv(grams, hermitian=True) / K).sum(axis=0)
    carried = np.maximum(-inverse[0, 1:], 0.0)
    total = float(carried.sum())
    shares = carried / total if total > 0.0 else np.full(m, 1.0 / m)
    return float(inverse[0, 0]) * (1.0 - 1.0 / K), shares


def model_given_offsets(X: Array, y: IntArray, R: Array, beta: Array, *, weights: Array | None = None) -> AdditiveModel:
    """The additive model with attribute offsets that are known from elsewhere; the rest as it follows.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Weights of the attribute values, shape `(n, K)`.
        beta: Attribute offsets, mean zero, shape `(K, k)`.
        weights: Of the examples, see `additive_model`.

    Example:
        >>> y = np.array([0, 0, 1, 1]); R = np.eye(2)[[0, 0, 1, 1]]
        >>> X = np.array([[0.0, 0.0], [0.0, 0.0], [2.0, 4.0], [2.0, 4.0]])
        >>> model = model_given_offsets(X, y, R, np.array([[0.0, -2.0], [0.0, 2.0]]))
        >>> np.diff(model.alpha, axis=0).tolist()
        [[2.0, 0.0]]
    """
    n, K = R.shape
    w = np.ones((n, 1)) if weights is None else (weights * (n / weights.sum()))[:, None]
    onehot = one_hot(y, K) * w
    cells = onehot.T @ R
    counts = np.maximum(cells.sum(axis=1), 1e-12)
    means, shares = (onehot.T @ X) / counts[:, None], cells / counts[:, None]
    residual = X - means[y].astype(X.dtype)
    within = ((residual * w.astype(X.dtype)).T @ residual).astype(np.float64) / n
    spread = np.diag(counts @ shares) - (shares * counts[:, None]).T @ shares
    return AdditiveModel(
        means - shares @ beta, beta, within - beta.T @ spread @ beta / n, *_sampling_error(*_signs(y, R, w[:, 0]))
    )


def with_conflicting_covariance(
    model: AdditiveModel,
    X: ReducedLatents,
    y: IntArray,
    R: Array,
    *,
    weight: float,
    config: MixtureConfig,
    weights: Array | None = None,
) -> AdditiveModel:
    """The model with `weight` of its covariance from conflicting examples alone, around the split offsets.

    Where class and attribute interact, a cell lies beside the sum of its offsets. The aligned cells, nearly all of the
    data, are fitted by definition and do not show it; the conflicting ones do, and a head should allow for it.

    Args:
        model: Fitted to the same `X (n, k)`, `y (n,)` and `R (n, K)`.
        X: Reduced latents.
        y: Labels.
        R: Weights of the attribute values; of `m` attributes `(n, m, K)`.
        weight: Of the conflicting examples' covariance, in `[0, 1]`.
        config: See `split_by_signal`.
        weights: Of the examples, see `additive_model`.

    Example:
        >>> rng = np.random.default_rng(0); y = rng.integers(0, 3, 3000)
        >>> a = np.where(rng.random(3000) < 0.9, y, rng.integers(0, 3, 3000)); R = np.eye(3)[a]
        >>> X = rng.normal(size=(3000, 2)); X[y != a, 0] *= 3.0  # conflicting examples vary more
        >>> model = additive_model(X, y, R)
        >>> model = with_conflicting_covariance(model, X, y, R, weight=1.0, config=MixtureConfig())
        >>> bool(model.sigma[0, 0] > 7), bool(0.8 < model.sigma[1, 1] < 1.2)
        (True, True)
    """
    alpha, beta = split_by_signal(model, config=config)
    K, k = R.shape[-1], alpha.shape[1]
    centres, beta = model.alpha.mean(axis=0) + alpha, joint_offsets(beta.reshape(-1, K, k))
    own = None if weights is None else weights * (len(y) / weights.sum())
    second, crossed, weight_of = np.zeros((k, k)), np.zeros((len(beta), k)), np.zeros(len(beta))
    for part in row_chunks(len(y)):
        labels, block = y[part], X[part]
        W = joint_responsibilities(list(R[part].reshape(len(labels), -1, K).transpose(1, 0, 2).astype(block.dtype)))
        W[np.arange(len(labels)), labels] = 0.0
        if own is not None:
            W *= own[part, None].astype(W.dtype)
        rows = np.flatnonzero(W.sum(axis=1) > 0.0)
        W = W[rows]
        residual = block[rows] - centres[labels[rows]].astype(block.dtype)
        second += residual.T @ (residual * W.sum(axis=1, keepdims=True))
        crossed += W.T @ residual
        weight_of += W.sum(axis=0, dtype=np.float64)
    cross = crossed.T @ beta
    scatter = second - cross - cross.T + beta.T @ (weight_of[:, None] * beta)
    total = max(float(weight_of.sum()), 1.0)
    return replace(model, sigma=(1.0 - weight) * model.sigma + weight * scatter / total)


def split_by_signal(model: AdditiveModel, *, config: MixtureConfig) -> tuple[Array, Array]:
    """Centred class offsets shrunk by signal-to-noise along the components, and the attributes' share of the rest.

    Each centred class offset has sampling variance `Sigma_jj * noise` in component `j`. The signal is the mean square
    over classes and neighbouring components, less that.

    Args:
        model: The fitted model.
        config: Its `window` is how many neighbours on each side count.

    Returns:
        `alpha (K, k)` and `beta` as in the model, mean zero, with `alpha` plus the attributes' offsets as estimated.

    Example:
        >>> alpha, beta, sigma = np.array([[-1.0, 0.1], [1.0, -0.1]]), np.zeros((2, 2)), np.diag([0.1, 0.1])
        >>> kept, given = split_by_signal(AdditiveModel(alpha, beta, sigma, 0.5, np.ones(1)), config=MixtureConfig())
        >>> np.allclose(kept + given, alpha), bool(abs(kept[0, 1]) < 0.1)
        (True, True)
    """
    alpha = model.alpha - model.alpha.mean(axis=0)
    k = alpha.shape[1]
    noise = np.diag(model.sigma) * model.noise
    half = min(config.window, max(k // 4, 1))
    padded = np.pad(np.mean(alpha**2, axis=0) - noise, half, mode="edge")
    signal = np.maximum(np.convolve(padded, np.full(2 * half + 1, 1.0 / (2 * half + 1)), mode="valid"), 0.0)
    kept = alpha * (signal / np.maximum(signal + noise, 1e-12))
    return kept, model.beta + np.kron(model.shares[:, None], alpha - kept)
