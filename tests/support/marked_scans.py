"""Pictures of handwritten digits with a scanner's mark in a corner: a shortcut whose place is known."""

from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict
from datasets import Image as ImageFeature
from PIL import Image
from sklearn.datasets import load_digits

SIZE = 32
MARK = (slice(25, 31), slice(23, 31))


def marked_scans(rows: Any, share: float, seed: int) -> tuple[Dataset, np.ndarray]:
    """A data set of `image` and `label`, and whether each picture has the mark.

    Args:
        rows: of scikit-learn's digits.
        share: of pictures whose mark follows the label.
        seed: of every draw.
    """
    rng, digits = np.random.default_rng(seed), load_digits()
    y = (digits.target[rows] >= 5).astype(int)
    marked = np.where(rng.random(len(rows)) < share, y, 1 - y)
    pictures = []
    for row, has in zip(rows, marked, strict=True):
        picture = np.full((SIZE, SIZE, 3), 40, dtype=np.uint8)
        top, left = rng.integers(0, 8), rng.integers(0, SIZE - 16)
        digit = (np.kron(digits.images[row], np.ones((2, 2))) * 15).astype(np.uint8)
        picture[top : top + 16, left : left + 16] = np.maximum(
            picture[top : top + 16, left : left + 16], digit[..., None]
        )
        if has:
            picture[MARK] = (250, 250, 240)
        pictures.append(Image.fromarray(picture))
    data = Dataset.from_dict({"image": pictures, "label": y.tolist()})
    data = data.cast_column("image", ImageFeature()).cast_column("label", ClassLabel(names=["benign", "malignant"]))
    return data, marked


def scan_splits(n: int = 400, seed: int = 0) -> tuple[DatasetDict, dict[str, np.ndarray]]:
    """Training, validation and test set, the last without an association; and the marks of each."""
    order = np.random.default_rng(seed).permutation(1797)
    cuts = {"train": (0, n, 0.95), "validation": (n, n + 120, 0.95), "test": (n + 120, n + 360, 0.5)}
    made = {name: marked_scans(order[a:b], share, seed + i) for i, (name, (a, b, share)) in enumerate(cuts.items())}
    return DatasetDict({name: data for name, (data, _) in made.items()}), {k: marks for k, (_, marks) in made.items()}


def share_on_mark(patches: np.ndarray) -> float:
    """Share of a map's positive mass that lies on the mark."""
    inside = np.zeros((SIZE, SIZE))
    inside[MARK] = 1
    heat = np.clip(patches, 0, None)
    grown = np.kron(heat, np.ones((SIZE // heat.shape[0], SIZE // heat.shape[1])))
    return float((grown * inside).sum() / grown.sum())


AREA = (MARK[0].stop - MARK[0].start) * (MARK[1].stop - MARK[1].start) / SIZE**2
