"""The verdict on unlabelled examples: what attribute they show, if any, told as a hint's is.

A pool that shows nothing is recorded with the reason and changes nothing.
"""

from __future__ import annotations

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, orthonormal_basis
from aifs_peft.discovery.config import DiscoveryConfig, GateThresholds
from aifs_peft.discovery.gate import association_noise
from aifs_peft.discovery.hints.judge import Hinted, rejected
from aifs_peft.discovery.principal_components import usable_components
from aifs_peft.discovery.result import Candidate
from aifs_peft.discovery.unlabelled.coordinates import Coordinates
from aifs_peft.discovery.unlabelled.held_out import HeldOut, held_out
from aifs_peft.discovery.unlabelled.mixture import PoolData, PoolModel, labelled_posterior
from aifs_peft.discovery.unlabelled.pool import Pool
from aifs_peft.discovery.unlabelled.search import candidates
from aifs_peft.discovery.unlabelled.within_cells import in_order, polished


def judge_pool(
    X: Array,
    y: IntArray,
    n_classes: int,
    pool: Pool,
    *,
    rng: np.random.Generator,
    config: DiscoveryConfig,
    rows: IntArray,
) -> Hinted:
    """Look for an attribute that goes with the label less in the pool, and put it to the gate.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        pool: Unlabelled examples.
        rng: Source of folds and rotations.
        config: All settings.
        rows: Rows to fit on; the result covers all.

    Returns:
        The attribute with its verdict: the first that passes, else the most likely one.

    Example:
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2; a = np.where(rng.random(4000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(4000, 4)); X[:, 0] += 2 * y - 1; X[:, 1] += 3 * a - 1.5
        >>> U = rng.normal(size=(400, 4)) + [2, 3, 0, 0] * (rng.integers(0, 2, (400, 4)) - 0.5)
        >>> judge_pool(X, y, 2, Pool(U), rng=rng, config=DiscoveryConfig(), rows=np.arange(4000)).record.reason
        'accepted'
    """
    own = config.unlabelled
    k = usable_components((own.components,), X.shape[1], len(rows), config.reduction.rows_per_component)[0]
    if k < 2 * (n_classes - 1):
        return rejected(pool.source, f"{k} components are too few for {n_classes} classes and an attribute", k)
    made = Coordinates.of(X[rows], y[rows], n_classes, k, config)
    data = made.data(X[rows], y[rows], pool)
    found = candidates(data, rng=rng, config=own, gate=config.gate)
    if not found:
        return rejected(pool.source, "nothing in which they differ is an attribute beside the class", k)
    judged = []
    for solution in found:
        best = in_order(solution, own, config.gate)
        numbers = _numbers(best.solution.model)
        reason = _verdict(numbers, best.nats, y[rows], config.gate)
        if reason == "accepted" and not best.clear:
            reason = _unclear_verdict(class_spread(data), config.gate)
        if reason == "accepted":
            told = held_out(best.solution, data, rng=rng, config=own, gate=config.gate)
            gain = config.gate.unlabelled_gain if best.clear else config.gate.unlabelled_unclear_gain
            reason = _held_out_verdict(told, config.gate.unlabelled_agreement, gain)
        judged.append(Candidate(pool.source, k, float("nan"), accepted=reason == "accepted", reason=reason, **numbers))
        if judged[-1].accepted:
            break
    else:
        return Hinted(judged[0])
    # Measured with three and four classes: one refit and a hint's head are better by half a point to two points.
    cells = polished(best, own, config.gate) if n_classes == 2 else best.cells
    R, _ = labelled_posterior((made.transform(X) @ cells.turn).astype(np.float32), y, cells.model)
    return Hinted(judged[-1], R.astype(np.float32), made.back(cells.offsets()[1]))


def _numbers(model: PoolModel) -> dict[str, float]:
    """The numbers of a `Candidate`."""
    K = len(model.beta)
    alpha = model.alpha - model.alpha.mean(axis=0)
    aa, bb = float(np.sum(alpha**2)), float(np.sum(model.beta**2))
    return {
        "gain": float("nan"),
        "cosine": float(np.sum(alpha * model.beta)) / float(np.sqrt(max(aa * bb, 1e-24))),
        "strength": float(np.sqrt(2.0 * bb / K)),
        "class_strength": float(np.sqrt(2.0 * aa / K)),
        "association": 1.0 - model.rate * K / (K - 1.0),
        "conflicts": model.rate,
    }


def _verdict(numbers: dict[str, float], order: float, y: IntArray, gate: GateThresholds) -> str:
    """`"accepted"`, or the first reason against a solution before the folds are asked."""
    needed = max(gate.association, association_noise(y, gate))
    if numbers["conflicts"] * len(y) < gate.min_conflicts:
        return f"only {numbers['conflicts'] * len(y):.0f} conflicting examples (needs {gate.min_conflicts})"
    if numbers["association"] < needed:
        return f"not tied to the label (association {numbers['association']:.2f} < {needed:.2f})"
    if order < gate.unlabelled_order:
        return f"which of two directions is the class cannot be told ({order:.1f} < {gate.unlabelled_order} nats)"
    if numbers["strength"] < gate.unlabelled_strength:
        return f"too weak to be told from chance (strength {numbers['strength']:.2f} < {gate.unlabelled_strength})"
    return "accepted"


def class_spread(data: PoolData) -> float:
    """How far the classes lie apart in the pool, relative to the training set: variance along the class means.

    Of a pool in which the attribute goes with the label less this is about the share of its examples in which it still
    does. Of one that is no such data it may be anything.

    Args:
        data: Training set and pool, in coordinates whose unit is the covariance within classes.

    Returns:
        About 1 for a pool drawn like training, about 0 where the classes do not show.

    Example:
        >>> rng = np.random.default_rng(0); y = np.arange(4000) % 2
        >>> X = rng.normal(size=(4000, 2)); X[:, 0] += 4 * y - 2
        >>> means = np.array([[-2.0, 0.0], [2.0, 0.0]])
        >>> pools = X[:1000], rng.normal(size=(1000, 2))
        >>> [round(class_spread(PoolData(X, y, U, means)), 1) for U in pools]
        [1.0, -0.0]
    """
    basis = orthonormal_basis(data.means - data.means.mean(axis=0), data.n_classes - 1)
    of_training, of_pool = (float(np.sum(np.var(part.astype(np.float64) @ basis, axis=0))) for part in (data.X, data.U))
    return float((of_pool - basis.shape[1]) / max(of_training - basis.shape[1], 1e-12))


def _unclear_verdict(spread: float, gate: GateThresholds) -> str:
    """`"accepted"`, or why a pool cannot say which of two directions is the class where that is not clear."""
    least, most = gate.unlabelled_class_spread
    if not least < spread < most:
        return (
            "which of two directions is the class is not clear, and they vary along the difference of the classes "
            f"{spread:.2f} times as much as the labelled examples (needs {least} to {most})"
        )
    return "accepted"


def _held_out_verdict(judged: HeldOut, agreement: float, gain: float) -> str:
    """`"accepted"`, or the first reason of the folds against a solution."""
    if judged.agreement < agreement:
        return f"parts of them show different directions (mean cosine {judged.agreement:.2f} < {agreement})"
    if judged.gain < gain:
        return (
            "held out, they are told no better by an attribute than by the classes, shifted or scaled "
            f"({judged.gain:.1f} < {gain} standard errors)"
        )
    return "accepted"
