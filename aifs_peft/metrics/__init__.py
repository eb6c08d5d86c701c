"""Group metrics that can be trusted: fixed slots, no silent zero, an interval and an `n` beside every number.

`group_metrics` computes everything in one call, `GroupMetricAccumulator` from a stream or from many
processes, and `evaluate_module_path()` is what `evaluate.load` takes, without a network.
"""

from pathlib import Path

from aifs_peft.metrics.accumulator import GroupMetricAccumulator
from aifs_peft.metrics.functional import group_metrics
from aifs_peft.metrics.intervals import MeanInterval, clopper_pearson, mean_interval
from aifs_peft.metrics.retrieval import recall_at_k
from aifs_peft.metrics.table import format_group_table

__all__ = [
    "GroupMetricAccumulator",
    "MeanInterval",
    "clopper_pearson",
    "evaluate_module_path",
    "format_group_table",
    "group_metrics",
    "mean_interval",
    "recall_at_k",
]


def evaluate_module_path() -> str:
    """Folder of the `evaluate` module, for `evaluate.load(evaluate_module_path())` offline.

    Example:
        >>> Path(evaluate_module_path()).name
        'group_metrics'
    """
    return str(Path(__file__).parent / "evaluate_modules" / "group_metrics")
