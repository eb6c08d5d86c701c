"""Steps 2 to 5 over all numbers of components: propose, fit, gate, agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.gate import GateThresholds
from aifs_peft.discovery.mixture.em import Mixture, Moments, fit_mixture, partition_fit
from aifs_peft.discovery.proposals.trimmed import TrimmedDiscriminant, trimmed_discriminant
from aifs_peft.discovery.result import Candidate

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

COMPONENTS = (4, 8, 16, 32, 64, 128)
# The trimmed discriminant gains from more components than the mixture, whose covariance needs many rows.
TRIMMED_COMPONENTS = (16, 32, 64, 128, 256)
TRIM = 0.1
# With fewer rows per component a covariance says little; the scan then stops earlier.
ROWS_PER_COMPONENT = 5
# The trimmed gate is read off this many of the largest numbers of components.
TRIMMED_LAST = 3


@dataclass(frozen=True)
class Attempt:
    """A candidate with the attribute that it assigns to the rows it was fitted on."""

    record: Candidate
    attribute: IntArray
    mixture: Mixture | None = None
    discriminant: TrimmedDiscriminant | None = None


def one_hot(values: IntArray, n_classes: int, dtype: type = np.float64) -> Array:
    """Shape `(n, n_classes)`."""
    out: Array = np.zeros((len(values), n_classes), dtype=dtype)
    out[np.arange(len(values)), values] = 1.0
    return out


def usable(components: tuple[int, ...], width: int, n: int) -> list[int]:
    """Those of `components` that data of `n` rows and `width` components support; at least one."""
    most = min(width, max(n // ROWS_PER_COMPONENT, 2))
    kept = [k for k in components if k <= most]
    return kept or [most]


def mixture_attempt(
    data: Moments, attribute: IntArray, null: float, source: str, share: float, gate: GateThresholds
) -> Attempt:
    """Fit the additive mixture from one proposed attribute and put it to the gate."""
    n, k = data.X.shape
    K = len(data.counts)
    fit = fit_mixture(data, one_hot(attribute, K), tied=K > 2)
    moved = fit.responsibilities(data.X, data.y).argmax(axis=1)
    n_parameters = (K - 1) * k + (1 if K > 2 else K * (K - 1))
    gain = 2.0 * (fit.log_likelihood - null) - n_parameters * float(np.log(n))
    shape = gates.geometry(fit)
    tied_to = gates.association(moved, data.y, K)
    n_conflicts = int(np.count_nonzero(moved != data.y))
    verdict = gates.mixture_verdict(gain, shape, moved, data.y, k, gate)
    record = Candidate(
        source, k, share, gain, shape.cosine, shape.strength, shape.class_strength, tied_to, n_conflicts / n,
        accepted=verdict == "accepted", reason=verdict,
    )  # fmt: skip
    return Attempt(record, moved, mixture=fit)


def trimmed_attempt(data: Moments, fit: TrimmedDiscriminant, score: float, gate: GateThresholds) -> Attempt:
    """Put a trimmed discriminant's partition to its own gate; `score` is shared by the scan's last fits."""
    n, k = data.X.shape
    K = len(data.counts)
    n_conflicts = int(np.count_nonzero(fit.attribute != data.y))
    tied_to = gates.association(fit.attribute, data.y, K)
    shape = gates.geometry(partition_fit(data, one_hot(fit.attribute, K)))
    verdict = gates.class_verdict(shape, gates.class_noise(fit.attribute, data.y, K, k), gate.trimmed_class_strength)
    if n_conflicts < gate.min_conflicts:
        verdict = f"only {n_conflicts} conflicting examples (needs {gate.min_conflicts})"
    elif score <= gate.trimmed_score:
        verdict = f"conflicts lie between the classes (score {score:.2f} <= {gate.trimmed_score})"
    elif tied_to < gate.association:
        verdict = f"not tied to the label (association {tied_to:.2f} < {gate.association})"
    record = Candidate(
        "trimmed", k, TRIM, 100.0 * (score - gate.trimmed_score), shape.cosine, shape.strength, shape.class_strength,
        tied_to, n_conflicts / n, fit.position, fit.separation, accepted=verdict == "accepted", reason=verdict,
    )  # fmt: skip
    return Attempt(record, fit.attribute, discriminant=fit)


def scan_trimmed(X: Array, y: IntArray, n_classes: int, gate: GateThresholds) -> list[Attempt]:
    """The trimmed discriminant at each number of components, judged together by the mean score of the last ones."""
    fits = []
    for k in usable(TRIMMED_COMPONENTS, X.shape[1], len(y)):
        data = np.ascontiguousarray(X[:, :k])
        fits.append((data, trimmed_discriminant(data, y, n_classes, trim=TRIM)))
    score = float(np.mean([gates.trimmed_score(fit) for _, fit in fits[-TRIMMED_LAST:]]))
    attempts = []
    for data, fit in fits:
        attempts.append(trimmed_attempt(Moments.of(data, y, n_classes), fit, score, gate))
    return attempts


def best_per_k(attempts: list[Attempt]) -> list[Attempt]:
    """Of the accepted attempts, the one with the largest gain at each number of components."""
    best: dict[int, Attempt] = {}
    for attempt in attempts:
        if attempt.record.accepted:
            held = best.get(attempt.record.k)
            if held is None or attempt.record.gain > held.record.gain:
                best[attempt.record.k] = attempt
    return list(best.values())


def agree(attempts: list[Attempt], y: IntArray, gate: GateThresholds) -> Attempt | None:
    """The attempt whose conflicting set the others confirm best; `None` when nothing is confirmed.

    Args:
        attempts: One accepted attempt per number of components.
        y: Labels of the rows they were fitted on.
        gate: Its `jaccard` is what counts as confirmation.
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
