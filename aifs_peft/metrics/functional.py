"""`group_metrics`: everything about groups in one call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aifs_peft.errors import InvalidInputError
from aifs_peft.metrics.accumulator import GroupMetricAccumulator
from aifs_peft.metrics.encoding import encode_classes, encode_groups, occurring_ids
from aifs_peft.metrics.inputs import to_numpy


def group_metrics(
    y_true: Any,
    y_pred: Any,
    groups: Any,
    y_score: Any = None,
    *,
    n_boot: int = 0,
    confidence: float = 0.95,
    random_state: int | np.random.Generator | None = None,
    attributes: Any = None,
    group_shares: ArrayLike | None = None,
    valid: Any = None,
    num_groups: int | None = None,
    num_classes: int | None = None,
    num_attributes: int | None = None,
    group_names: Sequence[str] | None = None,
    attribute_names: Sequence[str] | None = None,
    calibration_bins: int = 15,
    score_bins: int | None = None,
    min_group_size: int = 30,
) -> dict[str, Any]:
    """Accuracy, ranking, fairness and calibration per group, each with its interval and its `n`.

    A group without an example is left out of every minimum and named; a number that is not defined is NaN and
    `reasons` says why. The keys do not depend on the data. Equal to a `GroupMetricAccumulator` fed in any
    batches.

    Args:
        y_true: class ids or names, `(n,)`; NumPy, torch, pandas or a list. Names are numbered in sorted order.
        y_pred: class ids or names, `(n,)`.
        groups: group ids or names `(n,)`, or a boolean matrix `(n, groups)` where groups overlap. A missing value (-1,
            NaN, None, an empty name) is in no group; its example counts in the averages alone.
        y_score: for two classes the score of class 1 `(n,)` (any real numbers; in [0, 1] for calibration) or
            probabilities `(n, 2)`; for more, probabilities `(n, classes)`. `None` leaves score metrics NaN.
        n_boot: stratified bootstrap replicates. 0 keeps the exact intervals (accuracies, binary rates) and
            the normal one of the Brier score; the others are then NaN.
        confidence: coverage of every interval.
        random_state: seed or generator of the bootstrap.
        attributes: attribute ids or names `(n,)` or a boolean matrix. For groups that are class x attribute, whose
            every group holds one class: ROC-AUC and fairness are then compared between attributes.
        group_shares: shares or counts of the groups in the training data, for the adjusted average.
        valid: boolean `(n,)`; rows with `False` (padding) are dropped.
        num_groups: number of groups; from the names, the matrix or the largest id without.
        num_classes: number of classes; from the columns of `y_score` or the largest id without.
        num_attributes: number of attributes, found like `num_groups`.
        group_names: one per group.
        attribute_names: one per attribute.
        calibration_bins: equal-width confidence bins of the calibration error.
        score_bins: bins for an approximate ROC-AUC in constant memory; `None` is exact.
        min_group_size: groups below it are flagged `small`.

    Returns:
        A dictionary with these keys. `n`, `average_accuracy`, `adjusted_average_accuracy` (by training shares),
        `expected_calibration_error`, `brier_score`; `worst_group_accuracy` and `worst_group` (its name);
        `worst_group_roc_auc`, `worst_roc_auc_group`; `equal_opportunity_difference`, the largest gap in true positive
        rates; `equalized_odds_difference`, the larger of the gaps in true and in false positive rates (both of class
        1, or of each class against the rest); each of these also as `<name>_interval`, `[low, high]`. `compared_over`
        ("groups" or "attributes"), `in_no_group` (how many examples), `empty_groups`, `small_groups`, `reasons`,
        `confidence`, `n_boot`. `groups` and `attributes`: per name `n`, `class_counts`, `small`, `accuracy`,
        `roc_auc`, `true_positive_rate`, `false_positive_rate` (and both `..._per_class`),
        `expected_calibration_error`, `brier_score`, intervals, `reasons`.

    Raises:
        InvalidInputError: arrays, ids or options that do not fit; see `GroupMetricAccumulator`.

    Example:
        >>> result = group_metrics([0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 1], num_groups=3)
        >>> result["average_accuracy"], result["worst_group_accuracy"], result["worst_group"]
        (0.75, 0.5, '1')
        >>> result["empty_groups"]
        ['2']
    """
    y_true, y_pred = encode_classes(y_true, y_pred)
    groups, group_names = encode_groups(groups, group_names, "groups")
    if attributes is not None:
        attributes, attribute_names = encode_groups(attributes, attribute_names, "attributes")
    mask = None if valid is None else to_numpy(valid, "valid")
    groups, group_names = occurring_ids(groups, group_names, num_groups, mask)
    if attributes is not None:
        attributes, attribute_names = occurring_ids(attributes, attribute_names, num_attributes, mask)
    accumulator = GroupMetricAccumulator(
        num_groups=_slots(num_groups, group_names, groups, mask, "groups"),
        num_classes=_classes(num_classes, y_true, y_pred, y_score, mask),
        num_attributes=0
        if attributes is None
        else _slots(num_attributes, attribute_names, attributes, mask, "attributes"),
        group_names=group_names,
        attribute_names=attribute_names,
        group_shares=group_shares,
        calibration_bins=calibration_bins,
        score_bins=score_bins,
        min_group_size=min_group_size,
    )
    accumulator.update(y_true, y_pred, groups, y_score, attributes=attributes, valid=valid)
    return accumulator.compute(n_boot=n_boot, confidence=confidence, random_state=random_state)


def _slots(number: int | None, names: Sequence[str] | None, ids: Any, mask: Any, argument: str) -> int:
    if number is not None:
        return number
    if names is not None:
        return len(names)
    array = to_numpy(ids, argument)
    if array.ndim == 2:
        return int(array.shape[1])
    largest = _largest(array, mask)
    if largest < 0:
        msg = f"without examples the number of {argument} cannot be seen: pass num_{argument} or its names"
        raise InvalidInputError(msg)
    return largest + 1


def _classes(number: int | None, y_true: Any, y_pred: Any, y_score: Any, mask: Any) -> int:
    if number is not None:
        return number
    if y_score is not None:
        score = to_numpy(y_score, "y_score")
        if score.ndim == 2:
            return max(2, int(score.shape[1]))
    largest = max(_largest(to_numpy(array, name), mask) for name, array in (("y_true", y_true), ("y_pred", y_pred)))
    return max(2, largest + 1)


def _largest(array: Any, mask: Any) -> int:
    """Largest id of the valid rows, -1 without any; whatever does not fit is refused later, by name."""
    if mask is not None and mask.shape == array.shape and mask.dtype == np.bool_:
        array = array[mask]
    if array.dtype.kind == "f":
        array = array[np.isfinite(array)]
    return int(array.max()) if array.size else -1
