"""A hint's verdict: a claim about the latents, tested as one.

Examples whose value is known, held out, must be predicted better than chance; the attribute must be tied to the label;
and the class must keep a contrast beside it. A hint that fails is recorded with the reason and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.gate import GateThresholds, association_noise, noise_of_counts
from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.hints.sampler import SWEEPS, AttributeFit, Whitened, sample_attribute
from aifs_peft.discovery.result import Candidate

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

COMPONENTS = (16, 64, 256)
FOLDS = 5
# Held-out prediction must beat chance by this many standard errors: with up to so many examples known, and with more.
# A true attribute beats it by 5 or more then, a column that repeats the label with errors by 3 at most.
FEW_KNOWN, FEW_ERRORS, MANY_ERRORS = 200, 2.5, 4.0
MIN_FREEDOM = 10
# The held-out check looks at most at this many rows and known examples; it needs no more.
HELD_OUT_ROWS = 5000
HELD_OUT_KNOWN = 500
HELD_OUT_SWEEPS = 80
HELD_OUT_CHAINS = 3
# Chains of the final fit, where few values are known.
CHAINS = 5
# With most values known there is little left to sample.
SWEEPS_KNOWN = 40


@dataclass(frozen=True)
class Hinted:
    """A hint with its verdict.

    Args:
        record: What the gate saw.
        responsibilities: Posterior of the attribute, in classes, shape `(n, K)`; `None` when rejected.
        offsets: Attribute offsets in the first `k` reduced coordinates, mean zero, shape `(K, k)`; `None` where they
            are to be estimated from the responsibilities.
    """

    record: Candidate
    responsibilities: Array | None = None
    offsets: Array | None = None


def _held_out(data: Whitened, hint: Hint, *, tied: bool, rng: np.random.Generator) -> tuple[float, float]:
    """How far the known values are predicted beyond chance when held out, mean and standard error.

    The prediction is the posterior under even shares, and every cell of label and value counts the same: most examples
    of a column lie where the label alone would put them, and any offsets, those of noise, too, call them likely.
    """
    A, K = hint.n_values, len(data.means)
    rows = _evenly(data.y * A + hint.values, np.flatnonzero(hint.values >= 0), HELD_OUT_KNOWN, rng)
    _, cell, counts = np.unique(data.y[rows] * A + hint.values[rows], return_inverse=True, return_counts=True)
    # Dealt value by value and within it class by class, so that every fold holds each value that can be in all.
    fold = np.empty(len(rows), dtype=np.int64)
    fold[np.argsort(hint.values[rows] * K + data.y[rows], kind="stable")] = np.arange(len(rows)) % FOLDS
    sweeps, chains = (HELD_OUT_SWEEPS, HELD_OUT_CHAINS) if np.mean(hint.values < 0) > 0.5 else (SWEEPS_KNOWN, 1)
    scores = np.empty(len(rows))
    for j in range(FOLDS):
        test = rows[fold == j]
        known = hint.values.copy()
        known[test] = -1
        fit = sample_attribute(data, known, A, rng=rng, tied=tied, sweeps=sweeps, chains=chains)
        scores[fold == j] = fit.probability(data, test, hint.values[test]) - 1.0 / A
    means = np.bincount(cell, scores) / counts
    # With hardly more examples than cells the cells' own means leave nothing to estimate a variance from.
    freedom = len(rows) - len(counts)
    spread = scores - means[cell] if freedom >= MIN_FREEDOM else scores - scores.mean()
    variance = float(np.sum(spread**2)) / (freedom if freedom >= MIN_FREEDOM else len(rows) - 1)
    return float(means.mean()), float(np.sqrt(variance * np.mean(1.0 / counts) / len(counts)))


def _evenly(cell: IntArray, rows: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    """At most `most` of `rows`, as many of each cell as there are."""
    shuffled = rng.permutation(rows)
    in_order = shuffled[np.argsort(cell[shuffled], kind="stable")]
    _, starts, counts = np.unique(cell[in_order], return_index=True, return_counts=True)
    place = np.arange(len(in_order)) - np.repeat(starts, counts)
    return in_order[np.argsort(place, kind="stable")[:most]]


def _errors_needed(hint: Hint) -> float:
    """By how many standard errors held-out examples must be predicted better than by chance."""
    return FEW_ERRORS if np.count_nonzero(hint.values >= 0) <= FEW_KNOWN else MANY_ERRORS


def _choose(
    X: Array, y: IntArray, K: int, hint: Hint, rng: np.random.Generator
) -> tuple[int, bool, tuple[float, float]]:
    """Number of components and kind of shares that predict held-out examples, with how far beyond chance.

    The most components whose prediction is within a standard error of the best one.
    """
    most = min(X.shape[1], max(len(X) // 5, 2))
    data = {k: Whitened.of(np.ascontiguousarray(X[:, :k]), y, K) for k in sorted({min(k, most) for k in COMPONENTS})}
    mostly_known = float(np.mean(hint.values >= 0)) > 0.5
    tried = {(k, not mostly_known): _held_out(data[k], hint, tied=not mostly_known, rng=rng) for k in data}
    # Within a standard error more components win: what the class keeps beside the attribute lies in all of them.
    needed = _errors_needed(hint)
    shown = {setting: score for setting, score in tried.items() if score[0] >= needed * score[1]} or tried
    highest, error = max(shown.values())
    best = max(setting for setting, (beyond, _) in shown.items() if beyond >= highest - error)
    if not mostly_known:
        free = tried[best[0], False] = _held_out(data[best[0]], hint, tied=False, rng=rng)
        if free[0] > max(tried[best][0], needed * free[1]):
            best = (best[0], False)
    return (*best, tried[best])


def to_classes(prior: Array) -> Array:
    """Which class each value goes with, as a 0/1 matrix `(A, K)`: where it is most over-represented.

    Example:
        >>> to_classes(np.array([[0.9, 0.1], [0.2, 0.8]])).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    relative = prior / np.maximum(prior.sum(axis=0), 1e-12)
    return np.asarray(np.eye(len(prior))[relative.argmax(axis=0)])


def _summed(fit: AttributeFit, counts: IntArray) -> tuple[Array, Array]:
    """Offsets `(K, k)` and shares `(K, K)` of the classes' values: means over the values that go with a class."""
    classes = to_classes(fit.prior)
    weight = (counts @ fit.prior)[:, None] * classes
    share = weight / np.maximum(weight.sum(axis=0), 1e-12)
    offsets = share.T @ fit.offsets
    return offsets - offsets.mean(axis=0), fit.prior @ classes


def hint_verdict(
    record: dict[str, float], n: int, y: IntArray, used: int, gate: GateThresholds, class_strength: float
) -> str:
    """`"accepted"`, or the first reason against a fitted hint; `class_strength` is what the class needs beside it."""
    needed = max(gate.association, association_noise(y))
    if used < 2:
        return "every value goes with the same class: not tied to the label"
    if record["association"] < needed:
        return f"not tied to the label (association {record['association']:.2f} < {needed:.2f})"
    if record["conflicts"] * n < gate.min_conflicts:
        return f"only {record['conflicts'] * n:.0f} conflicting examples (needs {gate.min_conflicts})"
    if record["class_strength"] < class_strength:
        return f"nothing of the class beside it ({record['class_strength']:.2f} < {class_strength:.2f})"
    return "accepted"


def measure(fit: AttributeFit, data: Whitened) -> dict[str, float]:
    """The numbers of a `Candidate`: cosine, contrasts, association and conflicts of a fit with values in classes."""
    counts = np.bincount(data.y, minlength=len(fit.prior))
    offsets, prior = _summed(fit, counts)
    K = len(prior)
    alpha = data.means - (prior - prior.mean(axis=0)) @ offsets
    alpha -= alpha.mean(axis=0)
    aa, bb, ab = float(np.sum(alpha**2)), float(np.sum(offsets**2)), float(np.sum(alpha * offsets))
    own = np.diag(prior)
    others = (prior.sum(axis=0) - own) / max(K - 1, 1)
    return {
        "gain": float("nan"),
        "cosine": ab / float(np.sqrt(max(aa * bb, 1e-24))),
        "strength": float(np.sqrt(2.0 * bb / K)),
        "class_strength": float(np.sqrt(2.0 * aa / K)),
        "association": float(np.mean(own - others)),
        "conflicts": float(1.0 - (counts / counts.sum()) @ own),
    }


def rejected(source: str, reason: str, k: int = 0) -> Hinted:
    """A hint that was not fitted, and why."""
    nan = float("nan")
    return Hinted(Candidate(source, k, nan, nan, nan, nan, nan, nan, nan, accepted=False, reason=reason))


def judge_hint(
    X: Array, y: IntArray, n_classes: int, hint: Hint, *, rng: np.random.Generator, gate: GateThresholds, rows: IntArray
) -> Hinted:
    """Check a hint on held-out known examples, fit it, and put the fit to the gate.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        hint: Values of the attribute where they are known.
        rng: Source of folds and draws.
        gate: Its association, conflicts and class contrast count here, too.
        rows: Rows to fit on; the result covers all.
    """
    if hint.problem:
        return rejected(hint.source, hint.problem)
    known = np.flatnonzero(hint.values >= 0)
    if all(len(np.unique(y[known][hint.values[known] == a])) == 1 for a in range(hint.n_values)):
        return rejected(
            hint.source, "each value occurs in one class only: give attribute values, not (label, attribute) cells"
        )
    sample = _rows_with(known, rows, HELD_OUT_ROWS, rng)
    part = Hint(hint.source, hint.values[sample])
    k, tied, (beyond, error) = _choose(X[sample], y[sample], n_classes, part, rng)
    if beyond < _errors_needed(hint) * error:
        return rejected(
            hint.source, f"known examples, held out, are not predicted ({beyond:.2f} +- {error:.2f} over chance)", k
        )
    rows = _rows_with(known, rows, len(rows), rng)
    fit_data = Whitened.of(np.ascontiguousarray(X[rows, :k]), y[rows], n_classes)
    sweeps, chains = (SWEEPS, CHAINS) if np.mean(hint.values[rows] < 0) >= 0.5 else (SWEEPS_KNOWN, 1)
    fit = sample_attribute(fit_data, hint.values[rows], hint.n_values, rng=rng, tied=tied, sweeps=sweeps, chains=chains)
    R = fit.responsibilities(fit_data, hint.values[rows]).astype(np.float64)
    # Which value goes with which class is read off all rows: of values that look alike the sampler may empty one.
    table = np.stack([R[y[rows] == c].mean(axis=0) for c in range(n_classes)])
    shown = AttributeFit(fit.offsets, table)
    numbers = measure(shown, fit_data)
    classes = to_classes(table)
    counts = np.bincount(y[rows], minlength=n_classes)
    aligned = counts * np.diag(table @ classes)
    chance, _ = noise_of_counts(aligned, counts - aligned, k)
    beside = max(gate.hint_class_strength, float(np.sqrt(chance)))
    reason = hint_verdict(numbers, len(rows), y, int(np.count_nonzero(classes.sum(axis=0))), gate, beside)
    record = Candidate(hint.source, k, float("nan"), accepted=reason == "accepted", reason=reason, **numbers)
    if not record.accepted:
        return Hinted(record)
    R = fit.responsibilities(Whitened.of(np.ascontiguousarray(X[:, :k]), y, n_classes), hint.values) @ classes
    offsets = _summed(shown, counts)[0] @ fit_data.factor.T
    return Hinted(record, R.astype(np.float32), offsets)


def _rows_with(known: IntArray, rows: IntArray, limit: int, rng: np.random.Generator) -> IntArray:
    """At most `limit` of `rows`, the known ones among all first, up to half of the limit."""
    if len(rows) <= limit and len(known) == len(np.intersect1d(known, rows)):
        return rows
    first = rng.permutation(known)[: limit // 2]
    rest = rng.permutation(np.setdiff1d(rows, first))[: limit - len(first)]
    return np.sort(np.concatenate([first, rest]))
