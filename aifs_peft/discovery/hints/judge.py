"""A hint's verdict: a claim about the latents, tested as one.

Examples whose value is known, held out, must be predicted better than chance; the attribute must be tied to the label;
and the class must keep a contrast beside it. A hint that fails is recorded with the reason and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import DiscoveryConfig, GateThresholds
from aifs_peft.discovery.gate import NO_CLASS, association_noise, noise_of_counts
from aifs_peft.discovery.hints.held_out import choose_fit, errors_needed, rows_with
from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.hints.sampler import AttributeFit, Whitened, sample_attribute
from aifs_peft.discovery.result import Candidate


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


def to_classes(prior: Array) -> Array:
    """Which class each value goes with, as a 0/1 matrix `(A, K)`: where it is most over-represented in `prior (K, A)`.

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
    """`"accepted"`, or the first reason against a fitted hint.

    Args:
        record: Its `association`, `conflicts` and `class_strength`, see `Candidate`.
        n: Number of examples it was fitted on.
        y: Their labels.
        used: Number of classes that some value goes with.
        gate: Thresholds.
        class_strength: What the class needs beside it.

    Example:
        >>> numbers = {"association": 0.9, "conflicts": 0.001, "class_strength": 2.0}
        >>> hint_verdict(numbers, 1000, np.arange(1000) % 2, 2, GateThresholds(), 0.5)
        'only 1 conflicting examples (needs 5)'
    """
    needed = max(gate.association, association_noise(y, gate))
    if used < 2:
        return "every value goes with the same class: not tied to the label"
    if record["association"] < needed:
        return f"not tied to the label (association {record['association']:.2f} < {needed:.2f})"
    if record["conflicts"] * n < gate.min_conflicts:
        return f"only {record['conflicts'] * n:.0f} conflicting examples (needs {gate.min_conflicts})"
    if record["class_strength"] < class_strength:
        return f"{NO_CLASS} ({record['class_strength']:.2f} < {class_strength:.2f})"
    return "accepted"


def measure(fit: AttributeFit, data: Whitened) -> dict[str, float]:
    """The numbers of a `Candidate`: cosine, contrasts, association and conflicts of a fit, its values put into classes.

    Args:
        fit: Offsets and shares of the attribute's values.
        data: The latents that it was fitted on.
    """
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
    """A hint that was not fitted, and why.

    Args:
        source: Its name.
        reason: Why.
        k: Number of components that it was looked at in.
    """
    nan = float("nan")
    return Hinted(Candidate(source, k, nan, nan, nan, nan, nan, nan, nan, accepted=False, reason=reason))


def judge_hint(
    X: Array,
    y: IntArray,
    n_classes: int,
    hint: Hint,
    *,
    rng: np.random.Generator,
    config: DiscoveryConfig,
    rows: IntArray,
) -> Hinted:
    """Check a hint on held-out known examples, fit it, and put the fit to the gate.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        hint: Values of the attribute where they are known.
        rng: Source of folds and draws.
        config: The gate's association, conflicts and class contrast count here, too.
        rows: Rows to fit on; the result covers all.

    Returns:
        The hint with its verdict.
    """
    if hint.problem:
        return rejected(hint.source, hint.problem)
    known = np.flatnonzero(hint.values >= 0)
    if all(len(np.unique(y[known][hint.values[known] == a])) == 1 for a in range(hint.n_values)):
        return rejected(
            hint.source, "each value occurs in one class only: give attribute values, not (label, attribute) cells"
        )
    sample = rows_with(known, rows, config.hints.held_out_rows, rng)
    part = Hint(hint.source, hint.values[sample])
    k, tied, held_out = choose_fit(X[sample], y[sample], n_classes, part, rng, config)
    if not held_out.clear(errors_needed(hint, config.gate)):
        over = f"{held_out.beyond:.2f} +- {held_out.error:.2f} over chance"
        return rejected(hint.source, f"known examples, held out, are not predicted ({over})", k)
    rows = rows_with(known, rows, len(rows), rng)
    return _fit_and_judge(X, y, n_classes, hint, k, tied, rng=rng, config=config, rows=rows)


def _fit_and_judge(
    X: Array,
    y: IntArray,
    n_classes: int,
    hint: Hint,
    k: int,
    tied: bool,
    *,
    rng: np.random.Generator,
    config: DiscoveryConfig,
    rows: IntArray,
) -> Hinted:
    """Fit a hint that predicts held-out examples on `rows` of the first `k` components, and ask the gate."""
    own, gate = config.hints, config.gate
    fit_data = Whitened.of(np.ascontiguousarray(X[rows, :k]), y[rows], n_classes, own)
    sweeps, chains = (own.sweeps, own.chains) if np.mean(hint.values[rows] < 0) >= 0.5 else (own.sweeps_known, 1)
    fit = sample_attribute(
        fit_data, hint.values[rows], hint.n_values, rng=rng, config=own, tied=tied, sweeps=sweeps, chains=chains
    )
    R = fit.responsibilities(fit_data, hint.values[rows]).astype(np.float64)
    # Which value goes with which class is read off all rows: of values that look alike the sampler may empty one.
    table = np.stack([R[y[rows] == c].mean(axis=0) for c in range(n_classes)])
    shown = replace(fit, prior=table)
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
    R = fit.responsibilities(Whitened.of(np.ascontiguousarray(X[:, :k]), y, n_classes, own), hint.values) @ classes
    offsets = _summed(shown, counts)[0] @ fit_data.factor.T
    return Hinted(record, R.astype(np.float32), offsets)
