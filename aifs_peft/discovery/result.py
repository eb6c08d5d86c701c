"""What `discover` returns: the partition, the directions, and everything that was tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.arrays import Array, BoolArray, IntArray

if TYPE_CHECKING:
    import pandas as pd

    from aifs_peft.discovery.hints.gain import KnownHeads


@dataclass(frozen=True)
class Candidate:
    """One attempt at an attribute, with the measurements the gate looks at.

    Args:
        source: What proposed it: `"margins"`, `"trimmed"`, `"component"`, `"trimmed+mixture"`,
            `"trimmed+refined"`, `"margins+refined"`, `"pairs+refined"` or `"hint:..."`.
        k: Number of principal components.
        share: Share of each class proposed as conflicting (margins), left out (trimmed) or cut off (component);
            `nan` for hints.
        gain: For two classes, and of a refined partition of more, 100 times the relative strength minus the gate's; of
            a mixture of more, `2 (ll - ll_null) - p log n` against the model without attribute (Schwarz's criterion,
            1978); of a trimmed discriminant, 100 times its score minus the gate's; of a named direction, the criterion
            against one centre per class. `nan` for known values.
        cosine: Between the centred class and attribute offsets in the `Sigma^-1` metric, in `[-1, 1]`. Near
            -1 only hard or mislabelled examples were moved.
        strength: `sqrt(2 mean_a |beta_a|^2)`, the attribute contrast in within-group standard deviations.
        class_strength: The same of the class offsets.
        association: Mean over `a` of `pi(a|a) - mean_{y != a} pi(a|y)`: 0 for an attribute independent of
            the label, 1 for one equal to it.
        conflicts: Share of examples whose attribute differs from their label.
        position: Median position of the conflicting examples between their own class centre (0) and the
            nearest other one (1) in the trimmed discriminant space, `nan` where not computed.
        separation: Smallest distance of class centres in that space, in standard deviations.
        support: Of a refined partition of more than two classes, the share of the other starts that end there; of one
            that pairs of classes proposed, the share of the pairs that show it.
        accepted: Whether it passed the gate.
        reason: Why not, or `"accepted"`.
    """

    source: str
    k: int
    share: float
    gain: float
    cosine: float
    strength: float
    class_strength: float
    association: float
    conflicts: float
    position: float = float("nan")
    separation: float = float("nan")
    support: float = float("nan")
    accepted: bool = False
    reason: str = ""


@dataclass(frozen=True, repr=False, eq=False)
class Discovery:
    """A spurious attribute found without group labels, or the statement that none was found.

    Several attributes are told as one joint attribute, whose `A = K**m` values are the combinations of theirs. The
    first `K` values are those where all of them go with the same class; the others follow in lexicographic order
    (two classes, two attributes: 00, 11, 01, 10). With one attribute `A = K`.

    Attributes:
        found: Whether a candidate passed the gate and was confirmed.
        classes_: The distinct labels, sorted, shape `(K,)`. Attribute value `a < K` is the one that goes with
            `classes_[a]`.
        labels_: Index of each example's label in `classes_`, shape `(n,)`.
        groups_: Inferred attribute value per example, in `[0, A)`, shape `(n,)`. Equal to `labels_` where aligned;
            equal to it everywhere when nothing was found. Compare it with `labels_`, not with the labels themselves,
            or take `conflicting_`.
        conflicting_: Which examples carry another class's attribute value, bool, shape `(n,)`; of several attributes in
            at least one. All `False` when nothing was found.
        responsibilities_: Posterior of the attribute, shape `(n, A)`, rows sum to one.
        basis_: Orthonormal spurious directions in the input space, shape `(d, r)`, `r <= m (K - 1)`; `r = 0`
            when nothing was found.
        displacements_: Attribute offsets `beta_a` in the input space, shape `(A, d)`, mean zero; zero when
            nothing was found. Adding `displacements_[b] - displacements_[a]` to a latent gives its
            counterfactual. Smoothed: components in which the class shows no signal go to the attribute.
        class_displacements_: Class offsets `alpha_y` with the attribute held constant, `(K, d)`, mean zero.
        evidence_: How far the accepted candidate lies above its gate; above 0 when found, 0.0 when nothing passed. Its
            unit depends on the source. Two classes: 100 times the attribute's strength relative to the class's, minus
            the gate's. More classes, refined starts: the same, with a gate of their own; a mixture: its penalised
            log-likelihood gain `2 (ll - ll_null) - p log n` per 1,000 examples; a trimmed discriminant: 100 times its
            score minus the gate's. A hint: the attribute's association with the label in standard errors of chance.
            Several attributes: the smallest of theirs, a sign only where their sources, and so the units, differ.
        candidates_: Everything that was tried in searches that found something, or in the first one, with the gate's
            measurements.
        message_: What was found, or why nothing was; which hint was used, and why another was not.
        source_: Source of the candidate that was accepted (first), see `Candidate`; empty when nothing was found.
        rough_: Whether no mixture confirms the partition of more than two classes: expect that part of the conflicting
            examples is missed or takes a wrong value, and that class and attribute interact.
        parts_: Where several attributes were found, each of them in the order found, with `K` values of its own; empty
            otherwise.
        heads_: Where few values were given as `groups`: how heads with and without them fare on known examples that
            were held out, for `AIFSClassifier`; `None` otherwise.
    """

    found: bool
    classes_: NDArray[Any]
    labels_: IntArray
    groups_: IntArray
    responsibilities_: Array
    basis_: Array
    displacements_: Array
    class_displacements_: Array
    evidence_: float
    candidates_: tuple[Candidate, ...] = field(default_factory=tuple)
    message_: str = ""
    source_: str = ""
    rough_: bool = False
    parts_: tuple[Discovery, ...] = ()
    heads_: KnownHeads | None = None

    @property
    def conflicting_(self) -> BoolArray:
        """Which examples carry another class's attribute value, shape `(n,)`; see the class."""
        return np.asarray(self.groups_ != self.labels_)

    def __repr__(self) -> str:
        n, d = len(self.labels_), len(self.basis_)
        if not self.found:
            return f"Discovery(found=False, {n:,} examples, width {d})"
        conflicting = int(np.count_nonzero(self.conflicting_))
        several = f"{len(self.parts_)} attributes, " if self.parts_ else ""
        return (
            f"Discovery(found=True, {several}{conflicting:,} of {n:,} examples conflicting, "
            f"evidence={self.evidence_:.1f}, {self.basis_.shape[1]} direction(s) of width {d}, source={self.source_!r})"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per example, in the order given, as a `pandas.DataFrame`.

        Returns:
            Columns `row` (position of the example), `label`, `inferred` (the class whose attribute value it carries; of
            several attributes a tuple of classes, see `parts_` for each alone), `confidence` (posterior of that value)
            and `conflicting`. When nothing was found `inferred` is `None` and `confidence` NaN: nothing was inferred.

        Example:
            >>> from aifs_peft.discovery import discover
            >>> rng = np.random.default_rng(0)
            >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
            >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 7 * a; Z[:, 1] += 2 * y
            >>> frame = discover(Z, np.array(["car", "truck"])[y], random_state=0).to_frame()
            >>> frame[frame.conflicting].sort_values("confidence", ascending=False).columns.tolist()
            ['row', 'label', 'inferred', 'confidence', 'conflicting']
            >>> set(frame[frame.conflicting & (frame.label == "car")].inferred)
            {'truck'}
        """
        import pandas as pd

        n = len(self.labels_)
        inferred: Any = np.full(n, None, dtype=object)
        confidence = np.full(n, np.nan)
        if self.found:
            confidence = self.responsibilities_[np.arange(n), self.groups_].astype(np.float64)
            if self.parts_:
                columns = (part.classes_[part.groups_].tolist() for part in self.parts_)
                inferred = pd.Series(list(zip(*columns, strict=True)), dtype=object)
            else:
                inferred = self.classes_[self.groups_]
        return pd.DataFrame(
            {
                "row": np.arange(n),
                "label": self.classes_[self.labels_],
                "inferred": inferred,
                "confidence": confidence,
                "conflicting": self.conflicting_,
            }
        )

    def summary(self) -> str:
        """A text that a person can read: the verdict, the cells, and the candidates that came closest."""
        lines = [self.message_]
        if self.found:
            labels = [str(c) for c in self.classes_]
            lines.append(
                f"Evidence {self.evidence_:.1f} (0 is the gate); {self.basis_.shape[1]} spurious direction(s)."
            )
            lines += [f"Inferred attribute value: {_shares(part.groups_, labels)}." for part in self.parts_ or (self,)]
        tried = sorted(
            self.candidates_, key=lambda c: (c.accepted, float(np.nan_to_num(c.gain, nan=np.inf))), reverse=True
        )
        accepted = sum(c.accepted for c in tried)
        lines.append(f"{len(tried)} candidates tried, {accepted} passed the gate.")
        if tried:
            lines.append("  source            k  share    gain  cosine  |beta| |alpha|  assoc  conflicts  verdict")
        lines += [
            f"  {c.source:15s} {c.k:4d} {c.share:6.2f} {c.gain:7.0f} {c.cosine:7.2f} {c.strength:7.2f} "
            f"{c.class_strength:7.2f} {c.association:6.2f} {c.conflicts:10.3f}  {c.reason}"
            for c in tried[:8]
        ]
        return "\n".join(lines)


def _shares(values: IntArray, labels: list[str]) -> str:
    shares = np.bincount(values, minlength=len(labels)) / max(len(values), 1)
    shown = [f"that of class {name}: {share:.1%}" for name, share in zip(labels[:10], shares[:10], strict=True)]
    return ", ".join(shown) + (", ..." if len(labels) > 10 else "")
