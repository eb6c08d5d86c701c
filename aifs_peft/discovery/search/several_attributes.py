"""Several attributes: each is looked for in latents without the directions of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, orthonormal_basis
from aifs_peft.discovery.claims import Claim
from aifs_peft.discovery.config import DiscoveryConfig, GateThresholds
from aifs_peft.discovery.gate import jaccard
from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.mixture.additive import smoothed_offsets
from aifs_peft.discovery.principal_components import Reduction, without_directions
from aifs_peft.discovery.reduced import ReducedLatents
from aifs_peft.discovery.result import Candidate, Discovery
from aifs_peft.discovery.search.finding import Partition


def further_gate(gate: GateThresholds, n_classes: int) -> GateThresholds:
    """What is asked of an attribute once another has been found.

    Args:
        gate: What is asked of the first.
        n_classes: `K`.

    Example:
        >>> further_gate(GateThresholds(), 4).cosine, further_gate(GateThresholds(), 2).cosine
        (-0.3, -0.8)
    """
    gate = replace(gate, association=max(gate.association, gate.further_association))
    if n_classes == 2:
        return gate
    cosine, explained = (max(limit, gate.further_cosine) for limit in (gate.cosine, gate.explained_cosine))
    return replace(gate, cosine=cosine, explained_cosine=explained)


@dataclass(frozen=True)
class FurtherSearch:
    """The search for further attributes, in latents without the directions of those found.

    Args:
        X: Reduced latents, shape `(n, k)`.
        reduction: Of the latents.
        labels: Indices of the classes, shape `(n,)`.
        rows: Rows that candidates are fitted on.
        config: All settings; the gate's `jaccard` says which attributes are the same.
        find: `find_attribute` for any reduced latents, their reduction and hints.
        rng: Source of row samples.
        hints: Candidates of the user; each is judged again beside the attributes that were found without it.
        dropped: Hints' verdicts of searches that gave nothing new, in their order.
    """

    X: ReducedLatents
    reduction: Reduction
    labels: IntArray
    rows: IntArray
    config: DiscoveryConfig
    find: Callable[..., tuple[Discovery, tuple[Partition, ...]]]
    rng: np.random.Generator
    hints: Sequence[Claim] = ()
    dropped: list[Candidate] = field(default_factory=list)

    def without(self, bases: Sequence[Array], hints: Sequence[Claim] = ()) -> Discovery | None:
        """What is found in latents without some directions, or `None`.

        Args:
            bases: Orthonormal directions to leave out, each `(d, r)`.
            hints: Candidates of the user to judge there.
        """
        X, reduction = self.X, self.reduction
        for basis in bases:
            if basis.shape[1] >= reduction.dim:
                return None
            X, reduction = without_directions(X, reduction, basis, rng=self.rng, config=self.config.reduction)
        moved = [h if isinstance(h, Hint) else h.within(self.reduction, reduction) for h in hints]
        found, _ = self.find(X, reduction, hints=moved)
        if found.found:
            return found
        self._drop(found)
        return None

    def _drop(self, found: Discovery, why: str = "") -> None:
        """Keep the hints' verdicts of a search whose result is not used; `why` is told of the hint that it used."""
        for candidate in found.candidates_:
            if candidate.source.startswith("hint:"):
                used = bool(why) and candidate.accepted and candidate.source == found.source_
                self.dropped.append(replace(candidate, accepted=False, reason=why) if used else candidate)

    def extend(self, parts: list[Discovery], most: int) -> list[Discovery]:
        """Attributes found one after the other, each with conflicting examples of its own.

        Args:
            parts: Those that were found so far.
            most: How many to look for in all.
        """
        parts = list(parts)
        hints = [hint for hint in self.hints if hint.source not in {part.source_ for part in parts}]
        while len(parts) < most:
            further = self.without([part.basis_ for part in parts], hints)
            if further is None:
                break
            if self._differ(*parts, further):
                parts.append(further)
            else:
                self._drop(further, "the same attribute as one that was found")
                if not further.source_.startswith("hint:"):
                    break
            # A hint that repeats an attribute must not hide the others.
            hints = [hint for hint in hints if hint.source != further.source_]
        return parts

    def pair(self, rival: Partition, alone: Discovery) -> list[Discovery]:
        """Two attributes of which each is found in latents without the other's directions, or none.

        While another shortcut that goes with the label counts as part of the class, neither is clearly stronger than
        it, or a mixture of both is. Where one of the two is what was found `alone`, the other was looked for in vain;
        and a mixture is less clear than the clearer of the two.

        Args:
            rival: Partition to start from, fitted on `rows` of `X`.
            alone: What the search with all directions gave.

        Returns:
            Two attributes, or an empty list.
        """
        # Where to look from is all that is asked of it: the rows that it was fitted on are enough.
        R, rows = rival.responsibilities, self.rows
        offsets = smoothed_offsets(self.X[rows], self.labels[rows], R.astype(np.float32), config=self.config.mixture)[1]
        second = self.without([orthonormal_basis(self.reduction.lift(offsets), R.shape[1] - 1)])
        if second is None or not self._differ(second, alone):
            return []
        first = self.without([second.basis_])
        if first is None or not self._differ(first, second, alone):
            return []
        return [first, second] if max(first.evidence_, second.evidence_) > alone.evidence_ else []

    def _differ(self, *found: Discovery) -> bool:
        """Whether each has conflicting examples of its own."""
        moved = [one.groups_ != self.labels for one in found]
        return all(jaccard(one, other) < self.config.gate.jaccard for one, other in combinations(moved, 2))
