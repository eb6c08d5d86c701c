"""Latents of four digits before four natural attributes, for discovery_many_classes.py.

    python benchmarks/discovery_encode_scenes.py CACHE_DIR

Three sets of four classes (a 3, 5, 8 or 9), pictures of 96 px, frozen MobileNetV2, average-pooled.

- `scenes`: the attribute is the ground: a cutting of random place, size, brightness and direction from one of four
  parts of the two photographs that scikit-learn ships (roofs, trees, petals, leaves).
  The digit is faint.
- `bold`: the same with a large white digit.
- `paired`: the attribute is a second, larger and plainer digit beside a faint first one (0, 1, 4 or 7), both over a
  photograph of a vehicle.

Every training picture is encoded with its own class's value and with another one, every test picture with all four. The
files are those of discovery_encode_composites.py: the first half of each class's training pictures is for development.
About 6 minutes on one core; the cache stays outside the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from discovery_encode_cars import encode, pictures
from discovery_encode_composites import SIDE, Pictures, digits_of, encode_sets, resized, save
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

CLASSES, VALUES = (3, 5, 8, 9), (0, 1, 4, 7)
PARTS = {
    "china.jpg": ((0, 230), (0, 640)),
    "china.jpg, below": ((230, 427), (0, 640)),
    "flower.jpg": ((60, 380), (180, 480)),
    "flower.jpg, left": ((0, 427), (0, 190)),
}
INK = {"scenes": 0.5, "bold": 1.0, "paired": 0.6}
EACH = {"train": 800, "test": 100}


def cutting(value: int, rng: np.random.Generator) -> Pictures:
    """A piece of one of the four parts of the photographs, `(96, 96, 3)`."""
    name, (rows, columns) = list(PARTS.items())[value]
    part = load_sample_image(name.split(",")[0])[slice(*rows), slice(*columns)]
    side = int(rng.integers(90, 181))
    top, left = (int(rng.integers(0, length - side + 1)) for length in part.shape[:2])
    piece = part[top : top + side, left : left + side][:, :: rng.choice((-1, 1))]
    return resized(piece[None], SIDE)[0] * rng.uniform(0.7, 1.1)


def over(ground: Pictures, ink: Pictures, top: int, left: int, opacity: float) -> None:
    """Draw `ink (n, s, s, 1)` in white on `ground`, in place."""
    side = ink.shape[1]
    inside = ground[:, top : top + side, left : left + side]
    inside += opacity * ink * (255.0 - inside)


def drawn(name: str, ink: Pictures, photos: Pictures, others: dict[int, Pictures], a: NDArray[np.int64],
          rng: np.random.Generator) -> NDArray[np.uint8]:  # fmt: skip
    """Pictures of one class with the given attribute values."""
    if name != "paired":
        ground = np.stack([cutting(int(value), rng) for value in a])
        side = 56 if name == "scenes" else 80
        over(ground, resized(ink, side), (SIDE - side) // 2, (SIDE - side) // 2, INK[name])
    else:
        ground = 0.5 * photos
        over(ground, resized(ink, 44), 26, 2, INK[name])
        chosen = np.stack([others[VALUES[value]][rng.integers(len(others[VALUES[value]]))] for value in a])
        over(ground, resized(chosen, 52), 22, 43, 1.0)
    return np.clip(ground.round(), 0, 255).astype(np.uint8)


def write(model: Any, file: Path, name: str, split: str, rng: np.random.Generator) -> None:
    """Encode one split of one set."""
    each, numbers = EACH[split], digits_of(split, rng, range(10))
    x, _ = pictures(split)
    photos = resized(x[rng.permutation(len(x))[: each * len(CLASSES)]], SIDE)

    def encoded(c: int, a: NDArray[np.int64]) -> NDArray[Any]:
        ink, ground = numbers[CLASSES[c]][:each], photos[c * each : (c + 1) * each]
        return encode(model, drawn(name, ink, ground, numbers, a, rng))

    save(file, split, each, len(CLASSES), rng, encoded)


if __name__ == "__main__":
    encode_sets(__doc__, INK, write)
