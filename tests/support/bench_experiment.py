"""A small experiment on generated latents."""

import json
from pathlib import Path
from typing import Any

from latents_npz import write_latents


def write_experiment(folder: Path, **changes: Any) -> Path:
    """`toy.json` beside its data."""
    latents = folder / "latents"
    if not latents.is_dir():
        latents.mkdir()
        write_latents(latents, n=600)
    content: dict[str, Any] = {
        "name": "toy",
        "data": [{"name": "toy", "dataset": "dominoes_latents", "data_dir": str(latents), "aligned_share": 0.85}],
        "methods": ["erm", "erm-closed", "reweight-oracle"],
        "schedule": {"epochs": 2},
        "seeds": [0, 1],
        "budget": 2,
        **changes,
    }
    path = folder / "toy.json"
    path.write_text(json.dumps(content))
    return path
