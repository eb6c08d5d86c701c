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
from aifs_peft.training.checks import check_unlabelled
from aifs_peft.training.epoch_runner import EpochRunner
from aifs_peft.training.inputs import processed
from aifs_peft.training.labels import check_labels, read_labels, without_labels
from aifs_peft.training.parallel import processes_of
from aifs_peft.training.rng import isolated_rng
from aifs_peft.training.streams import Stream, check_streamed, check_workers, is_stream, require_same_stream
from aifs_peft.tuner import AIFSLayer
from aifs_peft.tuner.modes import trains_encoder


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
            dataset = self.train_dataset
            with isolated_rng(self.args.seed):
                labels = dataset.labels if isinstance(dataset, Stream) else read_labels(dataset)
            if isinstance(dataset, Stream):
                require_same_stream(dataset, processes_of(self.accelerator))
            check_labels(labels, self.num_labels)
            self._labels = labels
        return self._labels

    def _ready(self, dataset: Any, what: str) -> Any:
        """A data set as the model takes it; several by name are made ready each."""
        if isinstance(dataset, dict) and not isinstance(dataset, datasets.DatasetDict):
            return {name: self._ready(part, what) for name, part in dataset.items()}
        if isinstance(dataset, Stream):
            dataset = dataset.source
        keep = list(self.args.evaluation_columns or ())
        ready = processed(dataset, self.processing_class, self.adapted, what, keep)
        return self._stream(ready) if what == "training" and is_stream(ready) else ready

    def _ready_unlabelled(self, dataset: Any) -> Any:
        """The unlabelled set as the model takes it, without its labels if it has any."""
        if dataset is None:
            return None
        check_unlabelled(dataset, self.method)
        return self._ready(without_labels(dataset), "unlabelled")

    def _stream(self, source: Any) -> Stream:
        """A streamed training set; of one that is longer than the training only what the training sees."""
        args = self.args
        check_workers(args.dataloader_num_workers)
        if not args.cache_latents:
            trains = trains_encoder(self.adapted, self.layer)
            check_streamed(self.method, encoder_trains=trains, num_labels=self.num_labels)
        limit = args.max_steps * self._batch_size() * args.gradient_accumulation_steps
        known = self.train_dataset
        if isinstance(known, Stream) and (known.source, known.limit) == (source, limit if limit > 0 else None):
            return known
        return Stream(source, limit=limit if limit > 0 else None, seed=args.seed)

    def _batch_size(self) -> int:
        """Training examples per forward pass, over all processes."""
        split = getattr(self.args.accelerator_config, "split_batches", False)
        return _transformers.device_batch_size(self) * (1 if split else self.accelerator.num_processes)
