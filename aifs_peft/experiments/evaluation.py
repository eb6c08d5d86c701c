"""Group metrics and group counts of a run: the only place of the runner where groups are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from aifs_peft import metrics
from aifs_peft.data import group_array
from aifs_peft.data.groups import find_spec
from aifs_peft.experiments.prepare import group_names, label_names

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def evaluate_groups(
    test: Dataset, logits: NDArray[Any], n_boot: int = 0, seed: int = 0, train: Dataset | None = None
) -> dict[str, Any]:
    """Group metrics of a test split, keyed by group name.

    Groups may overlap (CivilComments). Where they are class x attribute, ROC-AUC and the fairness differences are
    compared between attributes, because such a group holds one class. Without a `group` column each class is a
    group of its own.

    Args:
        test: with the columns `label` and, for groups, `group`.
        logits: `(n, classes)`.
        n_boot: bootstrap replicates for the intervals that have no exact form.
        seed: of the bootstrap.
        train: training split, whose group shares weight the adjusted average of a partition; None leaves it NaN.

    Returns:
        As `aifs_peft.metrics.group_metrics`.
    """
    labels = np.asarray(test["label"][:])
    has_groups = "group" in test.column_names
    groups = group_array(test) if has_groups else labels
    names = _names(test) if has_groups else label_names(test)
    scores = softmax(logits, axis=1)
    extra: dict[str, Any] = {}
    spec = find_spec(test) if has_groups else None
    if spec is not None and not spec.overlapping:
        extra = {"attributes": spec.attribute_of(groups), "attribute_names": list(spec.attributes)}
    if train is not None and has_groups and groups.ndim == 1:
        extra["group_shares"] = _counts(train, names)
    return metrics.group_metrics(
        labels, logits.argmax(axis=1), groups, scores[:, 1] if logits.shape[1] == 2 else scores,
        n_boot=n_boot, random_state=seed, group_names=names, **extra,
    )  # fmt: skip


def group_counts(splits: DatasetDict) -> dict[str, dict[str, int]]:
    """Examples per group and split, for the record; the trainer never sees them. Overlapping groups need not add up."""
    counts = {}
    for split, rows in splits.items():
        if "group" in rows.column_names:
            names = _names(rows)
            counts[split] = dict(zip(names, _counts(rows, names).tolist(), strict=True))
    return counts


def group_definition(splits: DatasetDict) -> str | None:
    """Which definition of the groups the numbers are under, so that two definitions are not compared by mistake.

    Returns:
        The name of the set's `GroupSpec`; "column 'group'" for groups without one, None without groups.
    """
    if "group" not in splits["test"].column_names:
        return None
    spec = find_spec(splits["test"])
    return "column 'group'" if spec is None else spec.definition


def _names(rows: Dataset) -> list[str]:
    """Group names from the set's own definition, else from the column."""
    spec = find_spec(rows)
    return list(spec.names) if spec is not None else group_names(rows)


def _counts(rows: Dataset, names: list[str]) -> NDArray[np.int64]:
    groups = group_array(rows)
    if groups.ndim == 2:
        return np.asarray(groups.sum(axis=0), dtype=np.int64)
    return np.bincount(groups[groups >= 0], minlength=len(names)).astype(np.int64)
