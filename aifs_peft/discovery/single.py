"""One search: the hints and what the latents themselves show, and which of them is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.binary import Partition, find_partition
from aifs_peft.discovery.gate import GateThresholds
from aifs_peft.discovery.hints.judge import Hinted, judge_hint
from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.hints.named import Named, judge_named
from aifs_peft.discovery.linear_heads.additive import smoothed_offsets
from aifs_peft.discovery.mixture.em import Moments, null_log_likelihood
from aifs_peft.discovery.mixture.refine import refine_attribute
from aifs_peft.discovery.outcome import found_by_hint, found_partition, nothing_found
from aifs_peft.discovery.reduce import Reduction
from aifs_peft.discovery.result import Array, Candidate, Discovery, IntArray
from aifs_peft.discovery.search import (
    COMPONENTS,
    Attempt,
    agree,
    best_per_k,
    mixture_attempt,
    scan_trimmed,
    usable,
)


def find_attribute(
    X: Array,
    reduction: Reduction,
    labels: IntArray,
    classes: NDArray[Any],
    *,
    rows: IntArray,
    rng: np.random.Generator,
    hints: Sequence[Hint | Named] = (),
    gate: GateThresholds,
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
        hints: Candidates of the user.
        gate: Thresholds.
        hint_gate: Thresholds of the hints, the same if None.

    Returns:
        What was found, and its rivals, see `find_partition`.
    """
    d, K = reduction.components.shape[1], len(classes)
    # Hints draw from a source of their own: with a hint that fails, the rest is what it is without one.
    hint_rng = rng.spawn(1)[0]
    hinted = [_judge(X, labels, K, hint, rng=hint_rng, gate=hint_gate or gate, rows=rows) for hint in hints]
    own = (_search_binary if K == 2 else _search_many)(X, labels, K, rows, rng=rng, gate=gate)
    records = [h.record for h in hinted] + own.tried
    hint = _preferred(hinted, own, labels, rows)
    if hint is not None:
        return found_by_hint(hint, records, reduction, X, labels, classes), ()
    if own.responsibilities is None or own.record is None:
        return nothing_found(d, labels, classes, records, own.why), own.rivals
    offsets = smoothed_offsets(X, labels, own.responsibilities)
    result = found_partition(
        own.responsibilities, offsets, own.evidence, own.record.source, records, reduction, labels, classes
    )
    return replace(result, rough_=own.rough), own.rivals


@dataclass(frozen=True)
class _Own:
    """What the search without hints gives: responsibilities of all rows, or `None` and why."""

    responsibilities: Array | None
    record: Candidate | None
    evidence: float
    tried: list[Candidate]
    why: str = ""
    rough: bool = False
    rivals: tuple[Partition, ...] = ()


def _search_binary(
    X: Array, y: IntArray, K: int, rows: IntArray, *, rng: np.random.Generator, gate: GateThresholds
) -> _Own:
    """Two classes: the partition that passes the gate with the largest relative strength."""
    del K
    partition, rivals, tried = find_partition(X[rows], y[rows], rng=rng, gate=gate)
    if partition is None:
        return _Own(None, None, 0.0, tried, f"none of {len(tried)} candidates passed the gate", rivals=tuple(rivals))
    record = partition.record
    return _Own(partition.assign(X, y, rows), record, record.gain, tried, rivals=tuple(rivals))


def _judge(
    X: Array, y: IntArray, K: int, hint: Hint | Named, *, rng: np.random.Generator, gate: GateThresholds, rows: IntArray
) -> Hinted:
    if isinstance(hint, Named):
        return judge_named(X, y, K, hint, gate=gate, rows=rows)
    return judge_hint(X, y, K, hint, rng=rng, gate=gate, rows=rows)


def _preferred(hinted: list[Hinted], own: _Own, y: IntArray, rows: IntArray) -> Hinted | None:
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
    moved = best.responsibilities[rows].argmax(axis=1) != y[rows]
    found = own.responsibilities[rows].argmax(axis=1) != y[rows]
    same = gates.jaccard(moved, found) >= gates.DEFAULT_GATE.jaccard
    return best if same or _weight(best.record) >= _weight(own.record) else None


def _weight(record: Candidate) -> float:
    return record.strength * record.association


def _search_many(
    X: Array, y: IntArray, K: int, rows: IntArray, *, rng: np.random.Generator, gate: GateThresholds
) -> _Own:
    """More than two classes: the trimmed discriminant's partition, sharpened by a mixture or refined out of fold."""
    chosen, attempts = _confirmed(X[rows], y[rows], K, gate=gate)
    tried = [a.record for a in attempts]
    if chosen is None:
        accepted = sum(record.accepted for record in tried)
        why = f"{accepted} of {len(tried)} candidates passed the gate, none was confirmed" if accepted else (
            f"none of {len(tried)} candidates passed the gate"
        )  # fmt: skip
        return _Own(None, None, 0.0, tried, why)
    k = chosen.record.k
    if chosen.mixture is not None:
        R = chosen.mixture.responsibilities(X[:, :k], y).astype(np.float32)
        return _Own(R, chosen.record, 1000.0 * chosen.record.gain / len(rows), tried)
    assert chosen.discriminant is not None  # noqa: S101 - an attempt carries one of the two
    # The gate judged the rough partition; sharpening it cannot raise an alarm.
    R = refine_attribute(X, y, chosen.discriminant.assign(X[:, :k]), K, rng=rng)
    return _Own(R, chosen.record, chosen.record.gain, tried, rough=True)


def _confirmed(X: Array, y: IntArray, K: int, *, gate: GateThresholds) -> tuple[Attempt | None, list[Attempt]]:
    """More than two classes: the confirmed attempt or `None`, and all attempts."""
    trimmed = scan_trimmed(X, y, K, gate)
    passed = [a for a in trimmed if a.record.accepted]
    if not passed:
        return None, trimmed
    # Many classes: a free mixture drifts to styles within classes. It may only sharpen a partition that the
    # trimmed discriminant, under its own gate, has found.
    last = passed[-1]
    refined = []
    for k in usable(COMPONENTS, X.shape[1], len(y)):
        data = Moments.of(np.ascontiguousarray(X[:, :k]), y, K)
        attempt = mixture_attempt(data, last.attribute, null_log_likelihood(data), "trimmed+mixture", 0.1, gate)
        refined.append(attempt)
    moved = last.attribute != y
    near = [a for a in best_per_k(refined) if gates.jaccard(a.attribute != y, moved) >= gate.jaccard]
    return (agree(near, y, gate) or last), trimmed + refined
