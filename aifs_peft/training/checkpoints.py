"""How strictly an adapter is read back from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from aifs_peft.errors import CheckpointMismatchError

ADAPTER_FILE = "adapter_model.safetensors"


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
