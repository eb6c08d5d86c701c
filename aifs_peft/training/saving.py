"""Around the writing of a checkpoint: a clean place before, all processes done at its end, one error if it fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError

from aifs_peft.errors import AIFSError, CheckpointWriteError
from aifs_peft.training.checkpoint_folders import clear_unfinished, last_whole, unfinished
from aifs_peft.training.peers import is_lost


@contextmanager
def writing(checkpoint: Path, accelerator: Accelerator, *, saves: bool) -> Iterator[None]:
    """A block in which every process writes its files into `unfinished(checkpoint)` and one of them publishes it.

    Args:
        checkpoint: where it will be.
        accelerator: of the training loop.
        saves: whether this process makes and publishes the folder.

    Raises:
        CheckpointWriteError: with the path and the reason; nothing is left of this checkpoint then, and the earlier
            ones are as they were.
    """
    try:
        if saves:
            clear_unfinished(checkpoint.parent)
            unfinished(checkpoint).mkdir(parents=True)
        accelerator.wait_for_everyone()
        yield
        accelerator.wait_for_everyone()  # before any process reads what one has published
    except BaseException as error:
        if saves:
            shutil.rmtree(unfinished(checkpoint).parent, ignore_errors=True)
        if _is_of_the_disk(error):
            raise CheckpointWriteError(_told(checkpoint, error)) from error
        raise


def _is_of_the_disk(error: BaseException) -> bool:
    """Whether writing has failed; torch and safetensors have errors of their own for it."""
    if isinstance(error, AIFSError) or is_lost(error):
        return False
    return isinstance(error, OSError | SafetensorError | RuntimeError)


def _told(checkpoint: Path, error: BaseException) -> str:
    folder = next(path for path in (checkpoint, *checkpoint.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    good = last_whole(checkpoint.parent)
    kept = "there is no earlier checkpoint" if good is None else f"the last whole checkpoint is {good}, as it was"
    reason = " ".join(str(error).split())[:300]
    return (
        f"the checkpoint {checkpoint} could not be written: {reason} ({free / 2**20:,.0f} MiB are free there); {kept}. "
        "Make room, or make the folder writable, and go on with resume_from_checkpoint=True"
    )
