"""One attribute: the hints and what the latents themselves show are judged, and one of them is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.arrays import Array, IntArray, conflicting
from aifs_peft.discovery.assemble import found_by_hint, found_partition, nothing_found
from aifs_peft.discovery.claims import Claim
from aifs_peft.discovery.config import DiscoveryConfig, GateThresholds
from aifs_peft.discovery.hints.judge import Hinted, judge_hint
from aifs_peft.discovery.hints.named import Named, judge_named
from aifs_peft.discovery.mixture.additive import smoothed_offsets
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.reduced import ReducedLatents
from aifs_peft.discovery.result import Candidate, Discovery
from aifs_peft.discovery.search.finding import Finding, Partition
from aifs_peft.discovery.search.many_classes import search_many_classes
from aifs_peft.discovery.search.two_classes import search_two_classes
from aifs_peft.discovery.unlabelled.judge import judge_pool
from aifs_peft.discovery.unlabelled.pool import UNLABELLED, Pool


def find_attribute(
    X: ReducedLatents,
    reduction: Reduction,
    labels: IntArray,
    classes: NDArray[Any],
    *,
    rows: IntArray,
    rng: np.random.Generator,
    config: DiscoveryConfig,
    hints: Sequence[Claim] = (),
    hint_gate: GateThresholds | None = None,
) -> tuple[Discovery, tuple[Partition, ...]]:
    """One attribute in latents `X (n, k)` reduced by `reduction`, or none.

    Args:
        X: Reduced latents.
        reduction: Of the latents.
        labels: Indices into `classes`, shape `(n,)`.
        classes: Labels as the user gave them, shape `(K,)`.
        rows: Rows that candidates are fitted on.
        rng: Source of the folds.
        config: All settings.
        hints: Candidates of the user.
        hint_gate: Thresholds of the hints, `config.gate` if `None`.

    Returns:
        What was found, and its rivals, see `find_partition`.

    Example:
        >>> from aifs_peft.discovery.principal_components import principal_components
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> reduction = principal_components(Z, rng=rng)
        >>> found, rivals = find_attribute(
        ...     reduction.transform(Z), reduction, y, np.array(["no", "yes"]), rows=np.arange(1000), rng=rng,
        ...     config=DiscoveryConfig(),
        ... )
        >>> found.found, bool(np.mean(found.groups_ == a) > 0.99), rivals
        (True, True, ())
    """
    d, K = reduction.components.shape[1], len(classes)
    # Hints draw from a source of their own: with a hint that fails, the rest is what it is without one.
    hint_rng = rng.spawn(1)[0]
    for_hints = replace(config, gate=hint_gate or config.gate)
    # A hint is judged on known examples wherever they are: its fits read all rows again and again.
    X = X[:] if hints else X
    hinted = [_judge(X[:], labels, K, hint, rng=hint_rng, config=for_hints, rows=rows) for hint in hints]
    own = _search(X, labels, K, rows, rng=rng, config=config)
    hinted = [_new(h, own, labels, rows, config.gate) for h in hinted]
    records = [h.record for h in hinted] + own.tried
    hint = _preferred(hinted, own, labels, rows, config.gate)
    if hint is not None:
        return replace(found_by_hint(hint, records, reduction, X, labels, classes, config), heads_=hint.heads), ()
    if own.responsibilities is None or own.record is None:
        heads = next((h.heads for h in hinted if h.heads is not None), None)
        return replace(nothing_found(d, labels, classes, records, own.why), heads_=heads), own.rivals
    offsets = smoothed_offsets(X, labels, own.responsibilities, config=config.mixture)
    result = found_partition(
        own.responsibilities, offsets, own.evidence, own.record.source, records, reduction, labels, classes
    )
    return replace(result, rough_=own.rough), own.rivals


def _search(
    X: ReducedLatents, y: IntArray, K: int, rows: IntArray, *, rng: np.random.Generator, config: DiscoveryConfig
) -> Finding:
    if K == 2:
        return search_two_classes(X, y, rows, rng=rng, config=config)
    return search_many_classes(X, y, K, rows, rng=rng, config=config)


def _judge(
    X: Array,
    y: IntArray,
    K: int,
    hint: Claim,
    *,
    rng: np.random.Generator,
    config: DiscoveryConfig,
    rows: IntArray,
) -> Hinted:
    if isinstance(hint, Named):
        return judge_named(X, y, K, hint, config=config, rows=rows)
    if isinstance(hint, Pool):
        return judge_pool(X, y, K, hint, rng=rng, config=config, rows=rows)
    return judge_hint(X, y, K, hint, rng=rng, config=config, rows=rows)


def _preferred(hinted: list[Hinted], own: Finding, y: IntArray, rows: IntArray, gate: GateThresholds) -> Hinted | None:
    """The accepted hint to use, or `None` for what was found without one.

    Of several hints the one whose attribute weighs most: its contrast times its tie to the label. An attribute that was
    found without a hint, is another one and weighs more goes first.
    """
    accepted = [h for h in hinted if h.record.accepted and h.responsibilities is not None]
    if not accepted:
        return None
    best = max(accepted, key=lambda h: _weight(h.record))
    if own.responsibilities is None or own.record is None or best.responsibilities is None:
        return best
    same = _same(best.responsibilities, own.responsibilities, y, rows, gate)
    return best if same or _weight(best.record) >= _weight(own.record) else None


def _same(first: Array, second: Array, y: IntArray, rows: IntArray, gate: GateThresholds) -> bool:
    """Whether the conflicting examples of two partitions are the same."""
    moved, found = (conflicting(R[rows], y[rows]) for R in (first, second))
    return gates.jaccard(moved, found) >= gate.jaccard


def _new(hint: Hinted, own: Finding, y: IntArray, rows: IntArray, gate: GateThresholds) -> Hinted:
    """The verdict on unlabelled examples again, beside what was found without them.

    They hold no known value, so of an attribute that is found without them they say nothing that is not known better.
    """
    R, found = hint.responsibilities, own.responsibilities
    if hint.record.source != UNLABELLED or R is None or found is None or not _same(R, found, y, rows, gate):
        return hint
    return Hinted(replace(hint.record, accepted=False, reason="the attribute they show is found without them"))


def _weight(record: Candidate) -> float:
    return record.strength * record.association
