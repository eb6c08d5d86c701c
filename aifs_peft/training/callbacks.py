"""When `Trainer` lets a method learn: before the first step, and on the last step of an epoch."""

# ruff: noqa: ARG002 - the signatures are those of TrainerCallback

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState


class EpochCallback(TrainerCallback):
    """Calls what a trainer gives it at the right moments. It holds no state: that is in the adapter's buffers.

    `on_step_end` of an epoch's last step, not `on_epoch_end`: upstream logs, evaluates and saves in between, and the
    checkpoint of that step must hold the new mask.

    Args:
        begin_training: gets the number of optimizer steps per epoch.
        begin_epoch: gets the number of epochs completed.
        finish_epoch: gets the number of epochs completed, this one included.
    """

    def __init__(
        self,
        begin_training: Callable[[int], None],
        begin_epoch: Callable[[int], None],
        finish_epoch: Callable[[int], None],
    ) -> None:
        self._begin_training, self._begin_epoch, self._finish_epoch = begin_training, begin_epoch, finish_epoch

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Before the first epoch, or right after a checkpoint was loaded."""
        batches = len(kwargs["train_dataloader"])
        self._begin_training(max(-(-batches // args.gradient_accumulation_steps), 1))

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Before the order of an epoch is drawn."""
        self._begin_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After each optimizer step; `state.epoch` is a whole number exactly at an epoch's last one."""
        if state.epoch is not None and float(state.epoch).is_integer():
            self._finish_epoch(int(state.epoch))
