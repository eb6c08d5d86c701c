"""The last refinement: the covariance within cells, and which of the two offsets is the class.

The covariance within the classes holds the attribute's own spread, which makes its contrast look smaller, and the
conflicting examples fewer, than they are. And the pool alone cannot tell class from attribute: what tells them apart is
where the labelled examples that conflict lie, which shows in these coordinates better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aifs_peft.discovery.arrays import Array
from aifs_peft.discovery.config import GateThresholds, UnlabelledConfig
from aifs_peft.discovery.unlabelled.mixture import PoolData, PoolModel
from aifs_peft.discovery.unlabelled.search import Solution, climb, precision_of


@dataclass(frozen=True)
class CellModel:
    """The mixture in coordinates whose unit is the covariance within cells.

    Args:
        model: The mixture there.
        turn: The old coordinates times this matrix `(k, k)` are the new ones.
        log_posterior: Of labelled and unlabelled examples in the old coordinates, without constants.
        settled: Whether EM stayed within what is plausible.
    """

    model: PoolModel
    turn: Array
    log_posterior: float
    settled: bool


def within_cells(model: PoolModel, data: PoolData, config: UnlabelledConfig, gate: GateThresholds) -> CellModel:
    """Refit a mixture where the covariance within cells is the unit.

    Args:
        model: In coordinates whose unit is the covariance within classes.
        data: What it was fitted on.
        config: Prior and steps.
        gate: What is plausible; the refit ends when it leaves that.

    Example:
        >>> from aifs_peft.discovery.config import GateThresholds
        >>> from aifs_peft.discovery.unlabelled.search import candidates
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2; a = np.where(rng.random(4000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(4000, 4)); X[:, 0] += 2 * y - 1; X[:, 1] += 3 * a - 1.5
        >>> U = rng.normal(size=(400, 4)) + [2, 3, 0, 0] * (rng.integers(0, 2, (400, 4)) - 0.5)
        >>> data = PoolData(X, y, U, np.stack([X[y == c].mean(axis=0) for c in (0, 1)]))
        >>> config = UnlabelledConfig()
        >>> found = candidates(data, rng=rng, config=config, gate=GateThresholds())[0]
        >>> cells = within_cells(found.model, found.data, config, GateThresholds())
        >>> cells.model.rate > found.model.rate, cells.turn.shape
        (True, (4, 4))
    """
    share = np.bincount(data.y, minlength=data.n_classes) / len(data.y)
    prior = model.prior
    spread = np.diag(share @ prior) - (prior * share[:, None]).T @ prior
    values, vectors = np.linalg.eigh(np.eye(model.beta.shape[1]) - model.beta.T @ spread @ model.beta)
    values = np.maximum(values, config.min_variance)
    turn = (vectors / np.sqrt(values)) @ vectors.T
    X, U = ((part @ turn).astype(np.float32) for part in (data.X, data.U))
    moved = PoolData(X, data.y, U, data.means @ turn)
    start = PoolModel(model.alpha @ turn, model.beta @ turn, model.rate, model.shares)
    precision = precision_of(data, config)
    fit, settled = climb(moved, start, config.last_steps, precision=precision, config=config, gate=gate)
    squares = float(np.sum(X.astype(np.float64) ** 2) + np.sum(U.astype(np.float64) ** 2))
    rows = len(X) + len(U)
    log_posterior = fit.objective - 0.5 * squares - 0.5 * rows * float(np.sum(np.log(values)))
    return CellModel(fit, turn, log_posterior, settled)


def in_order(solution: Solution, config: UnlabelledConfig, gate: GateThresholds) -> tuple[CellModel, Solution, float]:
    """The more likely of a solution and the one with class and attribute exchanged, refitted.

    Where exchanging them leads EM to styles, the solution stays, and is compared with the last plausible step that way.

    Args:
        solution: From the search.
        config: Prior and steps.
        gate: What is plausible.

    Returns:
        The refitted model, the solution it comes from, and by how much it is the more likely one, in nats; infinite
        where exchanging them leads back to the same one.

    Example:
        >>> from aifs_peft.discovery.config import GateThresholds
        >>> from aifs_peft.discovery.unlabelled.search import candidates
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2; a = np.where(rng.random(4000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(4000, 4)); X[:, 0] += 2 * y - 1; X[:, 1] += 3 * a - 1.5
        >>> U = rng.normal(size=(400, 4)) + [2, 3, 0, 0] * (rng.integers(0, 2, (400, 4)) - 0.5)
        >>> data = PoolData(X, y, U, np.stack([X[y == c].mean(axis=0) for c in (0, 1)]))
        >>> config = UnlabelledConfig()
        >>> found = candidates(data, rng=rng, config=config, gate=GateThresholds())[0]
        >>> in_order(found, config, GateThresholds())[2] > 2.0
        True
    """
    own = within_cells(solution.model, solution.data, config, gate)
    if solution.exchanged is None:
        return own, solution, float("inf")
    other = within_cells(solution.exchanged, solution.data, config, gate)
    if solution.settled and other.settled and other.log_posterior > own.log_posterior:
        turned = replace(solution, model=solution.exchanged, exchanged=solution.model)
        return other, turned, other.log_posterior - own.log_posterior
    return own, solution, own.log_posterior - other.log_posterior
