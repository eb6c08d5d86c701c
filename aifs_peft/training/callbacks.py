"""When `Trainer` lets a method learn: before the first step, and on the last step of an epoch."""

# ruff: noqa: ARG002 - the signatures are those of TrainerCallback

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from aifs_peft.training.termination import TERMINATED


class EpochCallback(TrainerCallback):
    """Calls what a trainer gives it at the right moments. What training needs is not here but in the adapter's buffers.

    `on_step_end` of an epoch's last step, not `on_epoch_end`: upstream logs, evaluates and saves in between, and the
    checkpoint of that step must hold the new mask.

    A checkpoint that is due at an epoch's last step is written at the epoch's end instead, after the evaluation and the
    log of the epoch: a run that is resumed from it begins with the next epoch and would never make up for them.

    Args:
        begin_training: gets the number of optimizer steps per epoch.
        begin_epoch: gets the number of epochs completed.
        finish_epoch: gets the number of epochs completed, this one included.
        asked_to_end: whether the run is to end after this step, with a checkpoint; the same on every process.
    """

    def __init__(
        self,
        begin_training: Callable[[int], None],
        begin_epoch: Callable[[int], None],
        finish_epoch: Callable[[int], None],
        asked_to_end: Callable[[], bool],
    ) -> None:
        self._begin_training, self._begin_epoch, self._finish_epoch = begin_training, begin_epoch, finish_epoch
        self._asked_to_end = asked_to_end
        self._save_at_end = self._end = False

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Before the first epoch, or right after a checkpoint was loaded."""
        self._save_at_end = self._end = False
        batches = len(kwargs["train_dataloader"])
        self._begin_training(max(-(-batches // args.gradient_accumulation_steps), 1))

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Before the order of an epoch is drawn."""
        self._begin_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After each optimizer step; `state.epoch` is a whole number exactly at an epoch's last one."""
        last = state.epoch is not None and float(state.epoch).is_integer()
        if last:
            self._finish_epoch(int(state.epoch))
        self._end = self._asked_to_end()
        control.should_save = control.should_save or self._end
        if last:
            self._save_at_end, control.should_save = control.should_save, False

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The checkpoint that was due at the epoch's last step."""
        control.should_save = control.should_save or self._save_at_end
        self._save_at_end = False

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The end of a run that was asked to end: its checkpoint is written."""
        if self._end:
            raise SystemExit(TERMINATED)


def restore_callbacks(callbacks: Iterable[TrainerCallback], state: TrainerState) -> None:
    """Give callbacks what they had counted when a checkpoint was saved, such as early stopping's patience.

    Upstream does so only when asked to, by making new callbacks of the old arguments; here they stay the ones that
    the trainer was given, with their own arguments.

    Args:
        callbacks: of the trainer.
        state: as loaded.
    """
    saved = {name: list(found) if isinstance(found, list) else [found] for name, found in _states(state).items()}
    for callback in callbacks:
        if isinstance(callback, ExportableState) and saved.get(type(callback).__name__):
            attributes = saved[type(callback).__name__].pop(0).get("attributes", {})
            for name, value in attributes.items():
                setattr(callback, name, value)


def export_callbacks(callbacks: Iterable[Any], state: TrainerState) -> None:
    """Write into the state what callbacks have counted so far; of those of one class a list.

    Upstream appends to the lists of earlier checkpoints, and fails for a callback that an earlier run did not have.

    Args:
        callbacks: of the trainer, and its control.
        state: that will be saved.
    """
    exportable: list[Any] = [callback for callback in callbacks if isinstance(callback, ExportableState)]
    state.stateful_callbacks = TrainerState(stateful_callbacks=exportable).stateful_callbacks


def _states(state: TrainerState) -> dict[str, Any]:
    return dict(state.stateful_callbacks or {})  # type: ignore[arg-type] # a dictionary once it was loaded


def out_of_patience(callbacks: Iterable[TrainerCallback]) -> bool:
    """Whether early stopping had ended the run when its checkpoint was saved.

    Args:
        callbacks: of the trainer, restored.
    """
    return any(
        callback.early_stopping_patience_counter >= callback.early_stopping_patience
        for callback in callbacks
        if isinstance(callback, EarlyStoppingCallback)
    )
