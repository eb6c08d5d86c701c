"""What the parts of `AIFSTrainer` share: the adapter, its method, the data as the model takes them."""

from __future__ import annotations

from typing import Any

import datasets
from peft import PeftModel
from torch import Tensor
from transformers import Trainer

from aifs_peft.methods import Method
from aifs_peft.training import _transformers
from aifs_peft.training.adapter import num_labels_of, require_peft
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.training.epoch_runner import EpochRunner
from aifs_peft.training.inputs import processed
from aifs_peft.training.labels import check_labels, read_labels
from aifs_peft.training.rng import isolated_rng
from aifs_peft.tuner import AIFSLayer


class TrainerBase(Trainer):
    """A `transformers.Trainer` of a model with an AIFS adapter.

    Attributes:
        args: as given.
        layer: with the trained head, and what is known of shortcuts.
        method: that is trained with.
    """

    args: AIFSTrainingArguments
    layer: AIFSLayer
    method: Method
    _runner: EpochRunner | None
    _labels: Tensor | None
    # The model whose adapter `layer` is of.
    _adopted: object
    # The evaluation set whose labels were checked.
    _checked_evaluation: Any

    @property
    def adapted(self) -> PeftModel:
        """The model that is trained, not wrapped for distribution."""
        return require_peft(self.model)

    @property
    def num_labels(self) -> int:
        """Number of classes of the trained head."""
        return num_labels_of(self.layer)

    @property
    def labels(self) -> Tensor:
        """Labels of the training set, `(n,)` int64, read and checked once per training.

        Raises:
            InvalidInputError: if the set is empty, has one class, or a label is missing or has no class in the head.
        """
        if self._labels is None:
            with isolated_rng(self.args.seed):
                labels = read_labels(self.train_dataset)
            check_labels(labels, self.num_labels)
            self._labels = labels
        return self._labels

    def _ready(self, dataset: Any, what: str) -> Any:
        """A data set as the model takes it; several by name are made ready each."""
        if isinstance(dataset, dict) and not isinstance(dataset, datasets.DatasetDict):
            return {name: self._ready(part, what) for name, part in dataset.items()}
        keep = list(self.args.evaluation_columns or ())
        return processed(dataset, self.processing_class, self.adapted, what, keep)

    def _batch_size(self) -> int:
        """Training examples per forward pass, over all processes."""
        split = getattr(self.args.accelerator_config, "split_batches", False)
        return _transformers.device_batch_size(self) * (1 if split else self.accelerator.num_processes)
