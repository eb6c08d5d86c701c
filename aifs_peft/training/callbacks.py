"""When the method learns: before the first step, and on the last step of an epoch."""

# ruff: noqa: ARG002 - the signatures are those of TrainerCallback

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState

if TYPE_CHECKING:
    from aifs_peft.training.trainer import AIFSTrainer


class EpochHook(TrainerCallback):
    """Calls the trainer's `begin_training`, `begin_epoch` and `finish_epoch` at the right moments.

    `on_step_end` of an epoch's last step, not `on_epoch_end`: upstream logs, evaluates and saves in between, and
    the checkpoint of that step must hold the new mask. It holds no state: that is in the adapter's buffers.

    Args:
        trainer: whose hooks are called.
    """

    def __init__(self, trainer: AIFSTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Before the first epoch, or right after a checkpoint was loaded."""
        self.trainer.begin_training()

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Before the order of an epoch is drawn."""
        self.trainer.begin_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After each optimizer step; `state.epoch` is a whole number exactly at an epoch's last one."""
        if state.epoch is not None and float(state.epoch).is_integer():
            self.trainer.finish_epoch(int(state.epoch))
