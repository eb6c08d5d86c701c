"""Two classes: propose partitions cheaply, refine each by cross-fitted EM at many components, keep the clearest.

A proposal needs to be no more than roughly right. What decides is the refined partition: how strong its attribute is,
and how strong relative to the class beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.gate import GateThresholds
from aifs_peft.discovery.mixture.crossfit import cross_fitted
from aifs_peft.discovery.mixture.em import Mixture, Moments, fit_mixture, partition_fit
from aifs_peft.discovery.proposals.margins import held_out_margins, propose
from aifs_peft.discovery.proposals.trimmed import trimmed_discriminant
from aifs_peft.discovery.result import Candidate
from aifs_peft.discovery.search import one_hot, usable

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

# Partitions are refined at the largest of these that the data support, at a smaller one where nothing passes.
COMPONENTS = (64, 128, 256)
# No more components than this many per conflicting example: beyond, noise in the offsets hides part of the minority.
COMPONENTS_PER_CONFLICT = 6
TRIMMED_COMPONENTS = (16, 64, 256)
TRIMS = (0.1, 0.03)
MARGIN_COMPONENTS = 8
MARGIN_SHARES = (0.02, 0.1)
# Leading components that are cut at zero: a label-dependent attribute of large variance, at shares too low for margins.
CUT_COMPONENTS = 2
# Starts with conflicting sets at least this similar are one start.
SAME_START = 0.8
# How many partitions beside the best are looked at as one of several shortcuts.
RIVALS = 2


@dataclass(frozen=True)
class Start:
    """A proposed attribute `(n,)`: what proposed it, at which share."""

    source: str
    share: float
    attribute: IntArray


@dataclass(frozen=True)
class Partition:
    """A refined partition of the rows it was fitted on, and the mixture that assigns further rows.

    `close` says that it passes every line of the gate but that it is not clearly stronger than the class.
    """

    record: Candidate
    responsibilities: Array
    mixture: Mixture
    close: bool = False

    def assign(self, X: Array, y: IntArray, rows: IntArray) -> Array:
        """Responsibilities of all rows, `(n, 2)` float32; those of `rows`, where it was fitted, as they are."""
        R = self.mixture.responsibilities(X[:, : self.record.k], y).astype(np.float32)
        R[rows] = self.responsibilities
        return R


def find_partition(
    X: Array, y: IntArray, *, rng: np.random.Generator, gate: GateThresholds
) -> tuple[Partition | None, list[Partition], list[Candidate]]:
    """The partition with the largest relative strength that passes the gate, its rivals, and all that was tried.

    Rivals are other partitions that pass or are `close`, at most two: with several shortcuts one alone may be no
    stronger than the class with the others in it, and a mixture of them stronger than each.

    Where the attribute is known, the order by relative strength is that by precision: partitions by a natural style
    within the classes have a class contrast beside them that is nearly as large.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels 0 and 1, shape `(n,)`.
        rng: Source of the folds.
        gate: Its `refined_strength`, `relative`, and the tests of `mixture_verdict`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(1000, 32)); X[:, 0] += 6 * a; X[:, 1] += 2 * y
        >>> best, rivals, tried = find_partition(X, y, rng=rng, gate=GateThresholds())
        >>> best.record.k, bool(np.mean(best.mixture.responsibilities(X, y).argmax(axis=1) == a) > 0.99)
        (32, True)
    """
    starts = propose_starts(X, y, rng=rng)
    records: list[Candidate] = []
    best: Partition | None = None
    rivals: list[Partition] = []
    components = usable(tuple(min(c, X.shape[1]) for c in COMPONENTS), X.shape[1], len(y))
    for k in sorted(set(components), reverse=True):
        data = Moments.of(np.ascontiguousarray(X[:, :k]), y, 2)
        refined = [_refine(data, start, gate, rng=rng) for start in starts]
        records += [partition.record for partition in refined]
        passed = [p for p in refined if p.record.accepted]
        best = max(passed, key=lambda p: p.record.gain) if passed else best
        rivals += [p for p in refined if p.close or p.record.accepted]
        if best is not None and k <= COMPONENTS_PER_CONFLICT * best.record.conflicts * len(y):
            break
    return best, _distinct(rivals, best, y, gate), records


def _distinct(rivals: list[Partition], best: Partition | None, y: IntArray, gate: GateThresholds) -> list[Partition]:
    """The strongest partitions with conflicting examples of their own, without `best`."""
    kept = [] if best is None else [best]
    wanted = RIVALS + len(kept)
    for rival in sorted(rivals, key=lambda p: -p.record.gain):
        moved = rival.responsibilities.argmax(axis=1) != y
        others = (other.responsibilities.argmax(axis=1) != y for other in kept)
        if len(kept) < wanted and all(gates.jaccard(moved, other) < gate.jaccard for other in others):
            kept.append(rival)
    return kept if best is None else kept[1:]


def propose_starts(X: Array, y: IntArray, *, rng: np.random.Generator) -> list[Start]:
    """Trimmed discriminants, mixtures from held-out margins, cut components: those that differ from all before them."""
    starts = []
    for k in sorted({min(c, X.shape[1]) for c in usable(TRIMMED_COMPONENTS, X.shape[1], len(y))}):
        Xk = np.ascontiguousarray(X[:, :k])
        starts += [Start("trimmed", trim, trimmed_discriminant(Xk, y, 2, trim=trim).attribute) for trim in TRIMS]
    data = Moments.of(np.ascontiguousarray(X[:, : min(MARGIN_COMPONENTS, X.shape[1])]), y, 2)
    margin, rival = held_out_margins(data.X, y, 2, rng=rng)
    for share in MARGIN_SHARES:
        fit = fit_mixture(data, one_hot(propose(margin, rival, y, 2, share), 2))
        starts.append(Start("margins", share, fit.responsibilities(data.X, y).argmax(axis=1)))
    # A cut that does not go with the label, beyond chance, cannot become a shortcut.
    chance = gates.association_noise(y)
    for column in X[:, :CUT_COMPONENTS].T:
        above = (column > 0).astype(np.int64)
        attribute = above if np.mean(above == y) > 0.5 else 1 - above
        if gates.association(attribute, y, 2) > chance:
            starts.append(Start("component", 0.5, attribute))
    kept: list[Start] = []
    for start in starts:
        moved = start.attribute != y
        if moved.any() and all(gates.jaccard(moved, other.attribute != y) < SAME_START for other in kept):
            kept.append(start)
    return kept


def _refine(data: Moments, start: Start, gate: GateThresholds, *, rng: np.random.Generator) -> Partition:
    """Cross-fitted EM from one start, and the gate's word on the result."""
    k = data.X.shape[1]
    R = cross_fitted(data.X, data.y, one_hot(start.attribute, 2), rng=rng)
    moved = R.argmax(axis=1)
    mixture = partition_fit(data, R)
    shape = gates.geometry(mixture)
    relative = gates.relative_strength(shape, moved, data.y, k, gate)
    verdict = gates.refined_verdict(relative, shape, moved, data.y, k, gate)
    close = verdict != "accepted" and shape.strength >= gate.refined_strength and (
        gates.mixture_verdict(np.inf, shape, moved, data.y, k, gate) == "accepted"
    )  # fmt: skip
    record = Candidate(
        start.source, k, start.share, 100.0 * (relative - gate.relative), shape.cosine, shape.strength,
        shape.class_strength, gates.association(moved, data.y, 2), float(np.mean(moved != data.y)),
        accepted=verdict == "accepted", reason=verdict,
    )  # fmt: skip
    return Partition(record, R, mixture, close)
