"""From responsibilities in reduced coordinates to the `Discovery` that is returned, in those of the latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.arrays import Array, IntArray, one_hot, orthonormal_basis
from aifs_peft.discovery.claims import Claim
from aifs_peft.discovery.config import DEFAULT_CONFIG, DiscoveryConfig, GateThresholds, MixtureConfig
from aifs_peft.discovery.gate import association_error
from aifs_peft.discovery.hints.judge import Hinted
from aifs_peft.discovery.hints.named import Named
from aifs_peft.discovery.mixture.additive import model_given_offsets, smoothed_offsets
from aifs_peft.discovery.mixture.joint import joint_offsets, joint_responsibilities
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.reduced import ReducedLatents
from aifs_peft.discovery.result import Candidate, Discovery
from aifs_peft.discovery.unlabelled.pool import UNLABELLED


def nothing_found(d: int, y: IntArray, classes: NDArray[Any], tried: list[Candidate], why: str) -> Discovery:
    """The statement that nothing was found, and why.

    Args:
        d: Width of the latents.
        y: Labels, indices into the classes, shape `(n,)`.
        classes: Labels as the user gave them, shape `(K,)`.
        tried: All candidates.
        why: The reason, as the end of a sentence.

    Example:
        >>> print(nothing_found(3, np.array([0, 1]), np.array(["no", "yes"]), [], "too few examples").message_)
        No spurious direction found: too few examples.
    """
    K = len(classes)
    return Discovery(
        found=False,
        classes_=classes,
        labels_=y,
        groups_=y.copy(),
        responsibilities_=one_hot(y, K, np.float32),
        basis_=np.zeros((d, 0)),
        displacements_=np.zeros((K, d)),
        class_displacements_=np.zeros((K, d)),
        evidence_=0.0,
        candidates_=tuple(tried),
        message_=f"No spurious direction found: {why}.",
    )


def found_by_hint(
    hint: Hinted,
    records: list[Candidate],
    reduction: Reduction,
    X: ReducedLatents,
    y: IntArray,
    classes: NDArray[Any],
    config: DiscoveryConfig,
) -> Discovery:
    """The result of an accepted hint; its evidence is its tie to the label in standard errors of chance.

    Args:
        hint: The hint, with responsibilities.
        records: All candidates.
        reduction: Of the latents.
        X: Reduced latents, shape `(n, k)`.
        y: Labels, indices into the classes, shape `(n,)`.
        classes: Labels as the user gave them, shape `(K,)`.
        config: How offsets are split.
    """
    R = hint.responsibilities
    assert R is not None  # noqa: S101 - accepted hints carry responsibilities
    alpha, beta = smoothed_offsets(X, y, R, config=config.mixture)
    if hint.offsets is not None:
        beta[:, : hint.offsets.shape[1]] = hint.offsets
        alpha = model_given_offsets(X[:], y, R, beta).alpha
    evidence = hint.record.association / association_error(y)
    return found_partition(R, (alpha, beta), evidence, hint.record.source, records, reduction, y, classes)


def rests_on_hint(found: Discovery, gate: GateThresholds = DEFAULT_CONFIG.gate) -> bool:
    """Whether the head should take the hint's own offsets: few or no values are known, and the rest are hard to tell.

    Never so for several attributes, whose offsets are fitted together.

    Args:
        found: What was found.
        gate: Below its `strength`, an attribute's values cannot be told apart example by example.
    """
    if found.parts_:
        return False
    used = [c for c in found.candidates_ if c.accepted and c.source == found.source_]
    named = found.source_.startswith(("hint:groups", "hint:metadata:", UNLABELLED))
    certain = float(np.mean(found.responsibilities_.max(axis=1) == 1.0))
    return named and certain < 0.5 and used[0].strength < gate.strength


def found_partition(
    R: Array,
    offsets: tuple[Array, Array],
    evidence: float,
    source: str,
    records: list[Candidate],
    reduction: Reduction,
    y: IntArray,
    classes: NDArray[Any],
) -> Discovery:
    """The result over all rows.

    Args:
        R: Responsibilities, shape `(n, K)`.
        offsets: Class and attribute offsets in reduced coordinates, each `(K, k)`.
        evidence: See `Discovery.evidence_`.
        source: Of the candidate that was accepted.
        records: All candidates.
        reduction: Of the latents.
        y: Labels, indices into the classes, shape `(n,)`.
        classes: Labels as the user gave them, shape `(K,)`.
    """
    groups = R.argmax(axis=1).astype(np.int64)
    class_displacements, displacements = (reduction.lift(part - part.mean(axis=0)) for part in offsets)
    by = f" Used: {_words(source)}." if source.startswith("hint:") else ""
    return Discovery(
        found=True,
        classes_=classes,
        labels_=y,
        groups_=groups,
        responsibilities_=R,
        basis_=orthonormal_basis(displacements, len(classes) - 1),
        displacements_=displacements,
        class_displacements_=class_displacements,
        evidence_=float(evidence),
        candidates_=tuple(records),
        message_=share_told(groups, y) + by,
        source_=source,
    )


def share_told(groups: IntArray, y: IntArray) -> str:
    """How many examples conflict, in words.

    Args:
        groups: Inferred attribute values, shape `(n,)`.
        y: Labels, likewise.

    Example:
        >>> share_told(np.array([0, 1, 1, 0]), np.array([0, 1, 1, 1]))
        "Spurious direction found: 25.0% of 4 examples carry another class's attribute value."
    """
    share = float(np.mean(groups != y))
    return f"Spurious direction found: {share:.1%} of {len(y)} examples carry another class's attribute value."


def _words(source: str) -> str:
    return "the unlabelled examples" if source == UNLABELLED else source


def tell_unused(
    result: Discovery, hints: Sequence[Claim], dropped: Sequence[Candidate] = (), *, most_told: int
) -> Discovery:
    """The same result; its message also says of each hint that was not used why.

    Args:
        result: What was found.
        hints: Candidates of the user.
        dropped: Their verdicts in searches that gave nothing new; they come last.
        most_told: Of more named attributes than this only the number is told.
    """
    result = replace(result, candidates_=(*result.candidates_, *dropped))
    used = {part.source_ for part in result.parts_ or (result,)}
    told, unused = "", [hint for hint in hints if hint.source not in used]
    named = [hint for hint in unused if isinstance(hint, Named)]
    if len(named) > most_told:
        told = f" {len(named)} named attributes that were tried were not used; candidates_ has each with its reason."
        unused = [hint for hint in unused if not isinstance(hint, Named)]
    for hint in unused:
        # Judged beside each attribute in turn: the last verdict is the one beside all that were found.
        verdicts = [candidate for candidate in result.candidates_ if candidate.source == hint.source]
        if verdicts:
            why = "weaker than what was found" if verdicts[-1].accepted else verdicts[-1].reason
            were = "The unlabelled examples were" if hint.source == UNLABELLED else f"{hint.source} was"
            told += f" {were} not used: {why}."
    return replace(result, message_=result.message_ + told)


def join(
    parts: Sequence[Discovery],
    X: ReducedLatents,
    reduction: Reduction,
    y: IntArray,
    *,
    alone: Discovery,
    config: MixtureConfig,
) -> Discovery:
    """Several attributes as one: offsets of class and attributes are fitted together.

    Args:
        parts: What each search found, all with the same classes.
        X: Reduced latents, shape `(n, k)`, with all directions.
        reduction: Of the latents.
        y: Labels, indices into the classes, shape `(n,)`.
        alone: What the search with all directions gave, where that is none of them.
        config: How offsets are split.
    """
    R = np.stack([part.responsibilities_ for part in parts], axis=1)
    result = joined(parts, smoothed_offsets(X, y, R, config=config), reduction)
    told = " ".join(f"({number}) {part.message_}" for number, part in enumerate(parts, 1))
    searches = list(parts)
    if parts[0] is not alone:
        told += f" With all directions: {alone.message_}"
        searches.insert(0, alone)
    return replace(
        result,
        candidates_=tuple(candidate for search in searches for candidate in search.candidates_),
        message_=f"{len(parts)} spurious attributes found. {told}",
    )


def joined(parts: Sequence[Discovery], offsets: tuple[Array, Array], reduction: Reduction) -> Discovery:
    """Several attributes as one, for offsets that were fitted together; candidates and message are the first one's.

    Args:
        parts: What each search found, all with the same classes.
        offsets: Of the classes, shape `(K, k)`, and of the attributes below each other, shape `(m * K, k)`.
        reduction: Of the latents.
    """
    m, K = len(parts), len(parts[0].classes_)
    alpha, beta = offsets
    each = reduction.lift(beta).reshape(m, K, -1)
    classes = reduction.lift(alpha)
    R = joint_responsibilities([part.responsibilities_ for part in parts])
    own = tuple(
        replace(part, displacements_=offset, class_displacements_=classes, basis_=orthonormal_basis(offset, K - 1))
        for part, offset in zip(parts, each, strict=True)
    )
    return replace(
        parts[0],
        groups_=R.argmax(axis=1).astype(np.int64),
        responsibilities_=R,
        basis_=orthonormal_basis(np.concatenate(list(each)), m * (K - 1)),
        displacements_=joint_offsets(each),
        class_displacements_=classes,
        evidence_=min(part.evidence_ for part in parts),
        rough_=any(part.rough_ for part in parts),
        parts_=own,
    )
