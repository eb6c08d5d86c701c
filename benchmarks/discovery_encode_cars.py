"""Latents of cars and trucks with and without a weak mark, for discovery_unlabelled.py.

    python benchmarks/discovery_encode_cars.py CACHE_DIR
    python benchmarks/discovery_encode_cars.py CACHE_DIR --strengths 0.1 0.2 0.4

CIFAR-10 automobiles and trucks (32 px), enlarged to 64 px (bilinear), frozen MobileNetV2, average-pooled. The mark: a
square of 12 px in the lower right corner (2 px from the edges) is blended with white by an opacity of 0.7, about as a
date stamp would be: some 2.4 standard deviations in the latents, where the class has 1.7. Every picture is encoded with
and without it, so that any association with the class can be drawn. Written: `train.npz` and `test.npz` with `z`
(n, 2, 1280), `y` (0 automobile, 1 truck), and the opacity. The second form writes nothing: it prints, for some
opacities and 4,000 pictures, how strong the mark is in the latents. About 3 minutes on one core; the cache stays
outside the repository.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from discovery_dominoes import shared
from numpy.typing import NDArray
from PIL import Image

SIDE, MARK, EDGE = 64, 12, 2
OPACITY = 0.7
N_TRAIN = 5000
BATCH = 100


def pictures(
    split: str, n: int | None = None, seed: int = 0, *, after: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures `(n, 64, 64, 3)` and labels, as many of each class, in a random order; none of the first `after`."""
    table = pd.read_parquet(shared() / "data" / "cars_trucks" / f"{split}.parquet")
    rng = np.random.default_rng(seed)
    labels = table["label"].to_numpy()
    each = len(labels) // 2 if n is None else n // 2
    wanted = slice(after // 2, after // 2 + each)
    rows = rng.permutation(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[wanted] for c in (0, 1)]))
    x = [Image.open(io.BytesIO(table["image"].iloc[i]["bytes"])).convert("RGB") for i in rows]
    large = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for image in x]
    return np.stack(large), labels[rows].astype(np.int64)


def marked(x: NDArray[np.uint8], opacity: float) -> NDArray[np.uint8]:
    """The pictures with the mark."""
    out = x.astype(np.float32)
    place = slice(SIDE - EDGE - MARK, SIDE - EDGE)
    out[:, place, place] += opacity * (255.0 - out[:, place, place])
    return out.round().astype(np.uint8)


@torch.no_grad()
def encode(model: Any, x: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Average-pooled features, `(n, 1280)`."""
    parts = []
    for start in range(0, len(x), BATCH):
        pixels = torch.from_numpy(x[start : start + BATCH]).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        parts.append(model(pixel_values=pixels).pooler_output.numpy().astype(np.float16))
    return np.concatenate(parts)


def strength(z: NDArray[Any], y: NDArray[np.int64], k: int = 256) -> dict[str, float]:
    """Distance of mark from no mark, and of truck from automobile, in standard deviations.

    Along the direction that linear discriminant analysis finds on one half of the pictures, measured on the other half
    within the cells of the other of the two; on `k` principal components.
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    half = len(y) // 2
    flat = np.concatenate([z[:, 0], z[:, 1]]).astype(np.float64)
    a, both = np.repeat([0, 1], len(y)), np.r_[y, y]
    first = np.r_[np.arange(len(y)), np.arange(len(y))] < half
    X = PCA(k, random_state=0).fit(flat[first]).transform(flat)
    out = {}
    for name, told, rest in (("mark", a, both), ("class", both, a)):
        score = (
            LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(X[first], told[first]).decision_function(X)
        )
        gaps = []
        for r in (0, 1):
            low, high = (score[~first & (rest == r) & (told == t)] for t in (0, 1))
            gaps.append((high.mean() - low.mean()) / np.sqrt((high.var() + low.var()) / 2))
        out[name] = round(float(np.mean(gaps)), 2)
    return out


def main() -> None:
    """Write the latents, or measure opacities."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--strengths", type=float, nargs="+")
    options = parser.parse_args()
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(str(shared() / "models" / "mobilenet_v2_imagenet")).eval()
    if options.strengths:
        x, y = pictures("train", 4000, seed=1)
        plain = encode(model, x)
        for opacity in options.strengths:
            print(opacity, strength(np.stack([plain, encode(model, marked(x, opacity))], axis=1), y), flush=True)
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", N_TRAIN), ("test", None)):
        x, y = pictures(split, n)
        z = np.stack([encode(model, x), encode(model, marked(x, OPACITY))], axis=1)
        np.savez(options.cache / f"{split}.npz", z=z, y=y, opacity=OPACITY)
        print(split, z.shape, strength(z, y), flush=True)


if __name__ == "__main__":
    main()
