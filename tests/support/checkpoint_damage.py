"""Damage to the files of a checkpoint, and its manifest as plain data."""

import json
from pathlib import Path


def manifest(checkpoint: Path) -> dict:
    """The manifest as it is on the disk, not checked."""
    return json.loads((checkpoint / "aifs_manifest.json").read_text())


def files_of(checkpoint: Path) -> list[str]:
    """Names of all files, relative to the checkpoint."""
    return sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())


def truncate(file: Path, draw: float) -> None:
    """Keep a part of a file, at least nothing and never all of it."""
    content = file.read_bytes()
    file.write_bytes(content[: int(draw * len(content))])


def delete(file: Path, draw: float) -> None:
    del draw
    file.unlink()


def flip(file: Path, draw: float) -> None:
    """Flip one bit."""
    content = bytearray(file.read_bytes())
    if content:
        position = int(draw * 8 * len(content))
        content[position // 8] ^= 1 << position % 8
    file.write_bytes(content)


DAMAGE = {"truncated": truncate, "deleted": delete, "bit flipped": flip}
