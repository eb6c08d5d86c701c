"""The manifest of a checkpoint: every file with its size and hash, and the run that wrote it.

It is the last file that is written into a checkpoint. A folder whose manifest is there and agrees with its files is
whole; every other folder is not, and is never resumed from.
"""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from aifs_peft.errors import CheckpointMismatchError

MANIFEST_FILE = "aifs_manifest.json"
FORMAT = 1
# Files that nothing reads on resuming: they may be missing (uploads leave them out) or edited.
_NOT_READ = ("training_args.bin", "README.md")
# One per process: a file of another run would be taken for this one's.
_PER_PROCESS = ("aifs_latents_*.safetensors", "rng_state*.pth")
_BLOCK = 1 << 20


def write_manifest(folder: Path, run: dict[str, Any]) -> None:
    """Write down what a checkpoint holds; called once, when all its files are there.

    Args:
        folder: of the checkpoint.
        run: plain JSON, what the run was when it was saved.
    """
    content = {"format": FORMAT, "run": run, "files": {name: _entry(folder / name) for name in _read_files(folder)}}
    text = json.dumps({**content, "sha256": _digest(content)}, indent=2, sort_keys=True, allow_nan=False)
    (folder / MANIFEST_FILE).write_text(text + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a checkpoint's manifest says of the run that wrote it, after every file was compared with it.

    Args:
        folder: of the checkpoint.

    Returns:
        The `run` of `write_manifest`.

    Raises:
        CheckpointMismatchError: naming the first file that is missing, changed, or of another run.
    """
    content = _parse(folder)
    present = set(_read_files(folder))
    for name, entry in content["files"].items():
        if name not in present:
            raise CheckpointMismatchError(f"{folder / name} is missing")
        size = (folder / name).stat().st_size
        if size != entry["size"]:
            raise CheckpointMismatchError(f"{folder / name} has {size} bytes, not the {entry['size']} that were saved")
    for name in sorted(present - set(content["files"])):
        if any(fnmatch(name, pattern) for pattern in _PER_PROCESS):
            raise CheckpointMismatchError(f"{folder / name} is not of this checkpoint: its {MANIFEST_FILE} lacks it")
    for name, entry in content["files"].items():
        if _sha256(folder / name) != entry["sha256"]:
            raise CheckpointMismatchError(f"the content of {folder / name} has changed since it was saved")
    return dict(content["run"])


def _parse(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST_FILE
    try:
        content = json.loads(file.read_bytes())
        digest = content.pop("sha256")
        whole, kind = digest == _digest(content), content["format"]
    except FileNotFoundError:
        raise CheckpointMismatchError(
            f"there is no {file}: the checkpoint is not whole, or of another trainer or an earlier release"
        ) from None
    except (OSError, UnicodeDecodeError, RecursionError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise CheckpointMismatchError(f"{file} cannot be read ({type(error).__name__}: {error})") from error
    if not whole:
        raise CheckpointMismatchError(f"the content of {file} has changed since it was saved")
    if kind != FORMAT:
        raise CheckpointMismatchError(
            f"{file} has format {kind!r}, and this version of aifs_peft reads {FORMAT}: resume with the version that "
            "saved the checkpoint"
        )
    return dict(content)


def _read_files(folder: Path) -> list[str]:
    """Names of a checkpoint's files, relative to it, but for the manifest and what nothing reads."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name.rpartition("/")[2] not in (MANIFEST_FILE, *_NOT_READ))


def _entry(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    sha = hashlib.sha256()
    try:
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                sha.update(block)
    except OSError as error:
        raise CheckpointMismatchError(f"{file} cannot be read ({error.strerror})") from error
    return sha.hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
