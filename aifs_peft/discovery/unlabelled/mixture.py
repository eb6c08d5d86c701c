"""EM for the additive mixture on labelled examples and a pool without labels, with the covariance held fixed.

`z | y, a ~ N(alpha_y + beta_a, I)` in whitened coordinates. Of a labelled example the class is known and the attribute
is not; of one in the pool neither is. The offsets are the same in both, the shares are not: the training set has one
rate of conflicts, the pool a free share of every cell. A free covariance lets a weak attribute drift to whatever style
varies most within the classes, so it stays as it was measured within the classes of the training set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, one_hot


@dataclass(frozen=True)
class PoolData:
    """The training set and the pool in the same whitened coordinates, centred at the mean of the class means.

    Args:
        X: Training set, shape `(n, k)`.
        y: Its labels in `0..K-1`, shape `(n,)`.
        U: Pool, shape `(m, k)`.
        means: Class means of the training set, shape `(K, k)`.
    """

    X: Array
    y: IntArray
    U: Array
    means: Array

    @property
    def n_classes(self) -> int:
        """`K`."""
        return len(self.means)


@dataclass(frozen=True)
class PoolModel:
    """Parameters of the mixture.

    Args:
        alpha: Class offsets, shape `(K, k)`.
        beta: Attribute offsets, mean zero, shape `(K, k)`.
        rate: Share of labelled examples that conflict.
        shares: Of the pool's cells (class, attribute), shape `(K, K)`, sum one.
        objective: Log posterior, without constants, of the parameters before the last step of EM.
    """

    alpha: Array
    beta: Array
    rate: float
    shares: Array
    objective: float = -np.inf

    @property
    def prior(self) -> Array:
        """Shares of the attribute values in each class of the training set, shape `(K, K)`."""
        return even_conflicts(len(self.alpha), self.rate)


def even_conflicts(n_classes: int, rate: float) -> Array:
    """Shares of the attribute values in each class where conflicts have one rate and are spread evenly.

    Args:
        n_classes: `K`.
        rate: Share of conflicting examples.

    Example:
        >>> even_conflicts(3, 0.1).round(3).tolist()
        [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]]
    """
    prior = np.full((n_classes, n_classes), rate / (n_classes - 1))
    np.fill_diagonal(prior, 1.0 - rate)
    return prior


def _posterior(logits: Array) -> tuple[Array, float]:
    """Row-wise probabilities and the sum of the log normalisers."""
    top = logits.max(axis=1, keepdims=True)
    p = np.exp(logits - top)
    total = p.sum(axis=1, keepdims=True)
    return p / total, float(top.sum() + np.log(total).sum())


def labelled_posterior(X: Array, y: IntArray, model: PoolModel) -> tuple[Array, float]:
    """Posterior of the attribute of labelled examples, and their log likelihood without constants.

    Args:
        X: Whitened, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        model: Parameters.

    Returns:
        Shape `(n, K)`, and the sum over the examples.

    Example:
        >>> model = PoolModel(np.zeros((2, 1)), np.array([[-2.0], [2.0]]), 0.1, np.full((2, 2), 0.25))
        >>> labelled_posterior(np.array([[-2.0], [2.0]]), np.array([0, 0]), model)[0].round(2).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    fixed = np.log(np.maximum(model.prior, 1e-12)) - 0.5 * np.sum(
        (model.alpha[:, None] + model.beta[None]) ** 2, axis=2
    )
    scores = (X @ model.beta.T.astype(X.dtype)).astype(np.float64) + fixed[y]
    R, total = _posterior(scores)
    return R, total + float(np.sum((one_hot(y, len(fixed), X.dtype).T @ X).astype(np.float64) * model.alpha))


def cell_logits(U: Array, model: PoolModel, shares: Array) -> Array:
    """Log densities of the pool's cells, without constants of the example.

    Args:
        U: Whitened, shape `(m, k)`.
        model: Offsets.
        shares: Of the cells, shape `(K, K)`.

    Returns:
        Shape `(m, K * K)`, cells in the order of class, then attribute.

    Example:
        >>> model = PoolModel(np.zeros((2, 1)), np.array([[-2.0], [2.0]]), 0.1, np.full((2, 2), 0.25))
        >>> cell_logits(np.array([[2.0]]), model, model.shares).argmax(axis=1).tolist()  # the second value
        [1]
    """
    centres = (model.alpha[:, None] + model.beta[None]).reshape(-1, U.shape[1])
    logits: Array = (U @ centres.T.astype(U.dtype)).astype(np.float64)
    return np.asarray(logits + np.log(np.maximum(shares.ravel(), 1e-12)) - 0.5 * np.sum(centres**2, axis=1))


def fit_pool_model(data: PoolData, start: PoolModel, *, steps: int, precision: float, pseudo: float) -> PoolModel:
    """Expectation maximisation from a start.

    Args:
        data: Training set and pool.
        start: Where to start.
        steps: Number of steps.
        precision: Of the normal prior on every offset.
        pseudo: Examples that every cell of the pool counts beside its own.

    Example:
        >>> rng = np.random.default_rng(0); y = np.arange(2000) % 2; a = np.where(np.arange(2000) < 100, 1 - y, y)
        >>> X = rng.normal(size=(2000, 2)) + 3 * np.stack([y - 0.5, a - 0.5], axis=1)
        >>> U = rng.normal(size=(400, 2)) + 3 * (rng.integers(0, 2, (400, 2)) - 0.5)
        >>> means = np.stack([X[y == c].mean(axis=0) for c in (0, 1)])
        >>> alpha, beta = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, -1.0], [0.0, 1.0]])
        >>> start = PoolModel(alpha, beta, 0.1, np.full((2, 2), 0.25))
        >>> fit = fit_pool_model(PoolData(X, y, U, means), start, steps=50, precision=0.0, pseudo=1.0)
        >>> round(fit.rate, 2), bool(np.abs(fit.beta - [[0, -1.5], [0, 1.5]]).max() < 0.2)
        (0.05, True)
    """
    model = start
    sums = one_hot(data.y, data.n_classes, data.X.dtype).T @ data.X
    for _ in range(steps):
        model = _step(data, model, sums, precision, pseudo)
    return model


def _step(data: PoolData, model: PoolModel, sums: Array, precision: float, pseudo: float) -> PoolModel:
    K = data.n_classes
    R, first = labelled_posterior(data.X, data.y, model)
    Q, second = _posterior(cell_logits(data.U, model, model.shares))
    cells = one_hot(data.y, K).T @ R
    pool_cells = Q.sum(axis=0).reshape(K, K)
    both = cells + pool_cells
    joint = Q.reshape(-1, K, K)
    of_class = sums + joint.sum(axis=2).T.astype(data.U.dtype) @ data.U
    of_value = R.T.astype(data.X.dtype) @ data.X + joint.sum(axis=1).T.astype(data.U.dtype) @ data.U
    gram = np.block([[np.diag(both.sum(axis=1)), both], [both.T, np.diag(both.sum(axis=0))]])
    # A little of a ridge settles the constant that may move between the two.
    gram += (precision + 1e-3) * np.eye(2 * K)
    offsets = np.linalg.solve(gram, np.vstack([of_class, of_value]).astype(np.float64))
    centre = offsets[K:].mean(axis=0)
    penalty = 0.5 * precision * float(np.sum(model.alpha**2) + np.sum(model.beta**2))
    return PoolModel(
        offsets[:K] + centre,
        offsets[K:] - centre,
        float(np.clip(1.0 - np.trace(cells) / len(data.y), 1e-4, (K - 1) / K)),
        (pool_cells + pseudo) / float(np.sum(pool_cells + pseudo)),
        first + second - penalty,
    )
