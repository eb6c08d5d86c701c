"""The method of a training and its `EpochRunner`: when they are made, their batches, their work between epochs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from aifs_peft.errors import InvalidInputError
from aifs_peft.methods import TrainingPlan
from aifs_peft.training import _transformers
from aifs_peft.training.adapter import require_adapter
from aifs_peft.training.arguments import AIFSTrainingArguments
from aifs_peft.training.assembly import TrainingData, assemble
from aifs_peft.training.base import TrainerBase
from aifs_peft.training.batches import IndexedDataset
from aifs_peft.training.callbacks import out_of_patience, restore_callbacks
from aifs_peft.training.checks import check_model
from aifs_peft.training.encoding import EncodingPasses, Loading, Split
from aifs_peft.training.epoch_runner import EpochRunner
from aifs_peft.training.frozen import check_cacheable
from aifs_peft.training.method import method_of
from aifs_peft.training.parallel import processes_of
from aifs_peft.training.resuming import warn_of_generators
from aifs_peft.training.stream_parts import StreamOrder, TrainingPart
from aifs_peft.training.streams import Stream
from aifs_peft.training.termination import Termination
from aifs_peft.tuner.modes import trains_encoder


class RunningTrainer(TrainerBase):
    """The part of `AIFSTrainer` around the method's work between epochs."""

    # The checkpoint that this training goes on from.
    resumed_from: Path | None
    unlabelled_dataset: Any
    _termination: Termination

    def _adopt(self, model: Any, args: AIFSTrainingArguments) -> None:
        """Find a model's adapter and make its method, unless that was done; `model_init` makes new models."""
        if model is self._adopted:
            return
        self.layer = require_adapter(model)
        self.method = method_of(model, self.layer, args)
        check_model(model, args, encoder_trains=trains_encoder(model, self.layer))
        if args.cache_latents:
            check_cacheable(model, self.layer, self.method)
        self._adopted, self._runner = model, None

    @property
    def runner(self) -> EpochRunner:
        """What the method does between epochs; made anew for each training."""
        if self._runner is None:
            self._runner = self._make_runner()
        return self._runner

    def _make_runner(self) -> EpochRunner:
        args, validation = self.args, self.eval_dataset
        data = TrainingData(
            self.train_dataset,
            self.labels,
            validation=None if isinstance(validation, dict) else validation,
            unlabelled=self.unlabelled_dataset,
            loaded=partial(_transformers.without_unused_columns, self),
        )
        return assemble(
            self.adapted, self.layer, self.method, data, self._loading(), processes_of(self.accelerator),
            batch_size=self._batch_size(), seed=args.seed, order_seed=args.data_seed, samples=args.mask_samples,
            update_every=args.mask_update_every,
        )  # fmt: skip

    def _loading(self) -> Loading:
        args = self.args
        return Loading(
            collate=_transformers.removing_collator(self),
            batch_size=args.eval_batch_size,
            device=args.device,
            hidden=tuple(self.label_names),
            workers=args.worker_options(),
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of the training set in the order of `EpochSampler`, with each example's position."""
        if self.train_dataset is None:
            raise InvalidInputError("no training set; pass AIFSTrainer(train_dataset=...)")
        self._adopt(self.model, self.args)
        if self._runner is not None and self._runner.contexts.batch_size != self._batch_size():
            self._runner = None  # `auto_find_batch_size` has lowered it
        if isinstance(self.train_dataset, Stream):
            return self._streaming_loader(self.train_dataset)
        dataset = IndexedDataset(_transformers.without_unused_columns(self, self.train_dataset), seed=self.args.seed)
        return _transformers.training_loader(self, dataset, self.runner.sampler)

    def _streaming_loader(self, stream: Stream) -> DataLoader[Any]:
        args, order = self.args, self.runner.order
        assert isinstance(order, StreamOrder)  # noqa: S101 - made for this stream
        processes = processes_of(self.accelerator)
        order.part = TrainingPart(
            stream, self._batch_size() // processes.world_size, processes, buffer=args.stream_shuffle_buffer,
            order_seed=args.seed if args.data_seed is None else args.data_seed, drop_last=args.dataloader_drop_last,
        )  # fmt: skip
        return _transformers.streaming_loader(self, order.part)

    def fit_blocks(self) -> None:
        """With `AIFSConfig(latents="multi")`: scale the layers' latents by a sample of the training set, once.

        `train` does so by itself; latents that are read before it are joined unscaled.
        """
        if self.layer.blocks is not None and not self.layer.blocks.fitted:
            train = Split(self.train_dataset, "training", {}, self.args.seed, self.labels)
            processes = processes_of(self.accelerator)
            passes = EncodingPasses(self.adapted, self.layer, train, None, self._loading(), processes, self.args.seed)
            passes.fit_blocks()

    def _begin_training(self, steps_per_epoch: int) -> None:
        state = self.state
        if self.resumed_from is not None:
            restore_callbacks(self.callback_handler.callbacks, state)
            self.control.should_training_stop = out_of_patience(self.callback_handler.callbacks)
            warn_of_generators(self.resumed_from, _transformers.rng_file(self.args))
        plan = TrainingPlan(state.max_steps, steps_per_epoch, self.args.mask_update_every)
        fresh, epoch = state.global_step == 0, state.epoch or 0
        numbers = self.runner.begin_training(plan, epoch=epoch, fresh=fresh, resumed_from=self.resumed_from)
        self._report(numbers)

    def _asked_to_end(self) -> bool:
        """Whether any process was sent SIGTERM; asked in every step by all of them."""
        if self.accelerator.num_processes == 1:
            return self._termination.requested
        flag = torch.tensor([int(self._termination.requested)], device=self.args.device)
        return bool(processes_of(self.accelerator).reduce_sum(flag).item())

    def _begin_epoch(self, epoch: int) -> None:
        self.runner.begin_epoch(epoch)

    def _finish_epoch(self, epoch: int) -> None:
        self._report(self.runner.finish_epoch(epoch))

    def _report(self, numbers: dict[str, float]) -> None:
        if numbers:
            # Logging switches `should_log` off, which would swallow the log of the step this happens in.
            due = self.control.should_log
            self.log(dict(numbers))
            self.control.should_log = due
