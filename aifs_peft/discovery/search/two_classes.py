"""Two classes: propose partitions cheaply, refine each by cross-fitted EM at many components, keep the clearest.

A proposal needs to be no more than roughly right. What decides is the refined partition: how strong its attribute is,
and how strong relative to the class beside it. Where the attribute is known, the order by relative strength is that by
precision: partitions by a natural style within the classes have a class contrast beside them that is nearly as large.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.arrays import Array, IntArray, conflicting, one_hot
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.inputs import even_rows
from aifs_peft.discovery.mixture.crossfit import cross_fitted
from aifs_peft.discovery.mixture.em import Moments, partition_fit
from aifs_peft.discovery.principal_components import usable_components
from aifs_peft.discovery.proposals.starts import Start, propose_starts
from aifs_peft.discovery.reduced import ReducedLatents
from aifs_peft.discovery.result import Candidate
from aifs_peft.discovery.search.finding import Finding, Partition
from aifs_peft.discovery.search.noisy_labels import judge_again


def search_two_classes(
    X: ReducedLatents, y: IntArray, rows: IntArray, *, rng: np.random.Generator, config: DiscoveryConfig
) -> Finding:
    """Look for one attribute with two classes.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels 0 and 1, shape `(n,)`.
        rows: Rows that candidates are fitted on.
        rng: Source of the folds.
        config: All settings.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(1000, 32)); X[:, 0] += 6 * a; X[:, 1] += 2 * y
        >>> found = search_two_classes(X, y, np.arange(1000), rng=rng, config=DiscoveryConfig())
        >>> found.record.k, bool(np.mean(found.responsibilities.argmax(axis=1) == a) > 0.99)
        (32, True)
    """
    even = even_rows(y, rows, config.inputs, rng)
    if len(even) < config.inputs.min_rows:
        return Finding(why=f"{len(even) // 2} examples of the rarer class are too few to tell a minority")
    partition, rivals, tried = find_partition(X[even], y[even], rng=rng, config=config)
    if even is not rows:
        rivals = [rival.over(X[rows], y[rows]) for rival in rivals]
        if partition is not None:
            partition = _of_all(partition, X, y, rows, even, rng=rng, config=config)
            borne_out = partition.record.accepted
            tried = [record if borne_out else _refused(record) for record in tried] + [partition.record]
    if partition is None or not partition.record.accepted:
        return Finding(tried=tried, why=f"none of {len(tried)} candidates passed the gate", rivals=tuple(rivals))
    record = partition.record
    return Finding(partition.assign(X, y, rows), record, record.gain, tried, rivals=tuple(rivals))


def _of_all(
    found: Partition,
    X: ReducedLatents,
    y: IntArray,
    rows: IntArray,
    even: IntArray,
    *,
    rng: np.random.Generator,
    config: DiscoveryConfig,
) -> Partition:
    """What even rows have shown, refined on all rows, which bear more components; it must pass the gate there, too."""
    own, start = y[rows], found.assign(X, y, even)[rows].argmax(axis=1)
    wanted = tuple(min(c, X.shape[1]) for c in config.two_classes.components)
    k = usable_components(wanted, X.shape[1], len(rows), config.reduction.rows_per_component)[-1]
    data = Moments.of(np.ascontiguousarray(X[rows][:, :k]), own, 2)
    refined = _refine(data, Start(found.record.source, found.record.share, start), rng=rng, config=config)
    refined = judge_again([refined], data.X, own, [], config=config)[0][0]
    moved = conflicting(refined.responsibilities, own)
    if not refined.record.accepted or gates.jaccard(moved, start != own) >= config.gate.jaccard:
        return refined
    return replace(refined, record=_refused(refined.record))


def _refused(record: Candidate) -> Candidate:
    """A candidate that passes on as many examples of each class, or on all, but not on both."""
    if not record.accepted:
        return record
    return replace(record, accepted=False, reason="not the same on all examples as on as many of each class")


def find_partition(
    X: Array, y: IntArray, *, rng: np.random.Generator, config: DiscoveryConfig
) -> tuple[Partition | None, list[Partition], list[Candidate]]:
    """The partition with the largest relative strength that passes the gate, its rivals, and all that was tried.

    Rivals are other partitions that pass or are `close`: with several shortcuts one alone may be no stronger than the
    class with the others in it, and a mixture of them stronger than each.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels 0 and 1, shape `(n,)`.
        rng: Source of the folds.
        config: All settings.

    Returns:
        The partition or `None`, at most `two_classes.rivals` rivals, and one record per refined start.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); X = rng.normal(size=(1000, 8)); X[:, 1] += 2 * y  # no attribute at all
        >>> best, rivals, tried = find_partition(X, y, rng=rng, config=DiscoveryConfig())
        >>> best is None, len(rivals), any(record.accepted for record in tried)
        (True, 0, False)
    """
    own, per_component = config.two_classes, config.reduction.rows_per_component
    starts = propose_starts(X, y, rng=rng, config=config)
    records: list[Candidate] = []
    best: Partition | None = None
    rivals: list[Partition] = []
    wrong: list[Partition] = []
    wanted = tuple(min(c, X.shape[1]) for c in own.components)
    for k in sorted(set(usable_components(wanted, X.shape[1], len(y), per_component)), reverse=True):
        data = Moments.of(np.ascontiguousarray(X[:, :k]), y, 2)
        refined = [_refine(data, start, rng=rng, config=config) for start in starts]
        refined, more = judge_again(refined, data.X, y, wrong, config=config)
        wrong += more
        records += [partition.record for partition in refined]
        passed = [p for p in refined if p.record.accepted]
        best = max(passed, key=lambda p: p.record.gain) if passed else best
        rivals += [p for p in refined if p.close or p.record.accepted]
        if best is not None and k <= own.components_per_conflict * best.record.conflicts * len(y):
            break
    return best, _distinct(rivals, best, y, config), records


def _distinct(rivals: list[Partition], best: Partition | None, y: IntArray, config: DiscoveryConfig) -> list[Partition]:
    """The strongest partitions with conflicting examples of their own, without `best`."""
    kept = [] if best is None else [best]
    wanted = config.two_classes.rivals + len(kept)
    for rival in sorted(rivals, key=lambda p: -p.record.gain):
        moved = conflicting(rival.responsibilities, y)
        others = (conflicting(other.responsibilities, y) for other in kept)
        if len(kept) < wanted and all(gates.jaccard(moved, other) < config.gate.jaccard for other in others):
            kept.append(rival)
    return kept if best is None else kept[1:]


def _refine(data: Moments, start: Start, *, rng: np.random.Generator, config: DiscoveryConfig) -> Partition:
    """Cross-fitted EM from one start, and the gate's word on the result."""
    k, gate = data.X.shape[1], config.gate
    R = cross_fitted(data.X, data.y, one_hot(start.attribute, 2), rng=rng, config=config.mixture)
    moved = R.argmax(axis=1)
    mixture = partition_fit(data, R, config=config.mixture)
    shape = gates.geometry(mixture)
    relative = gates.relative_strength(shape, moved, data.y, k, gate)
    verdict = gates.refined_verdict(relative, shape, moved, data.y, k, gate)
    close = verdict != "accepted" and shape.strength >= gate.refined_strength and (
        gates.mixture_verdict(np.inf, shape, moved, data.y, k, gate) == "accepted"
    )  # fmt: skip
    record = Candidate(
        source=start.source,
        k=k,
        share=start.share,
        gain=100.0 * (relative - gate.relative),
        cosine=shape.cosine,
        strength=shape.strength,
        class_strength=shape.class_strength,
        association=gates.association(moved, data.y, 2),
        conflicts=float(np.mean(moved != data.y)),
        accepted=verdict == "accepted",
        reason=verdict,
    )
    return Partition(record, R, mixture, close)
