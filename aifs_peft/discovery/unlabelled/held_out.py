"""Held-out unlabelled examples: does an attribute beside the class tell them better than the classes alone?

Everything is judged in the plane of class and attribute, where the rest of the latents is the same for both. The rival
is strong on purpose: the training set's classes, with shares of their own, moved by any shift and with any covariance.
A pool that is only shifted, scaled or drawn with other class shares is told by it as well or better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp, softmax

from aifs_peft.discovery.arrays import Array, orthonormal_basis, random_folds
from aifs_peft.discovery.config import GateThresholds, UnlabelledConfig
from aifs_peft.discovery.unlabelled.mixture import PoolData, PoolModel, cell_logits
from aifs_peft.discovery.unlabelled.search import Solution, axis_sets, cosine, solve


@dataclass(frozen=True)
class HeldOut:
    """What the folds say.

    Args:
        gain: Mean log likelihood over that of the classes alone, in standard errors.
        agreement: Mean cosine of the attribute found without a fold with that found with all, 0 where none was found.
            Which of two offsets a fold calls the attribute does not count: that is told with all examples.
    """

    gain: float
    agreement: float


def held_out(
    solution: Solution, data: PoolData, *, rng: np.random.Generator, config: UnlabelledConfig, gate: GateThresholds
) -> HeldOut:
    """Search again without each fold of the pool, and judge what is found on that fold.

    Args:
        solution: Found with the whole pool.
        data: Training set and whole pool, as it is.
        rng: Source of folds and rotations.
        config: Number of folds and of steps.
        gate: What is plausible.

    Example:
        >>> from aifs_peft.discovery.unlabelled.search import candidates
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2; a = np.where(rng.random(4000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(4000, 4)); X[:, 0] += 2 * y - 1; X[:, 1] += 3 * a - 1.5
        >>> U = rng.normal(size=(400, 4)) + [2, 3, 0, 0] * (rng.integers(0, 2, (400, 4)) - 0.5)
        >>> data = PoolData(X, y, U, np.stack([X[y == c].mean(axis=0) for c in (0, 1)]))
        >>> config = UnlabelledConfig()
        >>> found = candidates(data, rng=rng, config=config, gate=GateThresholds())[0]
        >>> held_out(found, data, rng=rng, config=config, gate=GateThresholds()).agreement > 0.95
        True
    """
    fold = random_folds(len(data.U), config.folds, rng)
    gains: list[Array] = []
    cosines: list[float] = []
    for j in range(config.folds):
        part = replace(data, U=data.U[fold != j])
        axes = max(axis_sets(part, config), key=lambda axes: float(np.linalg.norm(axes @ solution.axes.T)))
        found = solve(part, axes, rng=rng, config=config, gate=gate)
        if found is None:
            gains.append(np.zeros(int(np.sum(fold == j))))
            cosines.append(0.0)
            continue
        # The shift is that of the other folds.
        shift = (part.U[0] - found.data.U[0]).astype(np.float64)
        gains.append(_gain(found, data.U[fold == j] - shift.astype(data.U.dtype), config.plane_steps))
        orders = (found.model,) if found.exchanged is None else (found.model, found.exchanged)
        cosines.append(max(cosine(model.beta, solution.model.beta) for model in orders))
    each = np.concatenate(gains)
    error = float(each.std(ddof=1)) / np.sqrt(len(each))
    return HeldOut(float(each.mean()) / max(error, 1e-12), float(np.mean(cosines)))


def _gain(found: Solution, U: Array, steps: int) -> Array:
    """Log likelihood of each held-out example above that of the classes alone, shape `(m,)`."""
    model = found.model
    offsets = np.vstack([model.alpha - model.alpha.mean(axis=0), model.beta])
    plane = orthonormal_basis(offsets, 2 * (len(model.beta) - 1))
    fit, test = (part.astype(np.float64) @ plane for part in (found.data.U, U))
    inside = replace(model, alpha=model.alpha @ plane, beta=model.beta @ plane)
    shares = _cell_shares(fit, inside, steps)
    own = logsumexp(cell_logits(test, inside, shares), axis=1) - 0.5 * np.sum(test**2, axis=1)
    rival = ShiftedClasses.fit(fit, found.data.means @ plane, steps=steps)
    return np.asarray(own - logsumexp(rival.logits(test), axis=1))


def _cell_shares(U: Array, model: PoolModel, steps: int) -> Array:
    """Shares of the cells by EM with everything else held, shape `(K, K)`."""
    shares = np.full(model.shares.shape, 1.0 / model.shares.size)
    for _ in range(steps):
        counts = softmax(cell_logits(U, model, shares), axis=1).sum(axis=0).reshape(shares.shape) + 1.0
        shares = counts / counts.sum()
    return shares


@dataclass(frozen=True)
class ShiftedClasses:
    """The training set's classes, each with a share of its own, with one shift and one covariance.

    Args:
        centres: Shape `(K, r)`.
        covariance: Shape `(r, r)`.
        shares: Shape `(K,)`.
    """

    centres: Array
    covariance: Array
    shares: Array

    @staticmethod
    def fit(U: Array, means: Array, *, steps: int) -> ShiftedClasses:
        """By EM.

        Args:
            U: Unlabelled examples, shape `(m, r)`.
            means: Class means of the training set, shape `(K, r)`.
            steps: Number of steps.
        """
        (m, r), K = U.shape, len(means)
        model = ShiftedClasses(means + U.mean(axis=0) - means.mean(axis=0), np.eye(r), np.full(K, 1.0 / K))
        for _ in range(steps):
            R = softmax(model.logits(U), axis=1)
            centres = means + (U - R @ means).mean(axis=0)
            second = sum(((U - centre) * w[:, None]).T @ (U - centre) for centre, w in zip(centres, R.T, strict=True))
            shares = (R.sum(axis=0) + 1.0) / (m + K)
            model = ShiftedClasses(centres, np.asarray(second) / m + 1e-3 * np.eye(r), shares)
        return model

    def logits(self, U: Array) -> Array:
        """Log density of each class, shape `(m, K)`, without the constant of the dimension."""
        factor = cholesky(self.covariance, lower=True)
        logs = [
            np.log(share) - 0.5 * np.sum(solve_triangular(factor, (U - centre).T, lower=True) ** 2, axis=0)
            for share, centre in zip(self.shares, self.centres, strict=True)
        ]
        return np.stack(logs, axis=1) - float(np.sum(np.log(np.diag(factor))))
