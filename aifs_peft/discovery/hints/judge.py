"""A hint's verdict: a claim about the latents, tested as one.

Examples whose value is known, held out, must be predicted better than chance; the attribute must be tied to the label;
and the class must keep a contrast beside it. A hint that fails is recorded with the reason and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import DiscoveryConfig, GateThresholds
from aifs_peft.discovery.gate import NO_CLASS, association_noise, noise_of_counts
from aifs_peft.discovery.hints.gain import KnownHeads, association, known_heads
from aifs_peft.discovery.hints.held_out import Trial, choose_fit, errors_needed, rows_with
from aifs_peft.discovery.hints.in_classes import InClasses, in_classes, summed
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
        heads: Of few known values: how heads fare on those that were held out.
    """

    record: Candidate
    responsibilities: Array | None = None
    offsets: Array | None = None
    heads: KnownHeads | None = None


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
    offsets, prior = summed(fit, counts)
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
    part = replace(hint, values=hint.values[sample])
    trial, trials = choose_fit(X[sample], y[sample], n_classes, part, rng, config)
    few = float(np.mean(part.values < 0)) > 0.5
    heads = known_heads(X[sample], y[sample], n_classes, part, trials, trial, config) if few else None
    heads = None if heads is None else replace(heads, values=hint.values)
    if not trial.held_out.clear(errors_needed(hint, config.gate)):
        over = f"{trial.held_out.beyond:.2f} +- {trial.held_out.error:.2f} over chance"
        refused = rejected(hint.source, f"known examples, held out, are not predicted ({over})", trial.k)
        return replace(refused, heads=heads)
    rows = rows_with(known, rows, len(rows), rng)
    hinted = _fit_and_judge(X, y, n_classes, hint, trial, rng=rng, config=config, rows=rows)
    if not few or not hinted.record.accepted:
        return replace(hinted, heads=heads)
    reason = known_verdict(association(trial, part, n_classes), hinted.record.association, heads, config)
    if reason == "accepted":
        return replace(hinted, heads=heads)
    return Hinted(replace(hinted.record, accepted=False, reason=reason), heads=heads)


def known_verdict(tie: tuple[float, float], believed: float, heads: KnownHeads | None, config: DiscoveryConfig) -> str:
    """`"accepted"`, or what the held-out known examples have against a hint of few values.

    With few of them the tie is uncertain. They decide between two claims, that there is none and that it is as the
    sampler believes: what they say must be nearer to the second.

    Args:
        tie: Association of attribute and label by them, and its standard error.
        believed: Association by the sampler.
        heads: How heads with and without the hint fare on them.
        config: Thresholds, and when the refitted head is taken.

    Example:
        >>> known_verdict((0.2, 0.2), 0.9, None, DiscoveryConfig())
        'not tied to the label (association 0.20 +- 0.20 by held-out known examples, 0.90 by the others)'
    """
    if not tie[0] >= max(config.gate.known_tie * believed, config.gate.association):
        return (
            f"not tied to the label (association {tie[0]:.2f} +- {tie[1]:.2f} by held-out known examples, "
            f"{believed:.2f} by the others)"
        )
    if heads is not None:
        taken = heads.refitted if heads.better(config.heads) else heads.hinted
        if taken.worst <= heads.plain.worst:
            scores = f"worse part {taken.worst:.2f} with it, {heads.plain.worst:.2f} without"
            return f"no gain on held-out known examples ({scores})"
    return "accepted"


def _fit_and_judge(
    X: Array,
    y: IntArray,
    n_classes: int,
    hint: Hint,
    trial: Trial,
    *,
    rng: np.random.Generator,
    config: DiscoveryConfig,
    rows: IntArray,
) -> Hinted:
    """Fit a hint that predicts held-out examples on `rows` as it was tried, and ask the gate."""
    own, k = config.hints, trial.k
    fit_data = Whitened.of(np.ascontiguousarray(X[rows, :k]), y[rows], n_classes, own)
    few = float(np.mean(hint.values[rows] < 0)) >= 0.5
    sweeps, chains = (own.sweeps, own.chains) if few else (own.sweeps_known, 1)
    sample = partial(sample_attribute, fit_data, hint.values[rows], hint.n_values, rng=rng, config=own, tied=trial.tied)
    if trial.with_errors:
        fit = sample(sweeps=own.sweeps_errors, with_errors=True)
    else:
        fit = sample(sweeps=sweeps, chains=chains)
    record, shown = _verdict(hint, fit, fit_data, rows, y, config)
    if record.accepted and hint.errs and not few and not trial.with_errors:
        # A column that passes as it is, is taken with its errors, if there are some.
        erring = sample(sweeps=own.sweeps_errors, with_errors=True)
        verdict = _verdict(hint, erring, fit_data, rows, y, config)
        if erring.errors >= own.min_errors and verdict[0].accepted:
            fit, (record, shown) = erring, verdict
    if not record.accepted:
        return Hinted(record)
    whole = Whitened.of(np.ascontiguousarray(X[:, :k]), y, n_classes, own)
    R = fit.responsibilities(whole, hint.values) @ shown.classes
    return Hinted(record, R.astype(np.float32), shown.offsets)


def _verdict(
    hint: Hint, fit: AttributeFit, data: Whitened, rows: IntArray, y: IntArray, config: DiscoveryConfig
) -> tuple[Candidate, InClasses]:
    """What the gate says of a fit on `rows`, and the fit in classes."""
    gate, K = config.gate, len(data.means)
    shown = in_classes(fit, data, hint.values[rows])
    numbers = measure(shown.fit, data)
    counts = np.bincount(data.y, minlength=K)
    aligned = counts * np.diag(shown.fit.prior @ shown.classes)
    k = data.V.shape[1]
    chance, _ = noise_of_counts(aligned, counts - aligned, k)
    # Offsets of few known values are posterior means, with less noise than the chance that is counted on.
    part = gate.few_chance if float(np.mean(hint.values[rows] < 0)) >= 0.5 else 1.0
    beside = max(gate.hint_class_strength, part * float(np.sqrt(chance)))
    used = int(np.count_nonzero(shown.classes.sum(axis=0)))
    reason = hint_verdict(numbers, len(rows), y, used, gate, beside)
    return Candidate(hint.source, k, float("nan"), accepted=reason == "accepted", reason=reason, **numbers), shown
