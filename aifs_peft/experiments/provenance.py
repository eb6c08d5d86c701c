"""Where a result comes from: versions, commit, hardware. Written beside every number."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from aifs_peft.environment import installed_version

PACKAGES = ("aifs_peft", "torch", "transformers", "peft", "accelerate", "datasets", "scikit-learn", "numpy")


def provenance() -> dict[str, Any]:
    """Versions, commit and hardware of this run.

    `dirty`: the package has changes that are not committed. Outside a checkout, commit and flag are `None`.

    Example:
        >>> sorted(provenance())
        ['commit', 'dirty', 'hardware', 'versions']
    """
    commit = _git("rev-parse", "HEAD")
    # The package's own files alone: results that a benchmark writes into its checkout change nothing it measures.
    status = _git("status", "--porcelain", "--", "aifs_peft")
    return {
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        "commit": commit,
        "dirty": None if commit is None else bool(status),
        "hardware": {"machine": platform.machine(), "system": platform.system(), "cpu_count": os.cpu_count()},
    }


def _git(*arguments: str) -> str | None:
    """One git command in the package's own checkout; `None` where the package is not part of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(  # noqa: S603  (fixed arguments, no shell)  # nosec B603 B607
            ["git", "-C", str(root), *arguments],  # noqa: S607  (git is found on the user's PATH)
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
