"""Step 5: which candidates are evidence of a spurious attribute, and which only of hard examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.mixture.em import Mixture
from aifs_peft.discovery.proposals.trimmed import TrimmedDiscriminant

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]


@dataclass(frozen=True)
class GateThresholds:
    """Where the gate stands; calibrated on draws with and without a shortcut, see `docs/discovery.md`.

    Args:
        cosine: Mixtures below it move examples along the class difference: hard examples.
        strength: Smallest attribute contrast, in within-group standard deviations.
        ratio: Smallest attribute contrast relative to the class contrast: a shortcut is the easier one.
        association: Smallest association of attribute and label; raised for small `n` by its standard error.
        further_association: The same once an attribute has been found. Its directions take part of the class with
            them, and a style of the class is then easily stronger than what is left of it.
        class_strength: Smallest class contrast beside the attribute, after subtracting what chance gives.
            Mislabelled examples of well separated classes look like an attribute beside which the class has
            no contrast of its own.
        trimmed_class_strength: The same for a trimmed discriminant's partition of more than two classes: it calls
            some of the hard examples conflicting, which gives the class a contrast where it has none.
        hint_class_strength: The same for known values, which are tested as they were given, not the best of many
            partitions; nothing is subtracted, but what chance gives must be exceeded.
        clear_ratio: From this ratio on, confirmation at one other number of components is enough, otherwise
            two.
        refined_strength: Smallest attribute contrast of a partition refined by cross-fitted EM (two classes).
        relative: Smallest `relative_strength` of such a partition.
        min_conflicts: Fewest conflicting examples.
        trimmed_score: Smallest score of a trimmed discriminant, see `trimmed_score`.
        jaccard: Conflicting sets at least this similar confirm each other.
    """

    cosine: float = -0.8
    strength: float = 2.6
    ratio: float = 1.0
    association: float = 0.15
    further_association: float = 0.6
    class_strength: float = 0.7
    trimmed_class_strength: float = 1.5
    hint_class_strength: float = 0.5
    clear_ratio: float = 1.5
    refined_strength: float = 2.9
    relative: float = 1.5
    min_conflicts: int = 5
    trimmed_score: float = 0.95
    jaccard: float = 0.5


DEFAULT_GATE = GateThresholds()


@dataclass(frozen=True)
class Geometry:
    """Class and attribute contrast of a fit in the `Sigma^-1` metric."""

    cosine: float
    strength: float
    class_strength: float


def geometry(fit: Mixture) -> Geometry:
    """Cosine between the centred offsets and their sizes, from a fit's `alpha`, `beta` and precision."""
    alpha = fit.alpha - fit.alpha.mean(axis=0)
    beta = fit.beta - fit.beta.mean(axis=0)
    K = len(alpha)
    aa = float(np.sum((alpha @ fit.precision) * alpha))
    bb = float(np.sum((beta @ fit.precision) * beta))
    ab = float(np.sum((alpha @ fit.precision) * beta))
    cosine = ab / np.sqrt(max(aa * bb, 1e-24))
    return Geometry(float(cosine), float(np.sqrt(2.0 * bb / K)), float(np.sqrt(2.0 * aa / K)))


def association(attribute: IntArray, y: IntArray, n_classes: int) -> float:
    """Mean over `a` of `P(a | y=a) - mean over y != a of P(a | y)`; 0 when independent, 1 when equal."""
    table = np.zeros((n_classes, n_classes))
    np.add.at(table, (y, attribute), 1.0)
    table /= np.maximum(table.sum(axis=1, keepdims=True), 1.0)
    own = np.diag(table)
    others = (table.sum(axis=0) - own) / max(n_classes - 1, 1)
    return float(np.mean(own - others))


def association_noise(y: IntArray) -> float:
    """3.5 standard errors of the association of an attribute that is independent of the label."""
    counts = np.bincount(y)
    return 3.5 * float(np.sqrt(np.sum(0.25 / counts))) / (len(counts) / 2.0)


def jaccard(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Size of the intersection over that of the union; 0 when both are empty."""
    union = int(np.count_nonzero(first | second))
    return float(np.count_nonzero(first & second) / union) if union else 0.0


def trimmed_score(fit: TrimmedDiscriminant) -> float:
    """How much the conflicting examples lie *at* another class's centre, and not between two.

    `(t - 0.5) / 0.13 * min(1, sep / 6.5)`: hard examples lie just past the middle (`t` little above 0.5), or
    the classes are not apart (`sep` small). Without conflicting examples 0.
    """
    if not np.isfinite(fit.position):
        return 0.0
    # Beyond the other centre is no better than at it: with classes on top of each other t is arbitrarily
    # large.
    return float((min(fit.position, 1.0) - 0.5) / 0.13 * min(1.0, fit.separation / 6.5))


def class_noise(attribute: IntArray, y: IntArray, n_classes: int, k: int) -> tuple[float, float]:
    """`noise_of_counts` of the aligned and conflicting examples of each class."""
    moved = attribute != y
    aligned, conflicting = (np.bincount(y[part], minlength=n_classes) for part in (~moved, moved))
    return noise_of_counts(aligned, conflicting, k)


def noise_of_counts(aligned: NDArray[Any], conflicting: NDArray[Any], k: int) -> tuple[float, float]:
    """Mean and standard deviation of `class_strength^2` if the class had no contrast beside the attribute.

    Two classes: each class offset is estimated with variance `(1/n_aligned + 1/n_conflicting) / 4` per whitened
    dimension, of which centring takes one part in `K`; the sum over `k` dimensions is a chi-square. With `K` classes
    what tells the class from the attribute are differences over the `K (K - 1)` conflicting cells, and least squares
    over them give the second part `2 (K - 1) / K` times.
    """
    n_classes = len(aligned)
    off_diagonal = 2.0 * (n_classes - 1.0) / n_classes / np.maximum(conflicting, 1)
    each = 0.25 * (off_diagonal + 1.0 / np.maximum(aligned, 1)) * (1.0 - 1.0 / n_classes)
    # The inverse of a covariance estimated from n rows is too large by n / (n - k - 1) on average.
    n = float(np.sum(aligned) + np.sum(conflicting))
    variance = 2.0 * float(np.mean(each)) * n / max(n - k - 1.0, 1.0)
    freedom = k * (n_classes - 1)
    return variance * k, variance * k * float(np.sqrt(2.0 / freedom))


def relative_strength(shape: Geometry, attribute: IntArray, y: IntArray, k: int, gate: GateThresholds) -> float:
    """Attribute contrast over class contrast, each without what chance gives; comparable at the same `k` only."""
    noise, _ = class_noise(attribute, y, len(np.bincount(y)), k)
    strength = np.sqrt(max(shape.strength**2 - noise, 0.0))
    return float(strength / np.sqrt(max(shape.class_strength**2 - noise, gate.class_strength**2)))


def refined_verdict(
    relative: float, shape: Geometry, attribute: IntArray, y: IntArray, k: int, gate: GateThresholds
) -> str:
    """`"accepted"`, or the first reason against a partition that cross-fitted EM has refined.

    The likelihood is not asked: with natural clusters inside the classes it prefers the larger, wrong partition.
    """
    verdict = mixture_verdict(np.inf, shape, attribute, y, k, gate)
    if verdict != "accepted":
        return verdict
    if shape.strength < gate.refined_strength:
        return f"attribute contrast too small ({shape.strength:.2f} < {gate.refined_strength})"
    if relative < gate.relative:
        return f"not clearly stronger than the class ({relative:.2f} < {gate.relative})"
    return verdict


def class_verdict(shape: Geometry, noise: tuple[float, float], least: float) -> str:
    """`"accepted"`, or that the class has no contrast of its own beside the attribute: mislabelled examples."""
    expected, spread = noise
    needed = max(expected + least**2, expected + 3.0 * spread)
    if shape.class_strength**2 < needed:
        return f"nothing of the class beside it: mislabelled? ({shape.class_strength:.2f} < {np.sqrt(needed):.2f})"
    return "accepted"


def mixture_verdict(
    gain: float, shape: Geometry, attribute: IntArray, y: IntArray, k: int, gate: GateThresholds
) -> str:
    """`"accepted"`, or the first reason against a mixture."""
    K = len(np.bincount(y))
    associated = association(attribute, y, K)
    n_conflicts = int(np.count_nonzero(attribute != y))
    needed = max(gate.association, association_noise(y))
    if n_conflicts < gate.min_conflicts:
        return f"only {n_conflicts} conflicting examples (needs {gate.min_conflicts})"
    if gain <= 0.0:
        return "no better than the model without attribute"
    if shape.cosine <= gate.cosine:
        return f"moves hard examples along the class difference (cosine {shape.cosine:.2f})"
    if shape.strength < gate.strength:
        return f"attribute contrast too small ({shape.strength:.2f} < {gate.strength})"
    if shape.strength < gate.ratio * shape.class_strength:
        return f"weaker than the class itself ({shape.strength:.2f} < {shape.class_strength:.2f})"
    if associated < needed:
        return f"not tied to the label (association {associated:.2f} < {needed:.2f})"
    return class_verdict(shape, class_noise(attribute, y, K, k), gate.class_strength)
