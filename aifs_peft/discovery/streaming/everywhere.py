"""From what was found on the held rows to all rows, in one pass over the blocks.

The rows that were not held are assigned by the additive model that the held ones give, and the offsets of class and
attribute are estimated anew from sums over all rows: `k x k` numbers, added up in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, one_hot, orthonormal_basis
from aifs_peft.discovery.assemble import joined, share_told
from aifs_peft.discovery.claims import Claim
from aifs_peft.discovery.config import DiscoveryConfig
from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.mixture.additive import AdditiveMoments, split_by_signal
from aifs_peft.discovery.mixture.em import Mixture, Moments, partition_fit
from aifs_peft.discovery.mixture.refine import Sharpened, sharpened
from aifs_peft.discovery.principal_components import Reduction, usable_components
from aifs_peft.discovery.result import Discovery
from aifs_peft.discovery.streaming.source import LatentSource


@dataclass(frozen=True)
class HeldRows:
    """The rows that are held, and all that belongs to them.

    Args:
        rows: Their rising numbers.
        X: Their reduced latents, shape `(rows, k)`.
        reduction: Of the latents.
    """

    rows: IntArray
    X: Array
    reduction: Reduction


@dataclass(frozen=True)
class _Rule:
    """How one attribute is read off further rows.

    Args:
        model: The additive mixture, or the discriminant of a rough partition.
        k: How many of the leading coordinates it reads.
        known: Of the hint that it came by: values `(n,)`, -1 where unknown, and how likely each is given the attribute,
            shape `(A, K)`.
    """

    model: Mixture | Sharpened
    k: int
    known: tuple[IntArray, Array] | None

    def responsibilities(self, X: Array, y: IntArray, part: slice) -> Array:
        """Posterior of the attribute of the rows `part`, float32."""
        R = self.model.responsibilities(X[:, : self.k], y).astype(np.float32)
        if self.known is not None:
            values, table = self.known
            told = np.flatnonzero(values[part] >= 0)
            R[told] *= table[values[part][told]].astype(np.float32)
            R[told] /= np.maximum(R[told].sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return R


def everywhere(
    found: Discovery,
    held: HeldRows,
    source: LatentSource,
    labels: IntArray,
    *,
    hints: Sequence[Claim] = (),
    config: DiscoveryConfig,
) -> Discovery:
    """What was found on the held rows, told of all rows.

    Args:
        found: By the search on the held rows.
        held: Those.
        source: All latents.
        labels: Of all rows, in `0..K-1`, shape `(n,)`.
        hints: Candidates of the user, for all rows.
        config: All settings.

    Returns:
        The same discovery with the posterior of every row. Held rows keep theirs. Offsets that no hint has given are
        those of all rows.
    """
    heads = found.heads_
    if heads is not None:
        values = np.full(len(labels), -1, dtype=heads.values.dtype)
        values[held.rows] = heads.values
        found = replace(found, heads_=replace(heads, values=values))
    told = f" The search looked at a sample of {len(held.rows)} of {len(labels)} examples."
    if not found.found:
        return replace(
            found,
            labels_=labels,
            groups_=labels.copy(),
            responsibilities_=one_hot(labels, len(found.classes_), np.float32),
            message_=found.message_ + told,
        )
    told += " What it found was read off all of them."
    parts = found.parts_ or (found,)
    rules = [_rule(part, held, labels, hints, config) for part in parts]
    posteriors, moments = _assign_all(parts, rules, held, source, labels)
    offsets = None
    if found.parts_ or not found.source_.startswith("hint:"):
        offsets = split_by_signal(moments.fit(), config=config.mixture)
    return _told_of_all(found, posteriors, offsets, held, labels, told)


def _rule(part: Discovery, held: HeldRows, labels: IntArray, hints: Sequence[Claim], config: DiscoveryConfig) -> _Rule:
    """The rule that the held rows give for one attribute."""
    R, y = part.responsibilities_, labels[held.rows]
    K = R.shape[1]
    if part.rough_:
        k = held.X.shape[1]
        model: Mixture | Sharpened = sharpened(held.X, y, R, config=config)
    else:
        # As in the search: with few conflicting examples their noise in many components hides the others.
        own, conflicting = config.two_classes, int(np.count_nonzero(part.groups_ != y))
        k = usable_components(own.components, held.X.shape[1], own.components_per_conflict * conflicting, 1)[-1]
        model = partition_fit(Moments.of(np.ascontiguousarray(held.X[:, :k]), y, K), R, config=config.mixture)
    hint = next((h for h in hints if isinstance(h, Hint) and h.source == part.source_), None)
    if hint is None:
        return _Rule(model, k, None)
    values = hint.values[held.rows]
    told = values >= 0
    table = one_hot(values[told], hint.n_values).T @ R[told] + 1e-9
    return _Rule(model, k, (hint.values, table / table.sum(axis=0)))


def _assign_all(
    parts: Sequence[Discovery], rules: Sequence[_Rule], held: HeldRows, source: LatentSource, labels: IntArray
) -> tuple[list[Array], AdditiveMoments]:
    """The posterior of each attribute for all rows, and the sums over all rows; one pass."""
    K = len(parts[0].classes_)
    posteriors = [np.zeros((len(labels), K), dtype=np.float32) for _ in parts]
    moments: AdditiveMoments | None = None
    first, last = len(labels), 0
    for rows, block in source.blocks():
        X, y = held.reduction.transform(block), labels[rows]
        low, high = np.searchsorted(held.rows, [rows.start, rows.stop])
        for part, rule, R in zip(parts, rules, posteriors, strict=True):
            R[rows] = rule.responsibilities(X, y, rows)
            R[held.rows[low:high]] = part.responsibilities_[low:high]
        own = AdditiveMoments.of(X, y, np.stack([R[rows] for R in posteriors], axis=1))
        moments = own if moments is None else moments + own
        first, last = min(first, rows.start), rows.stop
    assert moments is not None  # noqa: S101 - every process has rows
    processes = source.processes
    sums: list[Any] = [processes.total(np.asarray(getattr(moments, f.name))) for f in fields(moments)]
    return [processes.gather_rows(R[first:last]) for R in posteriors], AdditiveMoments(*sums)


def _told_of_all(
    found: Discovery,
    posteriors: list[Array],
    offsets: tuple[Array, Array] | None,
    held: HeldRows,
    labels: IntArray,
    told: str,
) -> Discovery:
    """The result with the posteriors and the offsets of all rows."""
    message = found.message_
    parts = []
    for part, R in zip(found.parts_ or (found,), posteriors, strict=True):
        groups = R.argmax(axis=1).astype(np.int64)
        before, after = share_told(part.groups_, part.labels_), share_told(groups, labels)
        message = message.replace(before, after, 1)
        parts.append(
            replace(
                part,
                labels_=labels,
                groups_=groups,
                responsibilities_=R,
                message_=part.message_.replace(before, after, 1),
            )
        )
    if found.parts_:
        assert offsets is not None  # noqa: S101 - several attributes are always fitted together
        result = joined(parts, offsets, held.reduction)
        return replace(result, candidates_=found.candidates_, evidence_=found.evidence_, message_=message + told)
    result = replace(parts[0], message_=message + told)
    if offsets is None:
        return result
    class_displacements, displacements = (held.reduction.lift(part - part.mean(axis=0)) for part in offsets)
    return replace(
        result,
        basis_=orthonormal_basis(displacements, len(found.classes_) - 1),
        displacements_=displacements,
        class_displacements_=class_displacements,
    )
