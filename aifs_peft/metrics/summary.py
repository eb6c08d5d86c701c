"""Headline numbers of a result: averages, the worst group, and differences between groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.metrics import rates
from aifs_peft.metrics.intervals import bootstrap_interval, clopper_pearson, minimum_interval
from aifs_peft.metrics.result import NAN, Part, Settings, normal_interval

Floats = NDArray[np.float64]


def worst(values: Floats, names: Sequence[str]) -> tuple[float, str | None]:
    """Smallest defined value and its name (the first of equals); `(nan, None)` where none is defined.

    Example:
        >>> worst(np.array([np.nan, 0.5]), ["empty", "hard"])
        (0.5, 'hard')
    """
    if np.isnan(values).all():
        return NAN, None
    slot = int(np.nanargmin(values))
    return float(values[slot]), names[slot]


def group_accuracy_summary(
    part: Part, shares: Floats | None, settings: Settings
) -> tuple[dict[str, Any], dict[str, str]]:
    """Worst-group and adjusted average accuracy with intervals, and reasons."""
    statistics, reasons = part.statistics, {}
    values = rates.accuracy(statistics.confusion)
    filled = statistics.n > 0
    low, name = worst(values, part.names)
    result: dict[str, Any] = {
        "worst_group_accuracy": low,
        "worst_group_accuracy_interval": minimum_interval(statistics.correct, statistics.n, settings.confidence),
        "worst_group": name,
        "adjusted_average_accuracy": NAN,
        "adjusted_average_accuracy_interval": [NAN, NAN],
    }
    empty = [part.names[slot] for slot in np.flatnonzero(~filled)]
    if not filled.any():
        reasons["worst_group_accuracy"] = "no group has an example"
    elif empty:
        reasons["worst_group_accuracy"] = f"groups without an example are left out: {', '.join(empty)}"
    if shares is None:
        reasons["adjusted_average_accuracy"] = "no training group shares were given (group_shares)"
        return result, reasons
    weights = np.where(filled, shares, 0.0)
    if weights.sum() == 0:
        reasons["adjusted_average_accuracy"] = "no group with a positive training share has an example"
        return result, reasons
    missing = [part.names[slot] for slot in np.flatnonzero(~filled & (shares > 0))]
    if missing:
        reasons["adjusted_average_accuracy"] = f"shares rescaled without the empty groups: {', '.join(missing)}"
    weights = weights[filled] / weights.sum()
    result["adjusted_average_accuracy"] = float(values[filled] @ weights)
    drawn = part.drawn("accuracy")
    result["adjusted_average_accuracy_interval"] = bootstrap_interval(
        result["adjusted_average_accuracy"],
        None if drawn is None else drawn[:, filled] @ weights,
        settings.confidence,
    )
    return result, reasons


def fairness_summary(part: Part, settings: Settings) -> tuple[dict[str, Any], dict[str, str]]:
    """Worst area under the curve and both fairness differences between slots, with intervals and reasons."""
    reasons: dict[str, str] = {}
    low, name = worst(part.auc, part.names)
    drawn = part.drawn("roc_auc")
    defined = ~np.isnan(part.auc)
    smallest = None if drawn is None or not defined.any() else rates.minimum(drawn[:, defined])
    result: dict[str, Any] = {
        "worst_group_roc_auc": low,
        "worst_group_roc_auc_interval": bootstrap_interval(low, smallest, settings.confidence, reflect=True),
        "worst_roc_auc_group": name,
    }
    undefined = [part.names[slot] for slot in np.flatnonzero(~defined)]
    if part.no_score:
        reasons["worst_group_roc_auc"] = part.no_score
    elif undefined:
        reasons["worst_group_roc_auc"] = f"left out, with no example or only one class: {', '.join(undefined)}"
    tables = part.statistics.confusion
    tpr, fpr = rates.true_positive_rates(tables), rates.false_positive_rates(tables)
    compared = {"equal_opportunity_difference": [tpr], "equalized_odds_difference": [tpr, fpr]}
    for key, components in compared.items():
        gaps = [float(rates.largest_gap(component)) for component in components]
        value = float(np.max(gaps))
        result[key] = value
        result[f"{key}_interval"] = bootstrap_interval(value, part.drawn(key), settings.confidence, reflect=True)
        columns = np.concatenate([c[:, 1:] if c.shape[1] == 2 else c for c in components], axis=1)
        partial = [part.names[slot] for slot in np.flatnonzero(np.isnan(columns).any(1))]
        if np.isnan(value):
            reasons[key] = "fewer than two groups have a defined rate, so there is no comparison"
        elif partial:
            reasons[key] = f"left out where a rate is undefined (a class or its rest is absent): {', '.join(partial)}"
    return result, reasons


def overall_summary(part: Part, settings: Settings) -> tuple[dict[str, Any], dict[str, str]]:
    """Average accuracy and calibration over all examples, each counted once however its groups overlap."""
    statistics = part.statistics
    n, correct = int(statistics.n[0]), int(statistics.correct[0])
    low, high = clopper_pearson(correct, n, settings.confidence)
    calibrated = n > 0 and not part.no_calibration
    brier, error = statistics.brier()
    calibration = float(statistics.calibration_error()[0]) if calibrated else NAN
    score = float(brier[0]) if calibrated else NAN
    result: dict[str, Any] = {
        "n": n,
        "average_accuracy": correct / n if n else NAN,
        "average_accuracy_interval": [float(low), float(high)],
        "expected_calibration_error": calibration,
        "expected_calibration_error_interval": bootstrap_interval(
            calibration, part.drawn("calibration", 0), settings.confidence, reflect=True
        ),
        "brier_score": score,
        "brier_score_interval": normal_interval(score, float(error[0]), settings.confidence),
    }
    reasons = {} if n else {"average_accuracy": "there is no example"}
    if not calibrated:
        reasons["expected_calibration_error"] = reasons["brier_score"] = part.no_calibration or "there is no example"
    return result, reasons
