"""More than two classes: what refined starts agree on; the trimmed discriminant; pairs of classes.

Rough starts are refined out of fold, and where they end decides. A free mixture of many classes drifts to styles within
the classes: it is taken where it starts from a trimmed discriminant that passed its own gate and ends where the refined
starts do, or where these do not agree. Where neither gives anything, pairs of classes are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.arrays import Array, IntArray, one_hot
from aifs_peft.discovery.config import DiscoveryConfig, GateThresholds
from aifs_peft.discovery.mixture.em import Mixture, Moments, fit_mixture, null_log_likelihood, partition_fit
from aifs_peft.discovery.mixture.refine import refine_until_stable, refined_everywhere
from aifs_peft.discovery.principal_components import usable_components
from aifs_peft.discovery.proposals.trimmed import TrimmedDiscriminant, trimmed_discriminant
from aifs_peft.discovery.reduced import ReducedLatents, leading
from aifs_peft.discovery.result import Candidate
from aifs_peft.discovery.search.consensus import (
    Solution,
    clearest,
    judged_components,
    solve,
    solve_by_pairs,
    solved_components,
)
from aifs_peft.discovery.search.finding import Finding


@dataclass(frozen=True)
class Attempt:
    """A candidate with what it assigns to the rows it was fitted on.

    Args:
        record: What the gate saw.
        attribute: Attribute values, shape `(n,)`.
        mixture: The mixture that assigned them, or `None`.
        discriminant: The trimmed discriminant that did, or `None`.
    """

    record: Candidate
    attribute: IntArray
    mixture: Mixture | None = None
    discriminant: TrimmedDiscriminant | None = None


def search_many_classes(
    X: ReducedLatents, y: IntArray, n_classes: int, rows: IntArray, *, rng: np.random.Generator, config: DiscoveryConfig
) -> Finding:
    """Look for one attribute with more than two classes.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rows: Rows that candidates are fitted on.
        rng: Source of the refinement's folds.
        config: All settings.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 2000); a = np.where(rng.random(2000) < 0.9, y, rng.integers(0, 3, 2000))
        >>> X = rng.normal(size=(2000, 12)); X[:, :3] += 5 * np.eye(3)[a]; X[:, 3:6] += 2 * np.eye(3)[y]
        >>> found = search_many_classes(X, y, 3, np.arange(2000), rng=rng, config=DiscoveryConfig())
        >>> bool(np.mean(found.responsibilities.argmax(axis=1) == a) > 0.98)
        True
    """
    seen, labels = X[rows], y[rows]
    chosen, passed, attempts = _confirmed(seen, labels, n_classes, config)
    solutions = solve(seen, labels, n_classes, rng=rng, config=config)
    first = next((solution for solution in solutions if solution.record.accepted), None)
    tried = [attempt.record for attempt in attempts] + [solution.record for solution in solutions]
    if (
        chosen is not None
        and chosen.mixture is not None
        and (first is None or _bears_out(chosen, first, labels, config))
    ):
        R = chosen.mixture.responsibilities(leading(X, chosen.record.k), y).astype(np.float32, copy=False)
        return Finding(R, chosen.record, 1000.0 * chosen.record.gain / len(rows), tried)
    best = clearest(solutions, labels, config)
    if best is None and passed is None:
        paired = solve_by_pairs(seen, labels, n_classes, rng=rng, config=config)
        tried += [paired.record] if paired else []
        best = paired if paired and paired.record.accepted else None
    if best is not None:
        R = _everywhere(X, y, n_classes, rows, best.responsibilities, rng, config)
        return Finding(R, best.record, best.record.gain, tried, rough=True)
    if passed is None or passed.discriminant is None:
        return Finding(tried=tried, why=f"none of {len(tried)} candidates passed the gate")
    # The gate judged the rough partition; sharpening it cannot raise an alarm.
    sample = _refined_rows(len(y), rows, rng, config)
    part = X[sample]
    start = passed.discriminant.assign(part[:, : passed.record.k])
    R = refine_until_stable(part, y[sample], start, n_classes, rng=rng, config=config)
    R = refined_everywhere(X, y, sample, R, config=config)
    return Finding(R, passed.record, passed.record.gain, tried, rough=True)


def _bears_out(chosen: Attempt, first: Solution, y: IntArray, config: DiscoveryConfig) -> bool:
    """Whether the refined starts end where the mixture is: then the latents are additive, and it knows them best.

    Where they are not, the mixture drifts, and the refinement, which judges out of fold, is nearer to the truth. The
    end that explains the latents best is asked, since the mixture looks for that, too.
    """
    refined = np.asarray(first.responsibilities.argmax(axis=1))
    return gates.jaccard(chosen.attribute != y, refined != y) >= config.many_classes.borne_out


def _everywhere(
    X: ReducedLatents, y: IntArray, K: int, rows: IntArray, R: Array, rng: np.random.Generator, config: DiscoveryConfig
) -> Array:
    """Weights of the attribute values for all rows, from those of the rows that a solution was fitted on."""
    if len(rows) == len(y):
        return R.astype(np.float32)
    k = judged_components(X.shape[1], len(rows), config)
    data = Moments.of(np.ascontiguousarray(X[rows][:, :k]), y[rows], K)
    sample = _refined_rows(len(y), rows, rng, config)
    part, labels = X[sample], y[sample]
    start = np.array(partition_fit(data, R, config=config.mixture).responsibilities(part[:, :k], labels).argmax(axis=1))
    start[np.searchsorted(sample, rows)] = R.argmax(axis=1)
    part = solved_components(part, config)
    refined = refine_until_stable(part, labels, start, K, rng=rng, config=config)
    return refined_everywhere(leading(X, part.shape[1]), y, sample, refined, config=config)


def _refined_rows(n: int, rows: IntArray, rng: np.random.Generator, config: DiscoveryConfig) -> IntArray:
    """All rows, or of more than `refinement.max_rows` a sample with the rows that candidates were fitted on."""
    most = config.refinement.max_rows
    if n <= most:
        return np.arange(n)
    others = np.setdiff1d(np.arange(n), rows, assume_unique=True)
    return np.sort(np.concatenate([rows, rng.permutation(others)[: max(most - len(rows), 0)]]))


def _confirmed(
    X: Array, y: IntArray, K: int, config: DiscoveryConfig
) -> tuple[Attempt | None, Attempt | None, list[Attempt]]:
    """The mixture to use or `None`, the trimmed discriminant that passed or `None`, and all attempts."""
    trimmed = _scan_trimmed(X, y, K, config)
    # With the most components it is surest: what passes with fewer only is a style of some classes.
    last = trimmed[-1]
    if not last.record.accepted:
        return None, None, trimmed
    refined = []
    wanted, per_component = config.many_classes.components, config.reduction.rows_per_component
    for k in usable_components(wanted, X.shape[1], len(y), per_component):
        data = Moments.of(np.ascontiguousarray(X[:, :k]), y, K)
        refined.append(_mixture_attempt(data, last.attribute, config))
    moved, gate = last.attribute != y, config.gate
    near = [a for a in refined if a.record.accepted and gates.jaccard(a.attribute != y, moved) >= gate.jaccard]
    return agree(near, y, gate), last, trimmed + refined


def _scan_trimmed(X: Array, y: IntArray, K: int, config: DiscoveryConfig) -> list[Attempt]:
    """The trimmed discriminant at each number of components, judged together by the mean score of the last ones."""
    own, per_component = config.many_classes, config.reduction.rows_per_component
    fits = []
    for k in usable_components(own.trimmed_components, X.shape[1], len(y), per_component):
        data = np.ascontiguousarray(X[:, :k])
        fits.append((data, trimmed_discriminant(data, y, K, trim=own.trim, config=config.proposals)))
    score = float(np.mean([gates.trimmed_score(fit, config.gate) for _, fit in fits[-own.scored :]]))
    return [_trimmed_attempt(Moments.of(data, y, K), fit, score, config) for data, fit in fits]


def _trimmed_attempt(data: Moments, fit: TrimmedDiscriminant, score: float, config: DiscoveryConfig) -> Attempt:
    """Put a trimmed discriminant's partition to its own gate; `score` is shared by the scan's last fits."""
    n, k = data.X.shape
    K, gate = len(data.counts), config.gate
    n_conflicts = int(np.count_nonzero(fit.attribute != data.y))
    tied_to = gates.association(fit.attribute, data.y, K)
    shape = gates.geometry(partition_fit(data, one_hot(fit.attribute, K), config=config.mixture))
    noise = gates.class_noise(fit.attribute, data.y, K, k)
    verdict = gates.class_verdict(shape, noise, gate.trimmed_class_strength, gate)
    if n_conflicts < gate.min_conflicts:
        verdict = f"only {n_conflicts} conflicting examples (needs {gate.min_conflicts})"
    elif score <= gate.trimmed_score:
        verdict = f"conflicts lie between the classes (score {score:.2f} <= {gate.trimmed_score})"
    elif tied_to < gate.association:
        verdict = f"not tied to the label (association {tied_to:.2f} < {gate.association})"
    record = Candidate(
        source="trimmed",
        k=k,
        share=config.many_classes.trim,
        gain=100.0 * (score - gate.trimmed_score),
        cosine=shape.cosine,
        strength=shape.strength,
        class_strength=shape.class_strength,
        association=tied_to,
        conflicts=n_conflicts / n,
        position=fit.position,
        separation=fit.separation,
        accepted=verdict == "accepted",
        reason=verdict,
    )
    return Attempt(record, fit.attribute, discriminant=fit)


def _mixture_attempt(data: Moments, attribute: IntArray, config: DiscoveryConfig) -> Attempt:
    """Fit the additive mixture from a trimmed discriminant's partition and put it to the gate."""
    n, k = data.X.shape
    K = len(data.counts)
    fit = fit_mixture(data, one_hot(attribute, K), tied=True, config=config.mixture)
    moved = fit.responsibilities(data.X, data.y).argmax(axis=1)
    # Schwarz's criterion: (K - 1) k attribute offsets and one share beyond the model without attribute.
    gained = fit.log_likelihood - null_log_likelihood(data, config=config.mixture)
    gain = 2.0 * gained - ((K - 1) * k + 1) * float(np.log(n))
    shape = gates.geometry(fit)
    verdict = gates.mixture_verdict(gain, shape, moved, data.y, k, config.gate)
    record = Candidate(
        source="trimmed+mixture",
        k=k,
        share=config.many_classes.trim,
        gain=gain,
        cosine=shape.cosine,
        strength=shape.strength,
        class_strength=shape.class_strength,
        association=gates.association(moved, data.y, K),
        conflicts=int(np.count_nonzero(moved != data.y)) / n,
        accepted=verdict == "accepted",
        reason=verdict,
    )
    return Attempt(record, moved, mixture=fit)


def agree(attempts: list[Attempt], y: IntArray, gate: GateThresholds) -> Attempt | None:
    """The attempt whose conflicting set the others confirm best; `None` when nothing is confirmed.

    Args:
        attempts: One accepted attempt per number of components.
        y: Labels of the rows they were fitted on.
        gate: Its `jaccard` is what counts as confirmation; an attempt whose attribute is `clear_ratio` times as strong
            as its class needs one, another two.
    """
    conflicts = [attempt.attribute != y for attempt in attempts]
    totals = []
    for i, mine in enumerate(conflicts):
        similar = [gates.jaccard(mine, other) for j, other in enumerate(conflicts) if j != i]
        confirming = [s for s in similar if s >= gate.jaccard]
        record = attempts[i].record
        needed = 1 if record.strength >= gate.clear_ratio * record.class_strength else 2
        totals.append(sum(confirming) if len(confirming) >= needed else 0.0)
    if not attempts or max(totals) == 0.0:
        return None
    return attempts[int(np.argmax(totals))]
