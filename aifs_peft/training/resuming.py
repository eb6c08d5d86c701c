"""What a run says of itself in its checkpoints, and what may differ in a run that goes on from one."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import re
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from torch import Tensor

from aifs_peft.environment import installed_version
from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.latent.recipes import Recipe
from aifs_peft.methods import Method

logger = logging.getLogger(__name__)

# What decides which examples a step sees, and with which random numbers.
_POSITION = {
    "world_size": "number of processes",
    "batch_size": "batch size per process",
    "accumulation": "gradient accumulation",
    "seed": "seed",
    "data_seed": "data seed",
    "stream_buffer": "shuffle buffer of the streamed training set",
}
# Where an adapter comes from, and what it is used for: not what it is.
_NOT_ITSELF = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")
# Sizes of what was learnt by then; and what the method's numbers say already, training arguments among them.
_TOLD_ELSEWHERE = ("state_shapes", "recipe", *(field.name for field in dataclasses.fields(Recipe)))
# What methods of recipe "erm" read of `MethodSettings` beside their own options.
_READ_BY_ALL = ("label_smoothing", "balance_groups", "max_repeats")
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
        settings: the numbers that the method reads, by name, its options with their defaults.
        configuration: of the adapter, but for those numbers.
        stream_buffer: `stream_shuffle_buffer` of a streamed training set; None for one in memory.
    """

    world_size: int
    batch_size: int
    accumulation: int
    seed: int
    data_seed: int
    examples: int
    labels: str
    method: str
    settings: dict[str, Any]
    configuration: dict[str, Any]
    stream_buffer: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        batches = -(-self.examples // (self.batch_size * self.world_size))
        return -(-batches // self.accumulation)


def describe(
    method: Method, labels: Tensor, configuration: dict[str, Any], updates: dict[str, Any], **numbers: Any
) -> Run:
    """A run as its checkpoints tell it.

    Args:
        method: that trains.
        labels: of the training set, `(n,)` int64.
        configuration: of the adapter.
        updates: `mask_update_every` and `mask_samples`, where the method looks at the latents of its epochs.
        **numbers: `world_size`, `batch_size`, `accumulation`, `seed`, `data_seed`, and `stream_buffer`.
    """
    return Run(
        examples=len(labels),
        labels=hashlib.sha256(labels.cpu().contiguous().numpy().tobytes()).hexdigest(),
        method=method.name,
        settings=_plain(_settings(method, updates)),
        configuration=_plain(_itself(configuration, _TOLD_ELSEWHERE)),
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


def check_same_run(folder: Path | str, saved: dict[str, Any], run: Run, *, without_optimizer: bool = False) -> None:
    """Refuse to go on from a checkpoint with a run that is not the one that wrote it.

    Args:
        folder: of the checkpoint, or what it is, for messages.
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
    _check_values(folder, "configuration of the adapter", saved["configuration"], run.configuration)
    _check_values(folder, f"numbers of method {run.method!r}", saved["settings"], run.settings)


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


def _check_position(folder: Path | str, saved: dict[str, Any], run: Run) -> None:
    saved = {"stream_buffer": None, **saved}  # earlier releases read no streams
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


def _check_values(folder: Path | str, what: str, then: Any, now: dict[str, Any]) -> None:
    """Refuse other numbers: what they have shaped by then stays, and the run would be told as one of the new ones."""
    if not isinstance(then, dict):
        logger.warning("%s, of an earlier release, does not tell the %s: they are not compared", folder, what)
        return
    before, after = _flat(then), _flat(now)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if changed:
        told = ", ".join(f"{name} {before.get(name)!r:.100} then, {after.get(name)!r:.100} now" for name in changed)
        raise CheckpointMismatchError(
            f"{folder} was written with other {what}: {told}. Its steps were trained by them, and the result would be "
            f"told as one of the new ones; resume with what the run was started with, {_ANEW}"
        )


def _settings(method: Method, updates: dict[str, Any]) -> dict[str, Any]:
    """The numbers that a method reads; of the seed `_POSITION` takes care, unless what is held out depends on it."""
    values = dataclasses.asdict(method.settings)
    seed = values.pop("seed")
    if method.recipe == "erm":
        values = {name: values[name] for name in _READ_BY_ALL}
    if method.redraws_held_out:
        values["seed"] = seed
    if method.collects_latents in ("epoch", "both"):
        values |= updates
    return {**values, "method_options": dataclasses.asdict(method.options)}


def _itself(configuration: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """What an adapter is, of its configuration and that of the encoder's adapter within."""
    return {
        name: _itself(value) if name == "encoder_adapter" and isinstance(value, dict) else value
        for name, value in configuration.items()
        if name not in (*_NOT_ITSELF, *without)
    }


def _plain(value: Any) -> Any:
    """A value as JSON gives it back; of anything else how it shows itself, without its place in memory."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _flat(values: dict[str, Any], within: str = "") -> dict[str, Any]:
    """Nested numbers by their dotted names."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= _flat(value, f"{within}{name}.") if isinstance(value, dict) and value else {f"{within}{name}": value}
    return out
