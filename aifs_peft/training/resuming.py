"""What a run says of itself in its checkpoints, and what may differ in a run that goes on from one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from aifs_peft.environment import installed_version
from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.methods import Method

logger = logging.getLogger(__name__)

# What decides which examples a step sees, and with which random numbers.
_POSITION = {
    "world_size": "number of processes",
    "batch_size": "batch size per process",
    "accumulation": "gradient accumulation",
    "seed": "seed",
    "data_seed": "data seed",
}
# Where an adapter comes from, and what it is used for: not what it is.
_NOT_ITSELF = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping")
_ANEW = "or start a new training from its adapter: PeftModel.from_pretrained(base, checkpoint, is_trainable=True)"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a checkpoint says of the run that wrote it; plain JSON.

    Attributes:
        world_size: number of processes.
        batch_size: training examples per process and forward pass.
        accumulation: forward passes per optimizer step.
        seed: of the run.
        data_seed: of the order of examples.
        examples: size of the training set.
        labels: SHA-256 of the labels of the training set, in its order.
        method: name of the training method.
        settings: SHA-256 of the method's numbers.
        configuration: SHA-256 of the adapter's configuration.
    """

    world_size: int
    batch_size: int
    accumulation: int
    seed: int
    data_seed: int
    examples: int
    labels: str
    method: str
    settings: str
    configuration: str

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        batches = -(-self.examples // (self.batch_size * self.world_size))
        return -(-batches // self.accumulation)


def describe(method: Method, labels: Tensor, configuration: dict[str, Any], **numbers: int) -> Run:
    """A run as its checkpoints tell it.

    Args:
        method: that trains.
        labels: of the training set, `(n,)` int64.
        configuration: of the adapter.
        **numbers: `world_size`, `batch_size`, `accumulation`, `seed`, `data_seed`.
    """
    return Run(
        examples=len(labels),
        labels=hashlib.sha256(labels.cpu().contiguous().numpy().tobytes()).hexdigest(),
        method=method.name,
        settings=_digest(dataclasses.asdict(method.settings)),
        configuration=_digest({name: value for name, value in configuration.items() if name not in _NOT_ITSELF}),
        **numbers,
    )


def saved_run(run: Run, *, step: int, epoch: float, resumable: bool) -> dict[str, Any]:
    """What goes into a checkpoint's manifest.

    Args:
        run: that writes it.
        step: optimizer steps so far.
        epoch: epochs completed, not whole in mid-epoch.
        resumable: whether optimizer, schedule and generators are saved, too.
    """
    where = {"step": step, "epoch": epoch, "resumable": resumable, "release": installed_version("aifs_peft")}
    return {**dataclasses.asdict(run), **where}


def check_same_run(folder: Path, saved: dict[str, Any], run: Run, *, without_optimizer: bool = False) -> None:
    """Refuse to go on from a checkpoint with a run that is not the one that wrote it.

    Args:
        folder: of the checkpoint, for messages.
        saved: see `saved_run`.
        run: that is to go on.
        without_optimizer: whether the caller wants to go on without optimizer and schedule.

    Raises:
        CheckpointMismatchError: naming what differs, before and now.
    """
    if not saved["resumable"] and not without_optimizer:
        raise CheckpointMismatchError(
            f"{folder} was saved with save_only_model=True: it has no optimizer, schedule and random "
            "generators, so they would start anew in the middle of the training. Resume from another checkpoint; or "
            f"say that this is wanted with AIFSTrainingArguments(resume_without_optimizer=True); {_ANEW}"
        )
    if saved["method"] != run.method:
        raise CheckpointMismatchError(
            f"{folder} was written by method {saved['method']!r}, and is to be resumed by {run.method!r}: what one has "
            f"learnt is not what the other needs. Resume with method={saved['method']!r}, or start a new training"
        )
    if (saved["examples"], saved["labels"]) != (run.examples, run.labels):
        differ = f"{saved['examples']} examples then, {run.examples} now"
        if saved["examples"] == run.examples:
            differ = f"the same number of examples ({run.examples}), with other labels or in another order"
        raise CheckpointMismatchError(
            f"{folder} was written in a training on other data: {differ}. What is kept of each example would be taken "
            f"for another's; resume with the training set the run was started with, {_ANEW}"
        )
    _check_position(folder, saved, run)
    for name, what in (("configuration", "configuration of the adapter"), ("settings", "numbers of the method")):
        if saved[name] != getattr(run, name):
            logger.warning("resuming from %s with another %s: the run is not the one that wrote it", folder, what)


def warn_of_generators(folder: Path, rng_file: str) -> None:
    """Say where the random generators of this process are not in the checkpoint.

    Args:
        folder: of the checkpoint.
        rng_file: name of the file of this process's generators.
    """
    if not (folder / rng_file).is_file():
        logger.warning(
            "no %s in %s (saved with another number of processes, or with save_only_model): the resumed run draws "
            "other random numbers than an uninterrupted one",
            rng_file,
            folder,
        )


def _check_position(folder: Path, saved: dict[str, Any], run: Run) -> None:
    changed = [name for name in _POSITION if saved[name] != getattr(run, name)]
    if not changed:
        return
    told = ", ".join(f"{_POSITION[name]} {saved[name]} then, {getattr(run, name)} now" for name in changed)
    then = Run(**{field.name: saved[field.name] for field in dataclasses.fields(Run)})
    if not float(saved["epoch"]).is_integer():
        raise CheckpointMismatchError(
            f"{folder} lies within an epoch (step {saved['step']}), and the run has changed: {told}. The rest of the "
            "epoch would be other examples with other random numbers; resume with what the run was started with, or "
            "from a checkpoint at an epoch's end"
        )
    if then.steps_per_epoch != run.steps_per_epoch:
        raise CheckpointMismatchError(
            f"{folder} was written in a run with {then.steps_per_epoch} steps per epoch, this one has "
            f"{run.steps_per_epoch} ({told}): its {saved['step']} steps would count as other epochs. Resume "
            f"with what the run was started with, {_ANEW}"
        )
    logger.warning("resuming from %s with another run (%s): it is not exactly the uninterrupted one", folder, told)


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=repr).encode()).hexdigest()
