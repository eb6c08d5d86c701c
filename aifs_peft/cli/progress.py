"""What a run shows while it trains, on stderr: one bar, and one line per epoch."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

_SHOWN = (
    ("loss", "loss"),
    ("cross_entropy", "ce"),
    ("invariance", "inv"),
    ("sensitivity", "sens"),
    ("eval_accuracy", "valid"),
    ("eval_worst_class_accuracy", "worst class"),
    ("eval_worst_inferred_group_accuracy", "worst inferred group"),
)
# Without a discovered direction there are no inferred groups, and the trainer reports the worst class in their place.
_INFERRED, _ONLY_WITH = "eval_worst_inferred_group_accuracy", "eval_inferred_conflicting_share"


class EpochLines(ProgressCallback):
    """The Trainer's progress bar, with one short line per epoch in place of raw log dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._pending: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A bar where somebody watches; a file gets the lines alone."""
        if state.is_world_process_zero:
            self.training_bar = tqdm(total=state.max_steps, dynamic_ncols=True, disable=None)
        self.current_step = 0

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        """No second bar for the short evaluation passes."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002  (the callback interface passes it)
        logs: Any = None,
        **_: Any,
    ) -> None:
        """Keep what was logged; the line is written when the epoch's evaluation is in."""
        self._pending.update(logs or {})
        evaluated = any(name.startswith("eval_") for name in logs or {})
        if state.is_world_process_zero and self.training_bar is not None and evaluated:
            self.training_bar.write(epoch_line(self._pending, args.num_train_epochs), file=sys.stderr)
            self._pending = {}


def epoch_line(logs: dict[str, Any], epochs: float) -> str:
    """One line from an epoch's logs; the worst inferred group only where groups were inferred.

    Args:
        logs: what was logged since the last line.
        epochs: of the whole run.

    Example:
        >>> epoch_line({"epoch": 2.0, "loss": 0.5, "eval_accuracy": 0.75}, 8)
        'epoch 2/8  loss 0.5000  valid 0.7500'
    """
    shown = [(name, short) for name, short in _SHOWN if name in logs]
    if _ONLY_WITH not in logs:
        shown = [(name, short) for name, short in shown if name != _INFERRED]
    parts = [f"epoch {logs.get('epoch', 0):g}/{epochs:g}"]
    return "  ".join([*parts, *(f"{short} {float(logs[name]):.4f}" for name, short in shown)])
