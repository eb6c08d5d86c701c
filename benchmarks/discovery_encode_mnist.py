"""Latents of coloured MNIST digits from the frozen MobileNetV2, for the discovery benchmarks.

    python benchmarks/discovery_encode_mnist.py CACHE_DIR

Each of 9,000 training digits is encoded twice, in its own class's colour and in another one, so that any aligned share
can be drawn; 8,000 test digits in a random colour. About 3 minutes on one core; the cache stays outside the repository.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

# Ten colours that are easy to tell apart (a common chart palette).
PALETTE = np.array(
    [
        (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
        (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
    ],
    dtype=np.float32,
) / 255.0  # fmt: skip


def encode(
    model: torch.nn.Module,
    images: NDArray[np.uint8],
    colours: NDArray[np.int64],
    background: NDArray[np.float32] | float = 0.0,
) -> NDArray[np.float16]:
    """Pooled features `(n, 1280)` of `images (n, 28, 28)` in `PALETTE[colours]`, scaled to [-1, 1], 96 x 96.

    `background`, grey in [0, 1] or `(28, 28)`, is what shows where there is no digit.
    """
    out = []
    with torch.inference_mode():
        for start in range(0, len(images), 100):
            grey = torch.from_numpy(images[start : start + 100].astype(np.float32) / 255.0)[:, None]
            tint = torch.from_numpy(PALETTE[colours[start : start + 100]])[:, :, None, None]
            pixels = grey * tint + (1.0 - grey) * torch.as_tensor(background)
            pixels = torch.nn.functional.interpolate(pixels * 2.0 - 1.0, (96, 96), mode="bilinear")
            out.append(model(pixels).pooler_output.numpy().astype(np.float16))
    return np.concatenate(out)


def main() -> None:
    """Encode and store `aligned.npz`, `other.npz` and `test.npz`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    cache = parser.parse_args().cache
    root = Path(os.environ.get("AIFS_SHARED", Path(__file__).parents[2] / "shared"))
    model = AutoModel.from_pretrained(root / "models" / "mobilenet_v2_imagenet").eval()
    rng = np.random.default_rng(0)
    with np.load(root / "data" / "mnist" / "train.npz") as file:
        x, y = file["x"][:9000], file["y"][:9000].astype(np.int64)
    other = (y + rng.integers(1, 10, len(y))) % 10
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(cache / "aligned.npz", z=encode(model, x, y), y=y)
    np.savez(cache / "other.npz", z=encode(model, x, other), a=other, y=y)
    with np.load(root / "data" / "mnist" / "test.npz") as file:
        x, y = file["x"][:8000], file["y"][:8000].astype(np.int64)
    colours = rng.integers(0, 10, len(y))
    np.savez(cache / "test.npz", z=encode(model, x, colours), y=y, a=colours)


if __name__ == "__main__":
    main()
