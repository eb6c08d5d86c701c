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
from aifs_peft.discovery.unlabelled.search import Solution, climb, cosine, precision_of


@dataclass(frozen=True)
class CellModel:
    """The mixture in coordinates whose unit is the covariance within cells.

    Args:
        model: The mixture there.
        turn: The old coordinates times this matrix `(k, k)` are the new ones.
        log_posterior: Of labelled and unlabelled examples in the old coordinates, without constants; minus infinity
            where EM left what is plausible at once.
        settled: Whether EM stayed within what is plausible.
    """

    model: PoolModel
    turn: Array
    log_posterior: float
    settled: bool

    def offsets(self) -> tuple[Array, Array]:
        """Of class and attribute in the old coordinates, centred, each of shape `(K, k)`."""
        back = np.linalg.inv(self.turn)
        return (self.model.alpha - self.model.alpha.mean(axis=0)) @ back, self.model.beta @ back


@dataclass(frozen=True)
class Ordered:
    """A solution in which class and attribute were told apart.

    Args:
        cells: It, refitted within cells.
        solution: From the search, exchanged where that is the more likely one.
        nats: By how much it is; infinite where exchanging class and attribute leads back to the same one.
        settled: Whether both ways to name them are optima of the refit.
        clear: Whether one refit tells it so well that nothing else is asked.
    """

    cells: CellModel
    solution: Solution
    nats: float
    settled: bool
    clear: bool = False


def within_cells(
    model: PoolModel, data: PoolData, config: UnlabelledConfig, gate: GateThresholds, *, rounds: int = 1
) -> CellModel:
    """Refit a mixture where the covariance within cells is the unit.

    What that covariance is follows from the mixture: that within classes, less what the attribute adds to it. After a
    refit the attribute is another one, so several rounds tell rate and contrast better, and one of them safer.

    Args:
        model: In coordinates whose unit is the covariance within classes.
        data: What it was fitted on.
        config: Prior and steps of each round.
        gate: What is plausible; the refit ends when it leaves that.
        rounds: How often the covariance within cells is computed.

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
    precision = precision_of(data, config)
    for _ in range(rounds):
        prior = model.prior
        spread = np.diag(share @ prior) - (prior * share[:, None]).T @ prior
        values, vectors = np.linalg.eigh(np.eye(model.beta.shape[1]) - model.beta.T @ spread @ model.beta)
        values = np.maximum(values, config.min_variance)
        turn, back = (vectors / np.sqrt(values)) @ vectors.T, (vectors * np.sqrt(values)) @ vectors.T
        X, U = ((part @ turn).astype(np.float32) for part in (data.X, data.U))
        moved = PoolData(X, data.y, U, data.means @ turn)
        start = PoolModel(model.alpha @ turn, model.beta @ turn, model.rate, model.shares)
        fit, settled = climb(moved, start, config.last_steps, precision=precision, config=config, gate=gate)
        if not settled:
            break
        model = replace(fit, alpha=fit.alpha @ back, beta=fit.beta @ back)
    squares = float(np.sum(X.astype(np.float64) ** 2) + np.sum(U.astype(np.float64) ** 2))
    rows = len(X) + len(U)
    log_posterior = fit.objective - 0.5 * squares - 0.5 * rows * float(np.sum(np.log(values)))
    return CellModel(fit, turn, log_posterior, settled)


def in_order(solution: Solution, config: UnlabelledConfig, gate: GateThresholds) -> Ordered:
    """The more likely of a solution and the one with class and attribute exchanged, refitted.

    Where that cannot be told both are refitted again, in rounds and under a weaker prior: the first refit makes the
    attribute shorter and the conflicting examples fewer than they are, most where they are unclear. Among latents with
    styles that often runs off to one of these; then the first refit is all that is said.

    Args:
        solution: From the search.
        config: Priors and steps.
        gate: What is plausible, told and clear.

    Returns:
        The more likely one, refitted, and by how much it is.

    Example:
        >>> from aifs_peft.discovery.config import GateThresholds
        >>> from aifs_peft.discovery.unlabelled.search import candidates
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2; a = np.where(rng.random(4000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(4000, 4)); X[:, 0] += 2 * y - 1; X[:, 1] += 3 * a - 1.5
        >>> U = rng.normal(size=(400, 4)) + [2, 3, 0, 0] * (rng.integers(0, 2, (400, 4)) - 0.5)
        >>> data = PoolData(X, y, U, np.stack([X[y == c].mean(axis=0) for c in (0, 1)]))
        >>> config = UnlabelledConfig()
        >>> found = candidates(data, rng=rng, config=config, gate=GateThresholds())[0]
        >>> in_order(found, config, GateThresholds()).nats > 2.0
        True
    """
    first = _ordered(solution, config, gate)
    if first.nats >= gate.unlabelled_order:
        return replace(first, clear=first.nats >= gate.unlabelled_clear_order)
    further = replace(config, prior_weight=config.second_prior_weight, last_steps=config.second_steps)
    second = _ordered(solution, further, gate, rounds=config.second_rounds)
    return second if second.settled else first


def polished(best: Ordered, config: UnlabelledConfig, gate: GateThresholds) -> CellModel:
    """The refit of a solution that was accepted, once more in rounds, for the head.

    One refit, which tells the order safest, leaves the conflicting examples too few and the direction a little off.

    Args:
        best: A solution in which class and attribute were told apart.
        config: Prior, rounds and steps.
        gate: What is plausible; where the rounds leave that, the refit stays as it is.

    Example:
        >>> from aifs_peft.discovery.config import GateThresholds
        >>> from aifs_peft.discovery.unlabelled.search import candidates
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2; a = np.where(rng.random(4000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(4000, 4)); X[:, 0] += 2 * y - 1; X[:, 1] += 3 * a - 1.5
        >>> U = rng.normal(size=(400, 4)) + [2, 3, 0, 0] * (rng.integers(0, 2, (400, 4)) - 0.5)
        >>> data = PoolData(X, y, U, np.stack([X[y == c].mean(axis=0) for c in (0, 1)]))
        >>> config = UnlabelledConfig()
        >>> found = candidates(data, rng=rng, config=config, gate=GateThresholds())[0]
        >>> best = in_order(found, config, GateThresholds())
        >>> cells = polished(best, config, GateThresholds())
        >>> cells.settled, bool(np.abs(cells.offsets()[1][:, 1]).min() > 1.3)  # half of 3
        (True, True)
    """
    further = replace(config, last_steps=config.second_steps)
    solution = best.solution
    cells = within_cells(solution.model, solution.data, further, gate, rounds=config.second_rounds)
    return cells if cells.settled else best.cells


def _ordered(solution: Solution, config: UnlabelledConfig, gate: GateThresholds, *, rounds: int = 1) -> Ordered:
    """The more likely one after a refit of both.

    Where exchanging them leads EM to styles, the solution stays, and is compared with the last plausible step that way.
    """
    own = within_cells(solution.model, solution.data, config, gate, rounds=rounds)
    if solution.exchanged is None:
        return Ordered(own, solution, float("inf"), own.settled)
    other = within_cells(solution.exchanged, solution.data, config, gate, rounds=rounds)
    settled = solution.settled and own.settled and other.settled
    back_again = rounds > 1 and _back_again(own, other)
    if solution.settled and other.settled and other.log_posterior > own.log_posterior:
        own, other = other, own
        solution = replace(solution, model=solution.exchanged, exchanged=solution.model)
    if back_again:
        return Ordered(own, solution, float("inf"), settled)
    # Neither made a step that is plausible: nothing is said.
    nats = own.log_posterior - other.log_posterior if np.isfinite(own.log_posterior) else -float("inf")
    return Ordered(own, solution, nats, settled)


def _back_again(own: CellModel, other: CellModel) -> bool:
    """Whether EM exchanged class and attribute back: then there is but one order, found from both sides."""
    (_, attribute), (of_class, again) = own.offsets(), other.offsets()
    return cosine(attribute, again) > cosine(attribute, of_class)
