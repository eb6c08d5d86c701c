"""Latents of pictures composed of vehicles, digits and a mark, for discovery_composites.py.

    python benchmarks/discovery_encode_composites.py CACHE_DIR

Two sets of six classes, pictures of 96 px, frozen MobileNetV2, average-pooled.

- `marked`: an automobile, a truck, or a 3, 8, 5 or 9 drawn over a photograph of either vehicle. The attribute is the
  colour of a square of 32 px in the lower right corner, blended in.
- `framed`: a photograph of a vehicle and a digit side by side; the class is both (automobile or truck, with 3, 8 or 5).
  The attribute is the colour of the ground behind them, mixed with grey.

Every training picture is encoded in its own class's colour and in another one, so that any association can be drawn;
every test picture in all six. Written: `SET_train.npz` with `z` (n, 2, 1280), `y`, `other` (the second colour) and
`SET_test.npz` with `z` (n, 6, 1280), `y`. The first half of each class's training pictures is for development, the
other half for what is reported. About 8 minutes on one core; the cache stays outside the repository.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from discovery_dominoes import shared
from discovery_encode_cars import encode, pictures
from discovery_encode_mnist import PALETTE
from numpy.typing import NDArray

SIDE, MARK, EDGE = 96, 32, 3
MARK_OPACITY, GROUND_OPACITY = 0.9, 0.4
COLOURS = 255.0 * PALETTE[[0, 1, 2, 3, 4, 8]]
DIGITS = (3, 8, 5, 9)
EACH = {"train": 1000, "test": 150}
Pictures = NDArray[np.float32]


def resized(x: NDArray[Any], side: int) -> Pictures:
    """Pictures `(n, h, w, c)` at `(n, side, side, c)`, bilinear."""
    tensor = torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(tensor, (side, side), mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).numpy()


def digits_of(split: str, rng: np.random.Generator, numbers: Sequence[int]) -> dict[int, Pictures]:
    """Digits by number `(n, 28, 28, 1)` in [0, 1], in a random order."""
    with np.load(shared() / "data" / "mnist" / f"{split}.npz") as file:
        x, y = file["x"], file["y"]
    return {c: x[rng.permutation(np.flatnonzero(y == c))][..., None].astype(np.float32) / 255.0 for c in numbers}


def sources(split: str, rng: np.random.Generator) -> tuple[dict[int, NDArray[np.uint8]], dict[int, Pictures]]:
    """Photographs by vehicle `(n, 64, 64, 3)`, and digits as of `digits_of`, in a random order."""
    x, y = pictures(split)
    vehicles = {c: x[rng.permutation(np.flatnonzero(y == c))] for c in (0, 1)}
    return vehicles, digits_of(split, rng, DIGITS)


def plain_marked(split: str, each: int, rng: np.random.Generator) -> Iterator[Pictures]:
    """The pictures of each class of `marked`, without the mark."""
    vehicles, digits = sources(split, rng)
    yield from (resized(vehicles[c][:each], SIDE) for c in (0, 1))
    rest = rng.permutation(np.concatenate([vehicles[c][each:] for c in (0, 1)]))
    for place, digit in enumerate(DIGITS):
        ground = resized(rest[place * each : (place + 1) * each], SIDE)
        ink = resized(digits[digit][:each], 64)
        inside = ground[:, 12:76, 12:76]
        inside += 0.9 * ink * (255.0 - inside)
        yield ground


def plain_framed(split: str, each: int, rng: np.random.Generator) -> Iterator[tuple[Pictures, Pictures]]:
    """Photographs (56 px) and digits (44 px) of each class of `framed`."""
    vehicles, digits = sources(split, rng)
    for place, digit in enumerate(DIGITS[:3]):
        rows = slice(place * each, (place + 1) * each)
        for vehicle in (0, 1):
            ink = digits[digit][vehicle * each : (vehicle + 1) * each]
            yield resized(vehicles[vehicle][rows], 56), resized(ink, 44)


def marked(x: Pictures, colours: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Pictures with a mark of the given colours."""
    out, place = x.copy(), slice(SIDE - EDGE - MARK, SIDE - EDGE)
    out[:, place, place] += MARK_OPACITY * (COLOURS[colours][:, None, None] - out[:, place, place])
    return np.clip(out.round(), 0, 255).astype(np.uint8)


def framed(x: tuple[Pictures, Pictures], colours: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Photograph and digit on a ground of the given colours, with noise."""
    photo, ink = x
    ground = 128.0 + GROUND_OPACITY * (COLOURS[colours] - 128.0)
    out = ground[:, None, None] + 12.0 * rng.normal(size=(len(ink), SIDE, SIDE, 1))
    out[:, 2:58, 2:58] = photo
    corner = out[:, 50:94, 50:94]
    corner += ink * (255.0 - corner)
    return np.clip(out.round(), 0, 255).astype(np.uint8)


def save(
    file: Path, split: str, each: int, values: int, rng: np.random.Generator,
    encoded: Callable[[int, NDArray[np.int64]], NDArray[Any]],
) -> None:  # fmt: skip
    """Encode one split of one set, and write it.

    Args:
        file: to write.
        split: training pictures have their own class's value and another one, test pictures all.
        each: pictures of a class.
        values: of the attribute; as many classes.
        rng: source of the other values.
        encoded: latents of a class's pictures with the given values.
    """
    z, others = [], []
    for c in range(values):
        other = (c + rng.integers(1, values, each)) % values
        wanted = [np.full(each, c), other] if split == "train" else [np.full(each, a) for a in range(values)]
        z.append(np.stack([encoded(c, a) for a in wanted], axis=1))
        others.append(other)
        print(file.stem, c, flush=True)
    np.savez(file, z=np.concatenate(z), y=np.repeat(np.arange(values), each), other=np.concatenate(others))


def write(model: Any, file: Path, name: str, split: str, rng: np.random.Generator) -> None:
    """Encode one split of one set."""
    each = EACH[split]
    kinds: list[Any] = list(plain_marked(split, each, rng) if name == "marked" else plain_framed(split, each, rng))

    def encoded(c: int, a: NDArray[np.int64]) -> NDArray[Any]:
        return encode(model, marked(kinds[c], a) if name == "marked" else framed(kinds[c], a, rng))

    save(file, split, each, len(COLOURS), rng, encoded)


def encode_sets(
    doc: str | None, names: Iterable[str], write: Callable[[Any, Path, str, str, np.random.Generator], None]
) -> None:
    """Encode both splits of the sets that the folder of the command line lacks.

    Args:
        doc: of the script.
        names: of the sets.
        write: encodes one split of one.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    cache = parser.parse_args().cache
    cache.mkdir(parents=True, exist_ok=True)
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(str(shared() / "models" / "mobilenet_v2_imagenet")).eval()
    for name in names:
        for split in ("test", "train"):
            file = cache / f"{name}_{split}.npz"
            if not file.is_file():
                write(model, file, name, split, np.random.default_rng([len(name), len(split), ord(name[0])]))


if __name__ == "__main__":
    encode_sets(__doc__, ("marked", "framed"), write)
