"""`discover`: find the spurious directions of latents without group labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.additive import model_given_offsets, smoothed_offsets
from aifs_peft.discovery.binary import find_partition
from aifs_peft.discovery.gate import DEFAULT_GATE, GateThresholds
from aifs_peft.discovery.hints import Hint, Hinted, groups_hint, judge_hint, metadata_hints
from aifs_peft.discovery.mixture import Moments, null_log_likelihood
from aifs_peft.discovery.named import Named, judge_named, named_hints
from aifs_peft.discovery.reduce import MAX_COMPONENTS, Reduction, principal_components
from aifs_peft.discovery.refine import refine_attribute
from aifs_peft.discovery.result import Array, Candidate, Discovery, IntArray
from aifs_peft.discovery.search import (
    COMPONENTS,
    Attempt,
    agree,
    best_per_k,
    mixture_attempt,
    one_hot,
    scan_trimmed,
    usable,
)
from aifs_peft.discovery.validation import MIN_PER_CLASS, MIN_ROWS, as_latents, encode_labels

# Rows that the candidates are fitted on; the final assignment goes over all rows.
MAX_FIT_ROWS = 10_000


def discover(
    Z: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    metadata: Any = None,
    attributes: Any = None,
    random_state: int | np.random.RandomState | None = None,
    gate: GateThresholds = DEFAULT_GATE,
    max_fit_rows: int = MAX_FIT_ROWS,
) -> Discovery:
    """Find a spurious attribute in latents `Z` with labels `y`, without group labels.

    A spurious attribute that goes with the label for most examples leaves, inside each class, a small
    cluster that is displaced towards the other classes along the attribute's direction. Candidates for that
    cluster come from held-out mistakes of a simple head and from a trimmed discriminant, at several numbers
    of principal components; each is refined by an additive latent mixture, must pass one gate, and must be
    confirmed at another number of components. Time and memory grow linearly in `n`.

    Attributes too weak for that can be found with a hint: values known for a few examples, metadata columns, or
    directions that name the attribute. Hints are candidates with a gate of their own, see `docs/discovery.md`; one
    that does not pass changes nothing.

    Args:
        Z: Latents, shape `(n, d)`: NumPy array or torch tensor, any float type. Any rotation or common scale.
        y: Labels, shape `(n,)`, integers or strings, at least two classes.
        groups: Attribute value of each example, integers from 0, -1 where unknown, shape `(n,)`.
        metadata: `DataFrame` or mapping of names to `(n,)` values: each column may be the attribute.
        attributes: Mapping of names to directions, `(d,)` or one per attribute value `(A, d)`; see `embed_prompts`.
        random_state: Seed of the folds and, above `max_fit_rows` rows, of the sample.
        gate: Thresholds; the defaults are calibrated.
        max_fit_rows: Candidates are fitted on a random sample of this many rows; the result covers all.

    Returns:
        A `Discovery`; `found` is `False` where nothing passed, and also (with the reason in `message_`) for
        fewer than 50 examples or fewer than 5 in a class, which are too few to tell a minority from chance.

    Raises:
        InvalidInputError: For NaN or infinite latents, wrong shapes, one class only, or latents that are all
        equal.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> result = discover(Z, y, random_state=0)
        >>> result.found, bool(np.mean(result.groups_ == a) > 0.99), result.basis_.shape
        (True, True, (16, 1))
    """
    latents = as_latents(Z)
    classes, labels = encode_labels(y, len(latents))
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
    reduction = principal_components(latents, MAX_COMPONENTS, rng=rng)
    X = reduction.transform(latents)
    hints = collect_hints(reduction, len(latents), groups=groups, metadata=metadata, attributes=attributes)
    return discover_reduced(X, reduction, labels, classes, rng=rng, hints=hints, gate=gate, max_fit_rows=max_fit_rows)


def collect_hints(
    reduction: Reduction, n: int, *, groups: ArrayLike | None = None, metadata: Any = None, attributes: Any = None
) -> list[Hint | Named]:
    """The hints of `discover` for `n` examples, checked."""
    hints: list[Hint | Named] = []
    if groups is not None:
        hints.append(groups_hint(groups, n))
    if metadata is not None:
        hints += metadata_hints(metadata, n)
    if attributes is not None:
        hints += named_hints(attributes, reduction)
    return hints


def discover_reduced(
    X: Array,
    reduction: Reduction,
    labels: IntArray,
    classes: NDArray[Any],
    *,
    rng: np.random.Generator,
    hints: Sequence[Hint | Named] = (),
    gate: GateThresholds = DEFAULT_GATE,
    max_fit_rows: int = MAX_FIT_ROWS,
) -> Discovery:
    """`discover` for latents that are already checked and reduced: `X (n, k)` by `reduction`, labels as indices."""
    d, K, smallest = reduction.components.shape[1], len(classes), int(np.bincount(labels).min())
    if smallest < MIN_PER_CLASS or len(labels) < MIN_ROWS:
        why = f"too few examples to tell: {len(labels)} in all (needs {MIN_ROWS}), smallest class {smallest} "
        return _nothing(d, labels, classes, [], why + f"(needs {MIN_PER_CLASS})")
    rows = _fit_rows(labels, max_fit_rows, rng)
    # Hints draw from a source of their own: with a hint that fails, the rest is what it is without one.
    hint_rng = rng.spawn(1)[0]
    hinted = [_judge(X, labels, K, hint, rng=hint_rng, gate=gate, rows=rows) for hint in hints]
    own = (_search_binary if K == 2 else _search_many)(X, labels, K, rows, rng=rng, gate=gate)
    records = [h.record for h in hinted] + own.tried
    hint = _preferred(hinted, own, labels, rows)
    if hint is not None:
        return _describe_hint(hint, records, reduction, X, labels, classes)
    if own.responsibilities is None or own.record is None:
        result = _nothing(d, labels, classes, records, own.why)
    else:
        offsets = smoothed_offsets(X, labels, own.responsibilities)
        result = _found(
            own.responsibilities, offsets, own.evidence, own.record.source, records, reduction, labels, classes
        )
    unused = "".join(
        f" {h.record.source} was not used: {'weaker than what was found' if h.record.accepted else h.record.reason}."
        for h in hinted
    )
    return replace(result, message_=result.message_ + unused, rough_=own.rough)


@dataclass(frozen=True)
class _Own:
    """What the search without hints gives: responsibilities of all rows, or `None` and why."""

    responsibilities: Array | None
    record: Candidate | None
    evidence: float
    tried: list[Candidate]
    why: str = ""
    rough: bool = False


def _search_binary(
    X: Array, y: IntArray, K: int, rows: IntArray, *, rng: np.random.Generator, gate: GateThresholds
) -> _Own:
    """Two classes: the partition that passes the gate with the largest relative strength."""
    del K
    partition, tried = find_partition(X[rows], y[rows], rng=rng, gate=gate)
    if partition is None:
        return _Own(None, None, 0.0, tried, f"none of {len(tried)} candidates passed the gate")
    R = partition.mixture.responsibilities(X[:, : partition.record.k], y).astype(np.float32)
    R[rows] = partition.responsibilities
    return _Own(R, partition.record, partition.record.gain, tried)


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


def _fit_rows(y: IntArray, limit: int, rng: np.random.Generator) -> IntArray:
    """Rows to fit on: all, or a sample that keeps at least 50 of each class."""
    if len(y) <= limit:
        return np.arange(len(y))
    chosen = rng.permutation(len(y))[:limit]
    rare = np.flatnonzero(np.bincount(y[chosen], minlength=y.max() + 1) < 50)
    missing = [np.flatnonzero(y == c)[:50] for c in rare]
    return np.unique(np.concatenate([chosen, *missing]))


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


def _nothing(d: int, y: IntArray, classes: NDArray[Any], tried: list[Candidate], why: str) -> Discovery:
    K = len(classes)
    return Discovery(
        found=False,
        classes_=classes,
        groups_=y.copy(),
        responsibilities_=one_hot(y, K, np.float32),
        basis_=np.zeros((d, 0)),
        displacements_=np.zeros((K, d)),
        class_displacements_=np.zeros((K, d)),
        evidence_=0.0,
        candidates_=tuple(tried),
        message_=f"No spurious direction found: {why}.",
    )


def _describe_hint(
    hint: Hinted, records: list[Candidate], reduction: Reduction, X: Array, y: IntArray, classes: NDArray[Any]
) -> Discovery:
    """The result of an accepted hint; its evidence is its tie to the label in standard errors of chance."""
    R = hint.responsibilities
    assert R is not None  # noqa: S101 - accepted hints carry responsibilities
    alpha, beta = smoothed_offsets(X, y, R)
    if hint.offsets is not None:
        beta[:, : hint.offsets.shape[1]] = hint.offsets
        alpha = model_given_offsets(X, y, R, beta).alpha
    chance = float(np.sqrt(np.sum(0.25 / np.bincount(y)))) / (len(classes) / 2.0)
    evidence = hint.record.association / chance
    return _found(R, (alpha, beta), evidence, hint.record.source, records, reduction, y, classes)


def _found(
    R: Array,
    offsets: tuple[Array, Array],
    evidence: float,
    source: str,
    records: list[Candidate],
    reduction: Reduction,
    y: IntArray,
    classes: NDArray[Any],
) -> Discovery:
    """The result over all rows from their responsibilities `R (n, K)`, class and attribute offsets `(K, k)`."""
    groups = R.argmax(axis=1).astype(np.int64)
    class_displacements, displacements = (reduction.lift(part - part.mean(axis=0)) for part in offsets)
    _, sizes, directions = np.linalg.svd(displacements, full_matrices=False)
    rank = int(np.count_nonzero(sizes > 1e-6 * sizes[0]))
    share = float(np.mean(groups != y))
    by = f" Used: {source}." if source.startswith("hint:") else ""
    return Discovery(
        found=True,
        classes_=classes,
        groups_=groups,
        responsibilities_=R,
        basis_=directions[: min(rank, len(classes) - 1)].T.copy(),
        displacements_=displacements,
        class_displacements_=class_displacements,
        evidence_=float(evidence),
        candidates_=tuple(records),
        message_=f"Spurious direction found: {share:.1%} of {len(y)} examples carry another class's attribute value."
        + by,
        source_=source,
    )
