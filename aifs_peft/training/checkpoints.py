"""What a checkpoint holds beside `transformers`' files, and how strictly it is read back."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods import Method

logger = logging.getLogger(__name__)

ADAPTER_FILE = "adapter_model.safetensors"
METHOD_FILE = "aifs_method.json"


def adapter_folder(checkpoint: Path, adapter: str) -> Path:
    """Where an adapter lies in a checkpoint: at the top, or in a folder of its name (PEFT's rule for other names).

    Args:
        checkpoint: folder.
        adapter: name.

    Raises:
        CheckpointMismatchError: if it is in neither.
    """
    for folder in (checkpoint / adapter, checkpoint):
        if (folder / ADAPTER_FILE).is_file():
            return folder
    raise CheckpointMismatchError(
        f"no {ADAPTER_FILE} in {checkpoint} or {checkpoint / adapter}; give the folder that AIFSTrainer saved "
        "(checkpoint-<step>), with the adapter under the name it was trained with"
    )


def load_adapter_strictly(model: PeftModel, checkpoint: Path, adapter: str) -> None:
    """Load an adapter's weights and state into a model that has it already; every key must be there.

    Args:
        model: with the adapter.
        checkpoint: folder.
        adapter: name.

    Raises:
        CheckpointMismatchError: naming missing and unknown keys, or the file that cannot be read.
    """
    file = adapter_folder(checkpoint, adapter) / ADAPTER_FILE
    try:
        saved = load_file(file)
    except SafetensorError as error:
        raise CheckpointMismatchError(
            f"{file} cannot be read ({error}): it was damaged or not written to its end; resume from another checkpoint"
        ) from error
    expected = set(get_peft_model_state_dict(model, adapter_name=adapter))
    missing, unknown = sorted(expected - set(saved)), sorted(set(saved) - expected)
    if missing or unknown:
        raise CheckpointMismatchError(
            f"{file} does not fit adapter {adapter!r}: missing {missing[:5]}, unknown {unknown[:5]}; "
            "resume with the configuration the checkpoint was trained with"
        )
    set_peft_model_state_dict(model, saved, adapter_name=adapter)


def write_method(folder: Path, method: Method, state: AIFSState) -> None:
    """Note in a checkpoint which method wrote it, and the sizes of what it has learnt.

    Args:
        folder: of the checkpoint.
        method: that trains.
        state: the adapter's buffers.
    """
    note = {"method": method.name, "state": state.shapes}
    (folder / METHOD_FILE).write_text(json.dumps(note, indent=2) + "\n")


def check_resumable(folder: Path, method: Method, state: AIFSState, rng_file: str) -> None:
    """Refuse a checkpoint that this run cannot go on from, and say what will not be exact.

    Args:
        folder: of the checkpoint, whose adapter was loaded.
        method: that is to go on.
        state: the adapter's buffers as loaded.
        rng_file: name of the file of this process's generators.

    Raises:
        CheckpointMismatchError: see `check_method`.
    """
    check_method(folder, method, state)
    if not (folder / rng_file).is_file():
        logger.warning(
            "no %s in %s (deleted, or saved with another number of processes): the resumed run draws other random "
            "numbers than an uninterrupted one",
            rng_file,
            folder,
        )


def check_method(folder: Path, method: Method, state: AIFSState) -> None:
    """Refuse a checkpoint that another method wrote, or whose adapter has lost something since.

    Args:
        folder: of the checkpoint, whose adapter was loaded.
        method: that is to go on.
        state: the adapter's buffers as loaded.

    Raises:
        CheckpointMismatchError: naming both methods, or what is missing.
    """
    file = folder / METHOD_FILE
    if not file.is_file():
        raise CheckpointMismatchError(
            f"no {METHOD_FILE} in {folder}: it does not say which method wrote this checkpoint, so it cannot be "
            "resumed exactly. It may come from another trainer or an earlier release; load its adapter with "
            "PeftModel.from_pretrained and start a new training"
        )
    note = _read_note(file)
    if note["method"] != method.name:
        raise CheckpointMismatchError(
            f"{folder} was written by method {note['method']!r}, and is to be resumed by {method.name!r}: what one has "
            f"learnt is not what the other needs. Resume with method={note['method']!r}, or start a new training"
        )
    names = {*note["state"], *state.shapes}
    differ = sorted(name for name in names if note["state"].get(name) != state.shapes.get(name))
    if differ:
        raise CheckpointMismatchError(
            f"the adapter in {folder} does not hold what it held when it was saved (other sizes: {', '.join(differ)}); "
            "resume from another checkpoint"
        )


def _read_note(file: Path) -> dict[str, Any]:
    try:
        note = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointMismatchError(f"{file} cannot be read ({error}); resume from another checkpoint") from error
    if not isinstance(note, dict) or not isinstance(note.get("method"), str) or not isinstance(note.get("state"), dict):
        raise CheckpointMismatchError(
            f"{file} does not say which method wrote the checkpoint; resume from another checkpoint"
        )
    return note
