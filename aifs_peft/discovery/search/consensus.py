"""More than two classes: what refinements from different starts agree on, or what explains the latents best.

The out-of-fold refinement is drawn to an attribute that is there from nearly any rough start, and a natural style
within the classes from few. So every start is refined, and a solution counts that several of them reach, and whose
attribute is nearly as strong as the class beside it or stronger. Where class and attribute are equally strong, starts
end between the two; what ends have found is put together then, and of all of them the one that explains held-out
examples best counts as well. A style that is as strong as the class only for a few examples explains little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.arrays import Array, BoolArray, IntArray, conflicting, one_hot
from aifs_peft.discovery.config import DiscoveryConfig, GateThresholds
from aifs_peft.discovery.mixture.crossfit import cross_fitted
from aifs_peft.discovery.mixture.em import Moments, partition_fit
from aifs_peft.discovery.mixture.predictive import HeldOut
from aifs_peft.discovery.mixture.refine import refine_until_stable
from aifs_peft.discovery.principal_components import usable_components
from aifs_peft.discovery.proposals.many_starts import propose_many, propose_skewed
from aifs_peft.discovery.proposals.starts import Start
from aifs_peft.discovery.result import Candidate
from aifs_peft.discovery.search.noisy_labels import class_not_told, told_beside
from aifs_peft.discovery.search.pairs import search_pairs
from aifs_peft.discovery.search.recombine import End, reach, recombine


@dataclass(frozen=True)
class Solution:
    """Where the refinement of one start ended.

    Args:
        record: What the gate saw.
        responsibilities: Weights of the attribute values, shape `(n, K)`.
        explained: How much better it explains held-out examples than no attribute does, in nats per example.
    """

    record: Candidate
    responsibilities: Array
    explained: float = float("nan")


def solve(
    X: Array, y: IntArray, n_classes: int, *, rng: np.random.Generator, config: DiscoveryConfig
) -> list[Solution]:
    """Refine every start and judge where it ends.

    Costs `O(n k^2)` per start and repetition, at most `many_classes.solved_components` components.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds.
        config: All settings.

    Returns:
        One solution per start, and what recombining them gave; that which explains held-out examples best is first.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 1500); a = np.where(rng.random(1500) < 0.8, y, rng.integers(0, 3, 1500))
        >>> X = rng.normal(size=(1500, 12)); X[:, :3] += 5 * np.eye(3)[a]; X[:, 3:6] += 3 * np.eye(3)[y]
        >>> best = solve(X - X.mean(axis=0), y, 3, rng=rng, config=DiscoveryConfig())[0]
        >>> best.record.accepted, bool(np.mean(best.responsibilities.argmax(axis=1) == a) > 0.95)
        (True, True)
    """
    data = solved_components(X, config)
    starts, times = _distinct(propose_many(data, y, n_classes, rng=rng, config=config), y, config)
    held_out = HeldOut.of(data, y, n_classes, rng=rng.spawn(1)[0], config=config)
    end_of = partial(reach, data, y, n_classes=n_classes, held_out=held_out, rng=rng, config=config)
    ends = [end_of(start, times=count) for start, count in zip(starts, times, strict=True)]
    further, _ = _distinct(propose_skewed(data, y, n_classes, config=config), y, config)
    ends += [end_of(start) for start in further]
    best = max(ends, key=lambda end: end.explained, default=None)
    # An attribute that goes with the label too little and explains the most is no shortcut: nothing to put together.
    if best is not None and _tie(np.asarray(best.responsibilities.argmax(axis=1)), y) >= _needed_tie(config.gate):
        ends += recombine(data, y, ends, n_classes, held_out=held_out, rng=rng, config=config)
    ends.sort(key=lambda end: -end.explained)
    moments = Moments.of(data, y, n_classes)
    solutions = []
    for place, end in enumerate(ends):
        support, alone = _support(end, ends, y, config), place == 0 and end.explained >= config.gate.explained
        needed = config.gate.support
        record = _judged(moments, end.start, end.responsibilities, support, needed, rng, config, alone)
        if record.accepted and end.together and not (alone and record.cosine > config.gate.explained_cosine):
            # Only now: what is refused for want of the class must tell so, see `_unless_mislabelled`.
            record = _with_support(record, max(needed, config.gate.support_together))
        solutions.append(Solution(record, end.responsibilities, end.explained))
    return [_unless_mislabelled(solution, solutions, y, config) for solution in solutions]


def clearest(solutions: list[Solution], y: IntArray, config: DiscoveryConfig) -> Solution | None:
    """The solution to use, or `None` where the gate accepts none.

    Ends that bear each other out differ in a few examples. The one that explains the latents best has taken in most
    styles of the classes; the one whose attribute is strongest beside the class has the fewest of them. What stands
    alone, for it explains the latents best, stays what it is.

    Args:
        solutions: By falling `explained`, see `solve`.
        y: Labels in `0..K-1`, shape `(n,)`.
        config: Its `gate` says which ends are the same.

    Example:
        >>> from aifs_peft.discovery.config import DEFAULT_CONFIG
        >>> clearest([], np.array([0, 1, 2]), DEFAULT_CONFIG) is None
        True
    """
    accepted = [solution for solution in solutions if solution.record.accepted]
    if not accepted:
        return None
    first, needed = accepted[0], config.gate.support
    if first.record.support < needed:
        return first
    mine = conflicting(first.responsibilities, y)
    same = [s for s in accepted if s is first or _same(mine, conflicting(s.responsibilities, y), config)]
    return max((s for s in same if s.record.support >= needed), key=lambda s: s.record.gain)


def _unless_mislabelled(
    solution: Solution, solutions: list[Solution], y: IntArray, config: DiscoveryConfig
) -> Solution:
    """The solution, refused where as many as pass were refused as mislabelled: of those alike, or that hold it.

    With few conflicting examples the class's contrast beside them is uncertain, and one of many ends passes by chance.
    Of two classes few partitions are compared, and one clearer one is enough: `noisy_labels._without_wrong`.
    """
    if not solution.record.accepted:
        return solution
    mine = conflicting(solution.responsibilities, y)

    def near(other: Solution) -> bool:
        theirs = conflicting(other.responsibilities, y)
        holds = np.count_nonzero(mine & theirs) >= config.noisy_labels.held * np.count_nonzero(mine)
        return _same(mine, theirs, config) or bool(holds and other.explained > solution.explained)

    records = [other.record for other in solutions if other is not solution and near(other)]
    wrong = [record.reason for record in records if record.reason.startswith(gates.NO_CLASS)]
    if len(wrong) < max(1, sum(record.accepted for record in records)):
        return solution
    return replace(solution, record=replace(solution.record, accepted=False, reason=wrong[-1]))


def _support(end: End, ends: list[End], y: IntArray, config: DiscoveryConfig) -> float:
    """Share of the starts, without its own, that end where this one does."""
    mine, own = end.moved(y), min(end.times, 1)
    same = sum(other.times for other in ends if other.times and _same(mine, other.moved(y), config))
    return max(same - own, 0) / max(sum(other.times for other in ends) - own, 1)


def _same(first: BoolArray, second: BoolArray, config: DiscoveryConfig) -> bool:
    return gates.jaccard(first, second) >= config.gate.agreement


def _distinct(starts: list[Start], y: IntArray, config: DiscoveryConfig) -> tuple[list[Start], list[int]]:
    """One start of those that are alike, which are refined once, and how many there are."""
    kept: list[Start] = []
    times: list[int] = []
    for start in starts:
        moved = start.attribute != y
        similar = [gates.jaccard(moved, other.attribute != y) for other in kept]
        if similar and max(similar) >= config.many_classes.same_start:
            times[int(np.argmax(similar))] += 1
        else:
            kept.append(start)
            times.append(1)
    return kept, times


def solve_by_pairs(
    X: Array, y: IntArray, n_classes: int, *, rng: np.random.Generator, config: DiscoveryConfig
) -> Solution | None:
    """Refine what pairs of classes say, and judge where it ends; how many of them say so stands for the support.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds.
        config: All settings.

    Returns:
        The solution; `None` where no pair says anything.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 1500); a = np.where(rng.random(1500) < 0.7, y, rng.integers(0, 3, 1500))
        >>> X = rng.normal(size=(1500, 32)); X[:, :3] += 5 * np.eye(3)[a]; X[:, 3:6] += 2 * np.eye(3)[y]
        >>> found = solve_by_pairs(X - X.mean(axis=0), y, 3, rng=rng, config=DiscoveryConfig())
        >>> found.record.accepted, bool(np.mean(found.responsibilities.argmax(axis=1) == a) > 0.95)
        (True, True)
    """
    paired = search_pairs(X, y, n_classes, rng=rng, config=config)
    if not (paired.attribute != y).any():
        return None
    data = solved_components(X, config)
    R = refine_until_stable(data, y, paired.attribute, n_classes, rng=rng, config=config)
    start = Start("pairs", float("nan"), paired.attribute)
    moments = Moments.of(data, y, n_classes)
    return Solution(_judged(moments, start, R, paired.accepted, config.gate.pairs, rng, config), R)


def solved_components(X: Array, config: DiscoveryConfig) -> Array:
    """The leading components in which starts are refined.

    Args:
        X: Reduced latents, shape `(n, k)`.
        config: How many, and how many rows each needs.

    Example:
        >>> from aifs_peft.discovery.config import DEFAULT_CONFIG
        >>> solved_components(np.zeros((200, 6)), DEFAULT_CONFIG).shape
        (200, 6)
    """
    wanted = config.many_classes.solved_components
    k = usable_components(wanted, X.shape[1], len(X), config.reduction.rows_per_component)[-1]
    return np.ascontiguousarray(X[:, :k])


def judged_components(width: int, n: int, config: DiscoveryConfig) -> int:
    """In how many of the leading components contrasts are compared.

    Args:
        width: Number of components.
        n: Number of examples.
        config: How many, and how many rows each needs.

    Example:
        >>> judged_components(64, 500, DiscoveryConfig()), judged_components(6, 500, DiscoveryConfig())
        (32, 6)
    """
    own = config.many_classes
    return usable_components(own.judged_components, width, n, own.judged_rows)[-1]


def _judged(
    data: Moments,
    start: Start,
    R: Array,
    support: float,
    needed: float,
    rng: np.random.Generator,
    config: DiscoveryConfig,
    alone: bool = False,
) -> Candidate:
    """The gate's word on one solution; with `alone` it may do without support."""
    y, K, gate = data.y, len(data.counts), config.gate
    k = judged_components(data.X.shape[1], len(y), config)
    part = Moments(np.ascontiguousarray(data.X[:, :k]), y, data.counts, data.sums[:, :k], data.second[:k, :k])
    attribute = np.asarray(R.argmax(axis=1))
    shape = gates.geometry(partition_fit(part, R, config=config.mixture))
    relative = gates.relative_strength(shape, attribute, y, k, gate)
    alone = alone and shape.cosine > gate.explained_cosine
    clear = alone or (support >= max(gate.support, gate.clear_support) and start.source != "pairs")
    verdict = _verdict(relative, gate.many_clear_relative if clear else gate.many_relative, shape, attribute, y, gate)
    if verdict == "accepted" and support < needed and not alone:
        verdict = _too_few(start.source, support, needed)
    if verdict == "accepted":
        # The refinement holds the class fast. Let go, flipped labels take all of it along.
        free = cross_fitted(part.X, y, one_hot(attribute, K), rng=rng, config=config.mixture)
        beside = gates.geometry(partition_fit(part, free, config=config.mixture))
        let_go = np.asarray(free.argmax(axis=1))
        noise = gates.class_noise(let_go, y, K, k)
        verdict = gates.class_verdict(beside, noise, gate.trimmed_class_strength, gate)
        if verdict != "accepted":
            # A class that is hard to tell has a small contrast, too: held-out examples are asked.
            contrast = np.sqrt(max(shape.strength**2 - gates.class_noise(attribute, y, K, k)[0], 0.0))
            told = told_beside(part.X, y, [attribute, let_go], contrast, config=config)
            verdict = "accepted" if told else verdict
        else:
            verdict = class_not_told(part.X, y, attribute, config=config) or verdict
    return Candidate(
        source=f"{start.source}+refined",
        k=k,
        share=start.share,
        gain=100.0 * (relative - gate.many_clear_relative),
        cosine=shape.cosine,
        strength=shape.strength,
        class_strength=shape.class_strength,
        association=gates.association(attribute, y, K),
        conflicts=float(np.mean(attribute != y)),
        support=support,
        accepted=verdict == "accepted",
        reason=verdict,
    )


def _too_few(source: str, support: float, needed: float) -> str:
    what = "pairs of classes show it" if source.startswith("pairs") else "other starts end there"
    return f"only {support:.0%} of the {what} (needs {needed:.0%})"


def _with_support(record: Candidate, needed: float) -> Candidate:
    """An accepted record, refused where too few starts end there."""
    if record.support >= needed:
        return record
    return replace(record, accepted=False, reason=_too_few(record.source, record.support, needed))


def _tie(attribute: IntArray, y: IntArray) -> float:
    return gates.association(attribute, y, len(np.bincount(y)))


def _needed_tie(gate: GateThresholds) -> float:
    """The least association with the label."""
    return max(gate.many_association, gate.association)


def _verdict(
    relative: float,
    least: float,
    shape: gates.Geometry,
    attribute: IntArray,
    y: IntArray,
    gate: GateThresholds,
) -> str:
    n_conflicts = int(np.count_nonzero(attribute != y))
    tied_to, needed = _tie(attribute, y), _needed_tie(gate)
    if n_conflicts < gate.min_conflicts:
        return f"only {n_conflicts} conflicting examples (needs {gate.min_conflicts})"
    if shape.cosine <= gate.cosine:
        return f"moves hard examples along the class difference (cosine {shape.cosine:.2f})"
    if shape.strength < gate.refined_strength:
        return f"attribute contrast too small ({shape.strength:.2f} < {gate.refined_strength})"
    if tied_to < needed:
        return f"not tied to the label (association {tied_to:.2f} < {needed})"
    if relative < least:
        return f"weaker than the class beside it ({relative:.2f} < {least})"
    return "accepted"
