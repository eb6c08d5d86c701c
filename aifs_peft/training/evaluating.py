"""Evaluation and prediction: labels checked first, accuracies without group labels, generators left alone."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput

from aifs_peft.errors import InvalidInputError
from aifs_peft.training.base import TrainerBase
from aifs_peft.training.checks import check_split
from aifs_peft.training.evaluation import LabelFreeMetrics
from aifs_peft.training.finite import require_finite_logits
from aifs_peft.training.labels import LABEL_NAMES, check_labels, without_labels
from aifs_peft.training.losses import GivenLoss
from aifs_peft.training.rng import isolated_rng


class EvaluatingTrainer(TrainerBase):
    """The part of `AIFSTrainer` that evaluates and predicts."""

    _metrics: LabelFreeMetrics | None = None

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As upstream, with accuracies that need no group labels; labels are checked first.

        Args:
            eval_dataset: another set than the trainer's, or several by name.
            ignore_keys: as for `Trainer.evaluate`.
            metric_key_prefix: as for `Trainer.evaluate`.

        Raises:
            InvalidInputError: if labels are missing or out of range.
        """
        eval_dataset = self._ready(eval_dataset, "evaluation")
        given = self.eval_dataset if eval_dataset is None else eval_dataset
        known = isinstance(given, str) or given is self._checked_evaluation
        if given is not None and not isinstance(given, dict) and not known:
            check_split(given, self.num_labels, metric_key_prefix, self.args.seed)
        metrics: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return metrics

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """As upstream; a set without labels, or with -1 or -100 for each, gives predictions and no metrics.

        Args:
            test_dataset: to predict on.
            ignore_keys: as for `Trainer.predict`.
            metric_key_prefix: as for `Trainer.predict`.

        Raises:
            InvalidInputError: if only some labels are missing, or labels are out of range.
        """
        test_dataset = self._ready(test_dataset, "test")
        if not check_split(test_dataset, self.num_labels, metric_key_prefix, self.args.seed, required=False):
            test_dataset = without_labels(test_dataset)
        return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As upstream; notes what the label-free metrics need.

        Raises:
            InvalidInputError: if labelled data lack a column of `evaluation_columns`: upstream would drop the loss and
                the metrics without a word.
        """
        labels = next((inputs[name] for name in LABEL_NAMES if inputs.get(name) is not None), None)
        missing = [name for name in self.args.evaluation_columns or () if name not in inputs]
        if missing and labels is not None:
            raise InvalidInputError(
                f"the evaluation set has no integer column {', '.join(missing)} (a batch has {sorted(inputs)}); add it "
                "or take it out of evaluation_columns"
            )
        result = super().prediction_step(model, inputs, *args, **kwargs)
        if labels is None:  # with labels the loss was computed, which looks at the logits first
            require_finite_logits(result[1], inputs, self.adapted, self.state.global_step)
        if self._metrics is not None and labels is not None and self.layer.has_output:
            self._metrics.add(labels)
        return result

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As upstream, with the label-free metrics, and without touching the generators of a running training."""
        metrics = LabelFreeMetrics(self.layer, self.accelerator.gather_for_metrics, self.args.min_cell)
        self._metrics = metrics
        try:
            with isolated_rng(self.args.seed):
                output: EvalLoopOutput = super().evaluation_loop(
                    dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
                )
        finally:
            self._metrics = None
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.compute().items()}
        return output._replace(metrics={**named, **(output.metrics or {})})

    def _evaluation_loss(self, outputs: Any, labels: Tensor) -> Tensor:
        check_labels(labels, self.num_labels, "evaluation", several=False)
        if self.compute_loss_func is not None:
            return GivenLoss(self.compute_loss_func, outputs, labels)()
        return F.cross_entropy(outputs["logits"].float(), labels)
