"""Model selection without group labels: accuracy of the worst class and of the worst inferred group."""

from __future__ import annotations

import torch
from torch import Tensor

from aifs_peft.explain.reading import values_of_scores

# `AIFSTrainingArguments.selection` -> the metric it stands for.
SELECTION_METRICS = {
    "worst_inferred_group": "eval_worst_inferred_group_accuracy",
    "worst_class": "eval_worst_class_accuracy",
    "average": "eval_accuracy",
}


def selection_metrics(correct: Tensor, labels: Tensor, scores: Tensor | None, min_cell: int) -> dict[str, float]:
    """Accuracies that need labels only.

    Args:
        correct: `(n,)` bool, prediction equals label.
        labels: `(n,)` int64.
        scores: `(n, A)` of the attribute's values, see `aifs_peft.explain.reading`; None where no attribute is known.
        min_cell: cells with fewer examples say too little and are left out of the minimum.

    Returns:
        "accuracy", "worst_class_accuracy", "worst_inferred_group_accuracy" (over the cells of label and inferred
        attribute; the classes where no direction is known) and "inferred_conflicting_share".

    Example:
        >>> correct, labels = torch.tensor([True, True, False, True]), torch.tensor([0, 0, 1, 1])
        >>> selection_metrics(correct, labels, None, 1)["worst_inferred_group_accuracy"]
        0.5
    """
    accuracy = correct.double().mean().item()
    by_class = _worst(correct, labels, min_cell)
    metrics = {"accuracy": accuracy, "worst_class_accuracy": by_class}
    if scores is None:
        return metrics | {"worst_inferred_group_accuracy": by_class}
    groups = values_of_scores(scores, labels).argmax(dim=1)
    cells = labels * scores.shape[1] + groups
    return metrics | {
        "worst_inferred_group_accuracy": _worst(correct, cells, min_cell),
        "inferred_conflicting_share": (groups != labels).double().mean().item(),
    }


def _worst(correct: Tensor, cells: Tensor, min_cell: int) -> float:
    _, code = cells.unique(return_inverse=True)
    size = torch.bincount(code)
    hits = torch.bincount(code, weights=correct.double())
    large = size >= min_cell
    # With nothing but tiny cells the largest ones still say more than nothing.
    large = large if bool(large.any()) else size == size.max()
    return float((hits / size)[large].min())
