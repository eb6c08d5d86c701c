"""Folders of checkpoints: written under another name and renamed when they are whole, and chosen to resume from."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.training.manifest import read_manifest, write_manifest

logger = logging.getLogger(__name__)

# Names that neither transformers nor this package takes for a checkpoint.
_UNFINISHED, _REPLACED = ".unfinished-", ".replaced-"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_ANEW = "start without resume_from_checkpoint"


def unfinished(checkpoint: Path) -> Path:
    """The folder in which a checkpoint is written: beside the place where it will be, under its own name.

    Args:
        checkpoint: where it will be.

    Example:
        >>> unfinished(Path("run/checkpoint-3")).as_posix()
        'run/.unfinished-checkpoint-3/checkpoint-3'
    """
    return checkpoint.parent / f"{_UNFINISHED}{checkpoint.name}" / checkpoint.name


def clear_unfinished(run_folder: Path) -> None:
    """Delete what interrupted runs left half-written.

    Args:
        run_folder: that holds the checkpoints.
    """
    for prefix in (_UNFINISHED, _REPLACED):
        for folder in run_folder.glob(f"{prefix}*"):
            shutil.rmtree(folder, ignore_errors=True)


def publish(checkpoint: Path, run: dict[str, Any]) -> None:
    """Make what was written in `unfinished(checkpoint)` the checkpoint, whole or not at all.

    The manifest comes last, everything is on the disk before the rename, and the rename is one step of the file
    system: whoever looks at the run's folder sees the checkpoint whole, or does not see it.

    Args:
        checkpoint: where it is to be; one that is there is replaced.
        run: see `write_manifest`.
    """
    written = unfinished(checkpoint)
    write_manifest(written, run)
    for path in written.rglob("*"):
        to_disk(path)
    to_disk(written)
    replaced = checkpoint.parent / f"{_REPLACED}{checkpoint.name}"
    if checkpoint.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        checkpoint.rename(replaced)
    written.rename(checkpoint)
    to_disk(checkpoint.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    shutil.rmtree(written.parent, ignore_errors=True)


def to_disk(path: Path) -> None:
    """Have a file's content, or a folder's entries, on the disk before going on.

    Args:
        path: of it.
    """
    if os.name == "nt" and path.is_dir():
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoints_in(run_folder: Path) -> list[Path]:
    """Folders named like checkpoints, whole or not, the newest first.

    Args:
        run_folder: that holds them.
    """
    if not run_folder.is_dir():
        return []
    named = [(_CHECKPOINT.fullmatch(path.name), path) for path in run_folder.iterdir() if path.is_dir()]
    return [path for _, path in sorted(((int(m[1]), path) for m, path in named if m), reverse=True)]


def last_whole(run_folder: Path, besides: Path | None = None) -> Path | None:
    """The newest whole checkpoint.

    Args:
        run_folder: that holds the checkpoints.
        besides: one that does not count.
    """
    for folder in checkpoints_in(run_folder):
        if folder != besides and _fault(folder) is None:
            return folder
    return None


def newest_checkpoint(run_folder: Path) -> Path:
    """The newest whole checkpoint of a run; those that are skipped are told in one warning.

    Args:
        run_folder: that holds the checkpoints.

    Raises:
        CheckpointMismatchError: if there is none.
    """
    skipped = []
    if run_folder.is_dir():
        skipped = [f"{path.name} (not written to its end)" for path in sorted(run_folder.glob(f"{_UNFINISHED}*"))]
    for folder in checkpoints_in(run_folder):
        fault = _fault(folder)
        if fault is None:
            if skipped:
                logger.warning("resuming from %s; skipped: %s", folder, "; ".join(skipped))
            return folder
        skipped.append(f"{folder.name} ({fault})")
    found = f"; skipped: {'; '.join(skipped)}" if skipped else ""
    raise CheckpointMismatchError(f"no checkpoint in {run_folder} that can be resumed from{found}; {_ANEW}")


def require_whole(checkpoint: Path) -> dict[str, Any]:
    """Refuse a checkpoint that is not whole.

    Args:
        checkpoint: folder.

    Returns:
        What it says of the run that wrote it.

    Raises:
        CheckpointMismatchError: naming the file, and the last whole checkpoint beside it.
    """
    if not checkpoint.is_dir():
        raise CheckpointMismatchError(
            f"no folder {checkpoint} to resume from; give a checkpoint-<step> that AIFSTrainer saved, or True for the "
            f"last one of the output folder{_beside(checkpoint)}"
        )
    try:
        return read_manifest(checkpoint)
    except CheckpointMismatchError as error:
        raise CheckpointMismatchError(
            f"{error}. {checkpoint} cannot be resumed from{_beside(checkpoint)}. What it holds of the adapter can be "
            "looked at with PeftModel.from_pretrained"
        ) from error


def _fault(folder: Path) -> str | None:
    try:
        read_manifest(folder)
    except CheckpointMismatchError as error:
        return str(error)
    return None


def _beside(checkpoint: Path) -> str:
    good = last_whole(checkpoint.absolute().parent, besides=checkpoint.absolute())
    if good is None:
        return f"; there is no whole checkpoint beside it: {_ANEW}"
    return f"; the last whole checkpoint beside it is {good}"
