"""Where class and attribute may lie: starts from how the pool spreads beyond the training set, and EM from each.

With the within-class covariance of training as the unit, `Cov(pool) - Cov(training)` is, for an attribute that goes
with the label less in the pool, `-c (alpha beta' + beta alpha')` and a part along the class means. Its leading
eigenvectors beside the class means `g`, which are about `alpha + beta`, are about `alpha - beta`: together they span
the plane of class and attribute. Any other way in which the pool differs adds an eigenvector of its own, so several are
tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import ortho_group

from aifs_peft.discovery.arrays import Array, orthonormal_basis
from aifs_peft.discovery.config import GateThresholds, UnlabelledConfig
from aifs_peft.discovery.unlabelled.mixture import PoolData, PoolModel, fit_pool_model


@dataclass(frozen=True)
class Solution:
    """A local optimum of the mixture.

    Args:
        model: The parameters.
        exchanged: The optimum in which class and attribute are exchanged; `None` where that comes back to the same one.
        settled: Whether that is an optimum; where EM ran off to styles, it is the last plausible step on its way.
        data: What it was fitted on: the pool without the shift beside the plane of its start.
        axes: Directions of the pool's larger spread that it was started from, shape `(r, k)`.
    """

    model: PoolModel
    exchanged: PoolModel | None
    settled: bool
    data: PoolData
    axes: Array


def contrasts(model: PoolModel) -> tuple[float, float, float]:
    """Cosine of the centred offsets, and the root mean square distance between two classes and two attribute values.

    Example:
        >>> offsets = np.array([[-1.0, 0.0], [1.0, 0.0]])
        >>> contrasts(PoolModel(offsets, offsets[:, ::-1], 0.1, np.full((2, 2), 0.25)))
        (0.0, 2.0, 2.0)
    """
    alpha = model.alpha - model.alpha.mean(axis=0)
    aa, bb, ab = float(np.sum(alpha**2)), float(np.sum(model.beta**2)), float(np.sum(alpha * model.beta))
    each = 2.0 / (len(alpha) - 1.0)
    return ab / float(np.sqrt(max(aa * bb, 1e-24))), float(np.sqrt(each * aa)), float(np.sqrt(each * bb))


def plausible(model: PoolModel, gate: GateThresholds) -> bool:
    """Whether class and attribute both have a contrast, do not cancel each other and are not one and the same.

    Args:
        model: The fitted mixture.
        gate: Thresholds.

    Example:
        >>> offsets, shares = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.full((2, 2), 0.25)
        >>> plausible(PoolModel(offsets, offsets[:, ::-1], 0.1, shares), GateThresholds())
        True
        >>> plausible(PoolModel(offsets, -0.5 * offsets, 0.1, shares), GateThresholds())
        False
    """
    cosine, of_class, of_attribute = contrasts(model)
    least, most = gate.unlabelled_cosine
    return bool(least < cosine < most and min(of_class, of_attribute) > gate.unlabelled_contrast)


def precision_of(data: PoolData, config: UnlabelledConfig) -> float:
    """Precision of the prior on offsets: about as large, over all `k` coordinates, as the class means are apart.

    Args:
        data: Its class means and number of coordinates count.
        config: Weight of the prior.

    Example:
        >>> means = np.array([[-2.0, 0.0], [2.0, 0.0]])
        >>> data = PoolData(np.zeros((2, 2)), np.array([0, 1]), np.zeros((1, 2)), means)
        >>> precision_of(data, UnlabelledConfig(prior_weight=1.0))
        0.25
    """
    size = 2.0 / (data.n_classes - 1.0) * float(np.sum((data.means - data.means.mean(axis=0)) ** 2))
    return float(config.prior_weight * 2.0 * data.X.shape[1] / max(size, 1e-12))


def spread_axes(data: PoolData, k: int, most: int) -> Array:
    """Directions beside the class means along which the pool spreads farther than the training set, most first.

    Args:
        data: Training set and pool.
        k: Number of leading coordinates to look at.
        most: How many.

    Returns:
        Orthonormal rows, shape `(r, d)`, zero beyond the first `k` coordinates.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(1000, 3)); y = np.arange(1000) % 2; X[:, 0] += 2 * y - 1  # the classes
        >>> U = rng.normal(size=(400, 3)) * [1, 2, 1]  # wider along the second axis
        >>> data = PoolData(X, y, U, np.array([[-1.0, 0, 0], [1, 0, 0]]))
        >>> spread_axes(data, 3, 1).round(1).__abs__().tolist()
        [[0.0, 1.0, 0.0]]
    """
    X, U = data.X[:, :k].astype(np.float64), data.U[:, :k].astype(np.float64)
    difference = np.atleast_2d(np.cov(U.T) - np.cov(X.T))
    means = orthonormal_basis((data.means - data.means.mean(axis=0))[:, :k], data.n_classes - 1)
    beside = np.eye(k) - means @ means.T
    _, vectors = np.linalg.eigh(beside @ difference @ beside)
    vectors = vectors[:, ::-1]
    # The class means themselves are eigenvectors of value zero.
    vectors = vectors[:, np.linalg.norm(vectors.T @ means, axis=1) < 0.5][:, :most]
    axes = np.zeros((vectors.shape[1], data.X.shape[1]))
    axes[:, :k] = vectors.T
    return axes


def _without_shift(data: PoolData, axes: Array) -> PoolData:
    """The same with the pool's mean moved to that of the training set beside the class means and `axes`.

    What the mixture explains moves the mean in their span only.

    Args:
        data: Training set and pool.
        axes: Orthonormal directions beside the class means, shape `(r, k)`.
    """
    spanned = orthonormal_basis(np.vstack([data.means - data.means.mean(axis=0), axes]), 2 * (data.n_classes - 1))
    shift = data.U.mean(axis=0, dtype=np.float64) - data.X.mean(axis=0, dtype=np.float64)
    shift -= spanned @ (spanned.T @ shift)
    return replace(data, U=(data.U - shift).astype(data.U.dtype))


def _starts(data: PoolData, axes: Array, *, rng: np.random.Generator, config: UnlabelledConfig) -> list[PoolModel]:
    """Offsets whose sum is the class means and whose difference lies along `axes`.

    With two classes the axis has two signs. With more, the classes may lie in its span in any rotation.

    Args:
        data: Training set and pool.
        axes: Orthonormal directions beside the class means, shape `(K - 1, k)`.
        rng: Source of the rotations.
        config: Shares of the class means that the attribute takes, and sizes of the difference.
    """
    K, means = data.n_classes, data.means - data.means.mean(axis=0)
    corners = np.linalg.svd(np.eye(K) - 1.0 / K)[0][:, : K - 1] / np.sqrt(2.0)
    turns = [np.eye(1), -np.eye(1)]
    if K > 2:
        turns = list(ortho_group.rvs(K - 1, size=config.rotations, random_state=int(rng.integers(2**31))))
    shares = np.full((K, K), 1.0 / K**2)
    out = []
    for turn in turns:
        corner = corners @ turn[:, : len(axes)] @ axes
        for part in config.parts:
            for size in config.sizes:
                out.append(PoolModel((1 - part) * means + size * corner, part * means - size * corner, 0.1, shares))
    return out


def solve(
    data: PoolData, axes: Array, *, rng: np.random.Generator, config: UnlabelledConfig, gate: GateThresholds
) -> Solution | None:
    """The best plausible optimum from the starts along `axes`, or `None`.

    Args:
        data: Training set and pool.
        axes: Orthonormal directions beside the class means.
        rng: Source of rotations.
        config: Starts, steps and prior.
        gate: What is plausible.

    Example:
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2; a = np.where(rng.random(4000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(4000, 4)); X[:, 0] += 2 * y - 1; X[:, 1] += 3 * a - 1.5
        >>> U = rng.normal(size=(400, 4)) + [2, 3, 0, 0] * (rng.integers(0, 2, (400, 4)) - 0.5)
        >>> data = PoolData(X, y, U, np.stack([X[y == c].mean(axis=0) for c in (0, 1)]))
        >>> found = solve(data, np.eye(4)[1:2], rng=rng, config=UnlabelledConfig(), gate=GateThresholds())
        >>> 0.02 < found.model.rate < 0.08
        True
    """
    data = _without_shift(data, axes)
    precision = precision_of(data, config)

    def fit(start: PoolModel, steps: int) -> PoolModel:
        return fit_pool_model(data, start, steps=steps, precision=precision, pseudo=config.pseudo)

    tried = [fit(start, config.first_steps) for start in _starts(data, axes, rng=rng, config=config)]
    tried = sorted((model for model in tried if plausible(model, gate)), key=lambda model: -model.objective)
    # Some run off to styles later: the first that does not is taken.
    finals = (fit(model, config.steps) for model in tried)
    best = next((model for model in finals if plausible(model, gate)), None)
    if best is None:
        return None
    other, settled = climb(
        data, exchanged(best, config.exchanged_rate), config.steps, precision=precision, config=config, gate=gate
    )
    if settled and other.objective > best.objective:
        best, other = other, best
    same = cosine(best.beta, other.beta) > config.same
    return Solution(best, None if same else other, settled, data, axes)


def climb(
    data: PoolData,
    start: PoolModel,
    steps: int,
    *,
    precision: float,
    config: UnlabelledConfig,
    gate: GateThresholds,
) -> tuple[PoolModel, bool]:
    """EM that ends where it leaves what is plausible: with styles in the data a higher optimum often lies there.

    Args:
        data: Training set and pool.
        start: Where to start.
        steps: Most steps.
        precision: Of the normal prior on every offset.
        config: Steps between two looks.
        gate: What is plausible.

    Returns:
        The last plausible model, and whether all steps were made.

    Example:
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2
        >>> X = rng.normal(size=(4000, 4)); X[:, 0] += 2 * y - 1
        >>> X[rng.random(4000) < 0.02, 1] *= 9  # far out along one direction, which two cells are taken for
        >>> data = PoolData(X, y, X[:400], np.stack([X[y == c].mean(axis=0) for c in (0, 1)]))
        >>> beside = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0]])
        >>> start = PoolModel(0.5 * data.means + beside, 0.5 * data.means - beside, 0.1, np.full((2, 2), 0.25))
        >>> climb(data, start, 60, precision=1.0, config=UnlabelledConfig(), gate=GateThresholds())[1]
        False
    """
    done = 0
    while done < steps:
        block = min(config.first_steps, steps - done)
        further = fit_pool_model(data, start, steps=block, precision=precision, pseudo=config.pseudo)
        if not plausible(further, gate):
            return start, False
        start, done = further, done + block
    return start, True


def exchanged(model: PoolModel, rate: float) -> PoolModel:
    """Class and attribute exchanged: what the pool alone cannot tell apart.

    Args:
        model: The mixture.
        rate: Share of conflicting labelled examples to start from.

    Example:
        >>> model = PoolModel(np.array([[-2.0], [2.0]]), np.array([[-1.0], [1.0]]), 0.05, np.full((2, 2), 0.25))
        >>> exchanged(model, 0.02).beta.tolist()
        [[-2.0], [2.0]]
    """
    centre = model.alpha.mean(axis=0)
    return PoolModel(centre + model.beta, model.alpha - centre, rate, model.shares.T)


def cosine(first: Array, second: Array) -> float:
    """Of two arrays of offsets, as vectors; 0 where one is zero.

    Args:
        first: Any shape.
        second: The same shape.

    Example:
        >>> cosine(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]))
        1.0
    """
    return float(np.sum(first * second) / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-24))


def candidates(
    data: PoolData, *, rng: np.random.Generator, config: UnlabelledConfig, gate: GateThresholds
) -> list[Solution]:
    """Plausible solutions, one for each axis (with more than two classes, one in all), best first.

    Args:
        data: Training set and pool.
        rng: Source of rotations.
        config: How many axes.
        gate: What is plausible.

    Example:
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2; a = np.where(rng.random(4000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(4000, 4)); X[:, 0] += 2 * y - 1; X[:, 1] += 3 * a - 1.5
        >>> U = rng.normal(size=(400, 4)) + [2, 3, 0, 0] * (rng.integers(0, 2, (400, 4)) - 0.5)
        >>> data = PoolData(X, y, U, np.stack([X[y == c].mean(axis=0) for c in (0, 1)]))
        >>> found = candidates(data, rng=rng, config=UnlabelledConfig(), gate=GateThresholds())
        >>> 0.02 < found[0].model.rate < 0.08
        True
    """
    found: list[Solution] = []
    for axes in axis_sets(data, config):
        solution = solve(data, axes, rng=rng, config=config, gate=gate)
        if solution is None:
            continue
        if all(cosine(solution.model.beta, other.model.beta) < config.same for other in found):
            found.append(solution)
    # Pools that were shifted differently differ in a part of the density that the objective leaves out.
    return sorted(found, key=lambda one: 0.5 * float(np.sum(one.data.U.astype(np.float64) ** 2)) - one.model.objective)


def axis_sets(data: PoolData, config: UnlabelledConfig) -> list[Array]:
    """What starts are made along: each of the leading axes alone, or with more than two classes the leading `K - 1`.

    Args:
        data: Training set and pool.
        config: How many.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(1000, 3)); y = np.arange(1000) % 2; X[:, 0] += 2 * y - 1  # the classes
        >>> U = rng.normal(size=(400, 3)) * [1, 2, 1]  # wider along the second axis
        >>> data = PoolData(X, y, U, np.array([[-1.0, 0, 0], [1, 0, 0]]))
        >>> [axes.shape for axes in axis_sets(data, UnlabelledConfig(axes=2))]
        [(1, 3), (1, 3)]
    """
    k = min(config.axis_components, data.X.shape[1])
    if data.n_classes == 2:
        return list(spread_axes(data, k, config.axes)[:, None])
    return [spread_axes(data, k, data.n_classes - 1)]
