"""Rates of confusion tables and how far they differ between groups; undefined is NaN, never 0 or 1."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def accuracy(tables: Ints) -> Floats:
    """Accuracy of confusion tables `(..., classes, classes)`; NaN for empty tables.

    Example:
        >>> float(accuracy(np.array([[8, 2], [1, 9]])))
        0.85
    """
    return _ratio(np.trace(tables, axis1=-2, axis2=-1), tables.sum((-2, -1)))


def true_positive_rates(tables: Ints) -> Floats:
    """Recall of each class against the rest, `(..., classes)`; NaN where the class has no example.

    Example:
        >>> true_positive_rates(np.array([[8, 2], [1, 9]])).tolist()
        [0.8, 0.9]
    """
    return _ratio(np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(-1))


def false_positive_rates(tables: Ints) -> Floats:
    """Share of the other classes' examples that are called this class, `(..., classes)`; NaN without others.

    Example:
        >>> false_positive_rates(np.array([[8, 2], [1, 9]])).tolist()
        [0.1, 0.2]
    """
    false = tables.sum(-2) - np.diagonal(tables, axis1=-2, axis2=-1)
    others = tables.sum((-2, -1))[..., None] - tables.sum(-1)
    return _ratio(false, others)


def headline_rate(rates: Floats) -> Floats:
    """The rate shown per group: that of class 1 for two classes, else the mean over the defined classes."""
    if rates.shape[-1] == 2:
        return rates[..., 1]
    defined = ~np.isnan(rates)
    return _ratio(np.where(defined, rates, 0.0).sum(-1), defined.sum(-1))


def minimum(values: Floats) -> Floats:
    """Smallest defined value along the last axis; NaN where none is defined.

    Example:
        >>> float(minimum(np.array([np.nan, 0.7, 0.9])))
        0.7
    """
    low = np.where(np.isnan(values), np.inf, values).min(-1, initial=np.inf)
    return np.asarray(np.where(np.isinf(low), np.nan, low))


def largest_gap(rates: Floats) -> Floats:
    """Largest difference between two slots in any class.

    Args:
        rates: `(..., slots, classes)`. For two classes only class 1 is compared (class 0 mirrors it with true
            and false positives exchanged); otherwise each class against the rest.

    Returns:
        `(...)`; NaN unless some class has a defined rate in at least two slots: one group alone is no
        comparison.

    Example:
        >>> float(largest_gap(np.array([[0.0, 0.9], [0.0, 0.6], [0.0, np.nan]])).round(2))
        0.3
    """
    compared = rates[..., 1:] if rates.shape[-1] == 2 else rates
    defined = ~np.isnan(compared)
    high = np.where(defined, compared, -np.inf).max(-2, initial=-np.inf)
    low = np.where(defined, compared, np.inf).min(-2, initial=np.inf)
    enough = defined.sum(-2) >= 2
    gap = np.subtract(high, low, out=np.full(high.shape, -np.inf), where=enough).max(-1)
    return np.asarray(np.where(np.isinf(gap), np.nan, gap))


def equal_opportunity_difference(tables: Ints) -> Floats:
    """Largest gap in true positive rates between the slots of `(..., slots, classes, classes)`.

    Hardt et al. (NeurIPS 2016); for several classes each against the rest and the largest gap.

    Example:
        >>> tables = np.array([[[5, 5], [1, 9]], [[5, 5], [4, 6]]])
        >>> float(equal_opportunity_difference(tables).round(6))
        0.3
    """
    return largest_gap(true_positive_rates(tables))


def equalized_odds_difference(tables: Ints) -> Floats:
    """Larger of the gaps in true and in false positive rates between slots; NaN unless both are comparable.

    Example:
        >>> tables = np.array([[[5, 5], [1, 9]], [[9, 1], [4, 6]]])
        >>> float(equalized_odds_difference(tables).round(6))
        0.4
    """
    # np.maximum hands NaN on: half a comparison must not read as fairness.
    return np.asarray(np.maximum(largest_gap(true_positive_rates(tables)), largest_gap(false_positive_rates(tables))))


def _ratio(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(numerator, denominator))
