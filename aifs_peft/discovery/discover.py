"""`discover`: find the spurious directions of latents without group labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.additive import additive_offsets
from aifs_peft.discovery.gate import DEFAULT_GATE, GateThresholds
from aifs_peft.discovery.hints import Hint, Hinted, groups_hint, judge_hint, metadata_hints
from aifs_peft.discovery.mixture import Moments, null_log_likelihood
from aifs_peft.discovery.named import Named, judge_named, named_hints
from aifs_peft.discovery.reduce import Reduction, principal_components
from aifs_peft.discovery.result import Array, Candidate, Discovery, IntArray
from aifs_peft.discovery.search import (
    COMPONENTS,
    Attempt,
    agree,
    best_per_k,
    mixture_attempt,
    one_hot,
    scan_mixture,
    scan_trimmed,
    usable,
)
from aifs_peft.discovery.validation import MIN_PER_CLASS, MIN_ROWS, as_latents, encode_labels

MAX_COMPONENTS = 256
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
    chosen, attempts = _search(X[rows], labels[rows], K, rng=rng, gate=gate)
    records = [h.record for h in hinted] + [a.record for a in attempts]
    hint = _preferred(hinted, chosen, labels, rows)
    if hint is not None:
        return _describe_hint(hint, records, reduction, X, labels, classes)
    failed = "".join(f" {h.record.source} was not used: {h.record.reason}." for h in hinted if not h.record.accepted)
    failed += "".join(
        f" {h.record.source} was not used: weaker than what was found." for h in hinted if h.record.accepted
    )
    if chosen is None:
        accepted = sum(a.record.accepted for a in attempts)
        why = f"{accepted} of {len(attempts)} candidates passed the gate, none was confirmed" if accepted else (
            f"none of {len(attempts)} candidates passed the gate"
        )  # fmt: skip
        result = _nothing(d, labels, classes, attempts, why)
    else:
        result = _describe(chosen, attempts, reduction, X, labels, classes, n_fit=len(rows))
    return replace(result, candidates_=tuple(records), message_=result.message_ + failed)


def _judge(
    X: Array, y: IntArray, K: int, hint: Hint | Named, *, rng: np.random.Generator, gate: GateThresholds, rows: IntArray
) -> Hinted:
    if isinstance(hint, Named):
        return judge_named(X, y, K, hint, gate=gate, rows=rows)
    return judge_hint(X, y, K, hint, rng=rng, gate=gate, rows=rows)


def _preferred(hinted: list[Hinted], chosen: Attempt | None, y: IntArray, rows: IntArray) -> Hinted | None:
    """The accepted hint to use, or `None` for what was found without one.

    Of several hints the one whose attribute weighs most: its contrast times its tie to the label. An attribute that was
    found without a hint, is another one and weighs more goes first.
    """
    accepted = [h for h in hinted if h.record.accepted and h.responsibilities is not None]
    if not accepted:
        return None
    best = max(accepted, key=lambda h: _weight(h.record))
    if chosen is None or best.responsibilities is None:
        return best
    moved = best.responsibilities[rows].argmax(axis=1) != y[rows]
    same = gates.jaccard(moved, chosen.attribute != y[rows]) >= gates.DEFAULT_GATE.jaccard
    return best if same or _weight(best.record) >= _weight(chosen.record) else None


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


def _search(
    X: Array, y: IntArray, K: int, *, rng: np.random.Generator, gate: GateThresholds
) -> tuple[Attempt | None, list[Attempt]]:
    """All attempts, and the confirmed one or `None`."""
    trimmed = scan_trimmed(X, y, K, gate)
    passed = [a for a in trimmed if a.record.accepted]
    if K == 2:
        mixtures = scan_mixture(X, y, K, rng=rng, gate=gate)
        alone = len(usable(COMPONENTS, X.shape[1], len(y))) == 1
        best = agree(best_per_k(mixtures), y, gate, alone=alone)
        return best, mixtures + trimmed
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
    return (agree(near, y, gate, alone=False) or last), trimmed + refined


def _nothing(d: int, y: IntArray, classes: NDArray[Any], attempts: list[Attempt], why: str) -> Discovery:
    K = len(classes)
    return Discovery(
        found=False,
        classes_=classes,
        groups_=y.copy(),
        responsibilities_=one_hot(y, K, np.float32),
        basis_=np.zeros((d, 0)),
        displacements_=np.zeros((K, d)),
        evidence_=0.0,
        candidates_=tuple(a.record for a in attempts),
        message_=f"No spurious direction found: {why}.",
    )


def _describe(
    chosen: Attempt,
    attempts: list[Attempt],
    reduction: Reduction,
    X: Array,
    y: IntArray,
    classes: NDArray[Any],
    *,
    n_fit: int,
) -> Discovery:
    """The result over all rows from the confirmed attempt."""
    K, k = len(classes), chosen.record.k
    if chosen.mixture is not None:
        R = chosen.mixture.responsibilities(X[:, :k], y).astype(np.float32)
        evidence = 1000.0 * chosen.record.gain / n_fit
    else:
        assert chosen.discriminant is not None  # noqa: S101 - an attempt carries one of the two
        R = one_hot(chosen.discriminant.assign(X[:, :k]), K, np.float32)
        evidence = chosen.record.gain
    beta = additive_offsets(X, y, R)[1]
    records = [a.record for a in attempts]
    return _found(R, beta, evidence, chosen.record.source, records, reduction, y, classes)


def _describe_hint(
    hint: Hinted, records: list[Candidate], reduction: Reduction, X: Array, y: IntArray, classes: NDArray[Any]
) -> Discovery:
    """The result of an accepted hint; its evidence is its tie to the label in standard errors of chance."""
    R = hint.responsibilities
    assert R is not None  # noqa: S101 - accepted hints carry responsibilities
    beta = additive_offsets(X, y, R)[1]
    if hint.offsets is not None:
        beta[:, : hint.offsets.shape[1]] = hint.offsets
    chance = float(np.sqrt(np.sum(0.25 / np.bincount(y)))) / (len(classes) / 2.0)
    evidence = hint.record.association / chance
    return _found(R, beta, evidence, hint.record.source, records, reduction, y, classes)


def _found(
    R: Array,
    beta: Array,
    evidence: float,
    source: str,
    records: list[Candidate],
    reduction: Reduction,
    y: IntArray,
    classes: NDArray[Any],
) -> Discovery:
    groups = R.argmax(axis=1).astype(np.int64)
    displacements = reduction.lift(beta)
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
        evidence_=float(evidence),
        candidates_=tuple(records),
        message_=f"Spurious direction found: {share:.1%} of {len(y)} examples carry another class's attribute value."
        + by,
        source_=source,
    )
