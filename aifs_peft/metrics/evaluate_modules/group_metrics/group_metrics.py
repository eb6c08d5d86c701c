"""`evaluate` module of the group metrics, for `evaluate.load(evaluate_module_path())` without a network."""

from typing import Any

import datasets
import evaluate

from aifs_peft.metrics import group_metrics

_DESCRIPTION = """Accuracy, ROC-AUC, fairness differences and calibration per group, with intervals and n.
A group without an example is left out of every minimum and named; what is undefined is NaN, with a reason."""

_INPUTS = """
Args:
    predictions: class ids.
    references: class ids.
    groups: group ids; with config "overlapping", one row of booleans per example.
    scores: config "scores" only: score of class 1.
    probabilities: config "probabilities" only: one row of class probabilities per example.
    **options: any option of `aifs_peft.metrics.group_metrics` (num_groups, group_names, n_boot, ...).

Returns:
    The dictionary of `aifs_peft.metrics.group_metrics`.
"""

# config name: the columns it has beside predictions and references
_CONFIGS: dict[str, dict[str, Any]] = {
    "default": {"groups": datasets.Value("int64")},
    "scores": {"groups": datasets.Value("int64"), "scores": datasets.Value("float64")},
    "probabilities": {
        "groups": datasets.Value("int64"),
        "probabilities": datasets.Sequence(datasets.Value("float64")),
    },
    "overlapping": {"groups": datasets.Sequence(datasets.Value("bool"))},
}


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class GroupMetrics(evaluate.Metric):
    """`group_metrics` behind `add_batch` and `compute`; the configuration name chooses the input columns."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in _CONFIGS:
            msg = f"no configuration {self.config_name!r} of group_metrics; there are {', '.join(_CONFIGS)}"
            raise ValueError(msg)
        columns = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(columns | _CONFIGS[self.config_name]),
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        groups: Any,
        scores: Any = None,
        probabilities: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        return group_metrics(
            references, predictions, groups, scores if probabilities is None else probabilities, **options
        )
