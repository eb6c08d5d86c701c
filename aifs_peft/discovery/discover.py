"""`discover`: find the spurious directions of latents without group labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.additive import additive_offsets
from aifs_peft.discovery.binary import find_partition
from aifs_peft.discovery.gate import DEFAULT_GATE, GateThresholds
from aifs_peft.discovery.mixture import Moments, null_log_likelihood
from aifs_peft.discovery.reduce import Reduction, principal_components
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

MAX_COMPONENTS = 256
# Rows that the candidates are fitted on; the final assignment goes over all rows.
MAX_FIT_ROWS = 10_000


def discover(
    Z: ArrayLike,
    y: ArrayLike,
    *,
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

    Args:
        Z: Latents, shape `(n, d)`: NumPy array or torch tensor, any float type. Any rotation or common scale.
        y: Labels, shape `(n,)`, integers or strings, at least two classes.
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
    return discover_reduced(X, reduction, labels, classes, rng=rng, gate=gate, max_fit_rows=max_fit_rows)


def discover_reduced(
    X: Array,
    reduction: Reduction,
    labels: IntArray,
    classes: NDArray[Any],
    *,
    rng: np.random.Generator,
    gate: GateThresholds = DEFAULT_GATE,
    max_fit_rows: int = MAX_FIT_ROWS,
) -> Discovery:
    """`discover` for latents that are already checked and reduced: `X (n, k)` by `reduction`, labels as indices."""
    d, K, smallest = reduction.components.shape[1], len(classes), int(np.bincount(labels).min())
    if smallest < MIN_PER_CLASS or len(labels) < MIN_ROWS:
        why = f"too few examples to tell: {len(labels)} in all (needs {MIN_ROWS}), smallest class {smallest} "
        return _nothing(d, labels, classes, [], why + f"(needs {MIN_PER_CLASS})")
    rows = _fit_rows(labels, max_fit_rows, rng)
    if K == 2:
        partition, tried = find_partition(X[rows], labels[rows], rng=rng, gate=gate)
        if partition is None:
            return _nothing(d, labels, classes, tried, f"none of {len(tried)} candidates passed the gate")
        R = partition.mixture.responsibilities(X[:, : partition.record.k], labels).astype(np.float32)
        R[rows] = partition.responsibilities
        return _describe(R, partition.record.gain, tried, reduction, X, labels, classes)
    chosen, attempts = _search(X[rows], labels[rows], K, gate=gate)
    records = [a.record for a in attempts]
    if chosen is None:
        accepted = sum(a.record.accepted for a in attempts)
        why = f"{accepted} of {len(attempts)} candidates passed the gate, none was confirmed" if accepted else (
            f"none of {len(attempts)} candidates passed the gate"
        )  # fmt: skip
        return _nothing(d, labels, classes, records, why)
    R, evidence = _assign(chosen, X, labels, K, n_fit=len(rows), rng=rng)
    return _describe(R, evidence, records, reduction, X, labels, classes, rough=chosen.mixture is None)


def _fit_rows(y: IntArray, limit: int, rng: np.random.Generator) -> IntArray:
    """Rows to fit on: all, or a sample that keeps at least 50 of each class."""
    if len(y) <= limit:
        return np.arange(len(y))
    chosen = rng.permutation(len(y))[:limit]
    rare = np.flatnonzero(np.bincount(y[chosen], minlength=y.max() + 1) < 50)
    missing = [np.flatnonzero(y == c)[:50] for c in rare]
    return np.unique(np.concatenate([chosen, *missing]))


def _search(X: Array, y: IntArray, K: int, *, gate: GateThresholds) -> tuple[Attempt | None, list[Attempt]]:
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
    return (agree(near, y, gate, alone=False) or last), trimmed + refined


def _nothing(d: int, y: IntArray, classes: NDArray[Any], tried: list[Candidate], why: str) -> Discovery:
    K = len(classes)
    return Discovery(
        found=False,
        classes_=classes,
        groups_=y.copy(),
        responsibilities_=one_hot(y, K, np.float32),
        basis_=np.zeros((d, 0)),
        displacements_=np.zeros((K, d)),
        evidence_=0.0,
        candidates_=tuple(tried),
        message_=f"No spurious direction found: {why}.",
    )


def _assign(
    chosen: Attempt, X: Array, y: IntArray, K: int, *, n_fit: int, rng: np.random.Generator
) -> tuple[Array, float]:
    """More than two classes: responsibilities of all rows by the confirmed attempt, and its evidence."""
    k = chosen.record.k
    if chosen.mixture is not None:
        R = chosen.mixture.responsibilities(X[:, :k], y).astype(np.float32)
        return R, 1000.0 * chosen.record.gain / n_fit
    assert chosen.discriminant is not None  # noqa: S101 - an attempt carries one of the two
    # The gate judged the rough partition; sharpening it cannot raise an alarm.
    return refine_attribute(X, y, chosen.discriminant.assign(X[:, :k]), K, rng=rng), chosen.record.gain


def _describe(
    R: Array,
    evidence: float,
    tried: list[Candidate],
    reduction: Reduction,
    X: Array,
    y: IntArray,
    classes: NDArray[Any],
    *,
    rough: bool = False,
) -> Discovery:
    """The result over all rows from their responsibilities `R (n, K)`."""
    K = len(classes)
    groups = R.argmax(axis=1).astype(np.int64)
    displacements = reduction.lift(additive_offsets(X, y, R)[1])
    _, sizes, directions = np.linalg.svd(displacements, full_matrices=False)
    rank = int(np.count_nonzero(sizes > 1e-6 * sizes[0]))
    share = float(np.mean(groups != y))
    return Discovery(
        found=True,
        classes_=classes,
        groups_=groups,
        responsibilities_=R,
        basis_=directions[: min(rank, K - 1)].T.copy(),
        displacements_=displacements,
        evidence_=float(evidence),
        candidates_=tuple(tried),
        message_=f"Spurious direction found: {share:.1%} of {len(y)} examples carry another class's attribute value.",
        rough_=rough,
    )
