"""Shared fixtures: where the real inputs are, and no network."""

import os
from pathlib import Path

import pytest

# No test may reach for the network; the loopback Hub of the tests sets its own environment in a sub-process.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real inputs: `AIFS_SHARED`, or `shared` beside the repository."""
    path = Path(os.environ.get("AIFS_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no real inputs: {path} is absent; set AIFS_SHARED to the folder that holds data/ and models/")
    return path
