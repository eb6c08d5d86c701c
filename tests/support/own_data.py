"""A small table of one's own: pictures, texts or vectors, with labels as words and a scanner as the shortcut."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def own_frame(n: int = 200, conflicting: int = 3) -> pd.DataFrame:
    """`n` rows; in every `conflicting`-th one the scanner goes against the finding."""
    i = np.arange(n)
    finding = i % 2
    scanner = np.where(i // 2 % conflicting == 0, 1 - finding, finding)
    return pd.DataFrame(
        {
            "path": [f"images/{k:03d}.png" for k in i],
            "report": [f"report {k}, {'with' if k % 2 else 'without'} a mass" for k in i],
            "finding": np.array(["benign", "malignant"])[finding],
            "scanner": np.array(["A", "B"])[scanner],
            "age": 20 + i % 60,
            "case": [f"{k:05d}" for k in i],
        }
    )


def write_pictures(folder: Path, names: list[str]) -> None:
    """One small picture per name, each of its own colour."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (number % 256, number // 256, 7)).save(folder / name)
