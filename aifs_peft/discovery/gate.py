"""The gate: which partitions are evidence of a spurious attribute, and which only of hard or mislabelled examples.

Each test has a name in `GateThresholds`; the verdict of a candidate is `"accepted"` or the first reason against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.arrays import BoolArray, IntArray
from aifs_peft.discovery.config import GateThresholds
from aifs_peft.discovery.mixture.em import Mixture
from aifs_peft.discovery.proposals.trimmed import TrimmedDiscriminant

NO_CLASS = "nothing of the class beside it"
"""Why a partition that goes with the label is no attribute: wrong labels look the same."""


@dataclass(frozen=True)
class Geometry:
    """Class and attribute contrast of a fit, measured in the `Sigma^-1` metric.

    Args:
        cosine: Between the centred class and attribute offsets.
        strength: `sqrt(2 mean_a |beta_a|^2)`: for two classes the distance between the attribute's clusters over
            `sqrt(2)`, in within-group standard deviations.
        class_strength: The same of the class offsets.
    """

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
    """How much more often an attribute value occurs in its own class than in the others.

    Mean over `a` of `P(a | y=a) - mean over y != a of P(a | y)`.

    Args:
        attribute: Attribute values in `0..n_classes-1`, shape `(n,)`.
        y: Labels, likewise.
        n_classes: `K`.

    Returns:
        0 when independent, 1 when equal.

    Example:
        >>> association(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2)
        0.6666666666666667
    """
    table = np.zeros((n_classes, n_classes))
    np.add.at(table, (y, attribute), 1.0)
    table /= np.maximum(table.sum(axis=1, keepdims=True), 1.0)
    own = np.diag(table)
    others = (table.sum(axis=0) - own) / max(n_classes - 1, 1)
    return float(np.mean(own - others))


def association_error(y: IntArray) -> float:
    """Standard error of the association of an attribute that is independent of the label and evenly split.

    Example:
        >>> association_error(np.array([0, 1] * 200))
        0.05
    """
    counts = np.bincount(y)
    return float(np.sqrt(np.sum(0.25 / counts))) / (len(counts) / 2.0)


def association_noise(y: IntArray, gate: GateThresholds) -> float:
    """What the association with the label must exceed to be beyond chance.

    Args:
        y: Labels in `0..K-1`, shape `(n,)`.
        gate: Its `association_errors` says how many standard errors.

    Example:
        >>> association_noise(np.array([0, 1] * 200), GateThresholds(association_errors=3.0))
        0.15000000000000002
    """
    return gate.association_errors * association_error(y)


def jaccard(first: BoolArray, second: BoolArray) -> float:
    """Similarity of two sets: size of the intersection over that of the union; 0 when both are empty.

    Args:
        first: Membership in the first set, shape `(n,)`.
        second: In the second.

    Example:
        >>> jaccard(np.array([True, True, False]), np.array([False, True, False]))
        0.5
    """
    union = int(np.count_nonzero(first | second))
    return float(np.count_nonzero(first & second) / union) if union else 0.0


def trimmed_score(fit: TrimmedDiscriminant, gate: GateThresholds) -> float:
    """How much the conflicting examples lie *at* another class's centre, and not between two.

    `(t - 0.5) / trimmed_position * min(1, separation / trimmed_separation)`, where `t` is the position of the
    conflicting examples between their own class centre (0) and the nearest other one (1). Hard examples lie just past
    the middle, or the classes are not apart. Without conflicting examples 0.

    Args:
        fit: The trimmed discriminant.
        gate: Its `trimmed_position` and `trimmed_separation`.

    Example:
        >>> nothing = np.zeros((2, 1))
        >>> fit = TrimmedDiscriminant(nothing, nothing, np.array([0, 1]), position=0.9, separation=8.0)
        >>> round(trimmed_score(fit, GateThresholds()), 2)
        3.08
    """
    if not np.isfinite(fit.position):
        return 0.0
    # Beyond the other centre is no better than at it: with classes on top of each other t is arbitrarily large.
    apart = min(1.0, fit.separation / gate.trimmed_separation)
    return float((min(fit.position, 1.0) - 0.5) / gate.trimmed_position * apart)


def class_noise(attribute: IntArray, y: IntArray, n_classes: int, k: int) -> tuple[float, float]:
    """`noise_of_counts` of the aligned and conflicting examples of each class.

    Args:
        attribute: Attribute values in `0..n_classes-1`, shape `(n,)`.
        y: Labels, likewise.
        n_classes: `K`.
        k: Number of components.

    Returns:
        Mean and standard deviation.

    Example:
        >>> y = np.array([0, 1] * 50); moved = np.where(np.arange(100) < 10, 1 - y, y)
        >>> [round(value, 2) for value in class_noise(moved, y, 2, 8)]
        [0.49, 0.24]
    """
    moved = attribute != y
    aligned, conflicting = (np.bincount(y[part], minlength=n_classes) for part in (~moved, moved))
    return noise_of_counts(aligned, conflicting, k)


def noise_of_counts(aligned: NDArray[Any], conflicting: NDArray[Any], k: int) -> tuple[float, float]:
    """Mean and standard deviation of `class_strength^2` if the class had no contrast beside the attribute.

    Two classes: each class offset is estimated with variance `(1/n_aligned + 1/n_conflicting) / 4` per whitened
    dimension, of which centring takes one part in `K`; the sum over `k` dimensions is a chi-square. With `K` classes
    what tells the class from the attribute are differences over the `K (K - 1)` conflicting cells, and least squares
    over them give the second part `2 (K - 1) / K` times.

    Args:
        aligned: Number of aligned examples of each class, shape `(K,)`.
        conflicting: Number of conflicting examples of each class, likewise.
        k: Number of components.

    Returns:
        Mean and standard deviation.

    Example:
        >>> [round(value, 2) for value in noise_of_counts(np.array([45.0, 45.0]), np.array([5.0, 5.0]), 8)]
        [0.49, 0.24]
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
    """Attribute contrast over class contrast, each without what chance gives; comparable at the same `k` only.

    Args:
        shape: Contrasts of the fit.
        attribute: Attribute values in `0..K-1`, shape `(n,)`.
        y: Labels, likewise.
        k: Number of components.
        gate: The class contrast counts as `gate.class_strength` where it is smaller.

    Example:
        >>> y = np.arange(400) % 2; moved = np.where(np.arange(400) < 40, 1 - y, y)
        >>> round(relative_strength(Geometry(0.0, 4.0, 2.0), moved, y, 8, GateThresholds()), 2)
        2.02
    """
    noise, _ = class_noise(attribute, y, len(np.bincount(y)), k)
    strength = np.sqrt(max(shape.strength**2 - noise, 0.0))
    return float(strength / np.sqrt(max(shape.class_strength**2 - noise, gate.class_strength**2)))


def refined_verdict(
    relative: float, shape: Geometry, attribute: IntArray, y: IntArray, k: int, gate: GateThresholds
) -> str:
    """`"accepted"`, or the first reason against a partition that cross-fitted EM has refined.

    The likelihood is not asked: with natural clusters inside the classes it prefers the larger, wrong partition.

    Args:
        relative: `relative_strength` of the fit.
        shape: Contrasts of the fit.
        attribute: Attribute values in `0..K-1`, shape `(n,)`.
        y: Labels, likewise.
        k: Number of components.
        gate: Thresholds.

    Example:
        >>> y = np.arange(400) % 2; moved = np.where(np.arange(400) < 40, 1 - y, y)
        >>> refined_verdict(1.33, Geometry(0.0, 4.0, 3.0), moved, y, 8, GateThresholds())
        'not clearly stronger than the class (1.33 < 1.5)'
    """
    verdict = mixture_verdict(np.inf, shape, attribute, y, k, gate)
    if verdict != "accepted":
        return verdict
    if shape.strength < gate.refined_strength:
        return f"attribute contrast too small ({shape.strength:.2f} < {gate.refined_strength})"
    if relative < gate.relative:
        return f"not clearly stronger than the class ({relative:.2f} < {gate.relative})"
    return verdict


def class_verdict(shape: Geometry, noise: tuple[float, float], least: float, gate: GateThresholds) -> str:
    """`"accepted"`, or that the class has no contrast of its own beside the attribute: mislabelled examples.

    Args:
        shape: Contrasts of the fit.
        noise: Mean and standard deviation of the squared class contrast that chance gives, see `noise_of_counts`.
        least: Smallest class contrast beyond chance.
        gate: Its `class_errors` is by how many standard deviations chance must be exceeded.

    Example:
        >>> class_verdict(Geometry(0.0, 4.0, 0.8), (0.5, 0.1), 0.7, GateThresholds())
        'nothing of the class beside it: mislabelled? (0.80 < 0.99)'
    """
    expected, spread = noise
    needed = max(expected + least**2, expected + gate.class_errors * spread)
    if shape.class_strength**2 < needed:
        return f"{NO_CLASS}: mislabelled? ({shape.class_strength:.2f} < {np.sqrt(needed):.2f})"
    return "accepted"


def mixture_verdict(
    gain: float, shape: Geometry, attribute: IntArray, y: IntArray, k: int, gate: GateThresholds
) -> str:
    """`"accepted"`, or the first reason against a mixture.

    Args:
        gain: Its penalised likelihood gain over the model without attribute; must be positive.
        shape: Its contrasts.
        attribute: Attribute values in `0..K-1`, shape `(n,)`.
        y: Labels, likewise.
        k: Number of components.
        gate: Thresholds.

    Example:
        >>> y = np.arange(400) % 2; moved = np.where(np.arange(400) < 40, 1 - y, y)
        >>> mixture_verdict(10.0, Geometry(-0.95, 4.0, 3.0), moved, y, 8, GateThresholds())
        'moves hard examples along the class difference (cosine -0.95)'
    """
    K = len(np.bincount(y))
    associated = association(attribute, y, K)
    n_conflicts = int(np.count_nonzero(attribute != y))
    needed = max(gate.association, association_noise(y, gate))
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
    return class_verdict(shape, class_noise(attribute, y, K, k), gate.class_strength, gate)
