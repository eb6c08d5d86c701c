"""False alarms of discovery with three to ten classes on data without a shortcut.

    python benchmarks/discovery_many_nulls.py --seeds 0 1 --mnist CACHE_DIR --composites CACHE_DIR

Natural clusters (digits of scikit-learn, Colored MNIST in random colours, with very unequal classes, with permuted
labels), composed pictures whose colour says nothing (`discovery_encode_composites.py`), wrong labels, an attribute that
is independent of the label. Draws that the output file holds already are not looked at again. Seeds from 100 are for
development, see `discovery_many_classes.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from discovery_many_classes import DEVELOPMENT
from numpy.typing import NDArray
from sklearn import datasets

from aifs_peft.discovery import discover

RESULT = Path(__file__).parent / "results" / "discovery_many_nulls.json"
Data = tuple[NDArray[Any], NDArray[Any]]
Case = tuple[str, Callable[[np.random.Generator], Data]]


def digits(rng: np.random.Generator, size: int) -> Data:
    """Nine tenths of the images of some digits."""
    table = datasets.load_digits()
    keep = rng.permutation(np.flatnonzero(np.isin(table.target, rng.choice(10, size, replace=False))))
    keep = keep[: int(0.9 * len(keep))]
    return table.data[keep], table.target[keep]


def random_colours(rng: np.random.Generator, cache: Path, counts: tuple[int, ...], permuted: bool = False) -> Data:
    """Digits in random colours, so many of each class."""
    with np.load(cache / "test.npz") as file:
        z, y = file["z"], file["y"]
    chosen = rng.choice(10, len(counts), replace=False)
    keep = np.concatenate(
        [rng.permutation(np.flatnonzero(y == c))[:count] for c, count in zip(chosen, counts, strict=True)]
    )
    return z[keep], rng.permutation(y[keep]) if permuted else y[keep]


def composed(rng: np.random.Generator, cache: Path, name: str, n_classes: int, seed: int) -> Data:
    """400 pictures per class in one of six colours, all as frequent in each class."""
    with np.load(cache / f"{name}_train.npz") as file:
        z, y = file["z"], file["y"].astype(np.int64)
    each = len(y) // 6
    first = np.arange(len(y)) % each < each // 2
    ours = rng.permutation(np.flatnonzero((first if seed >= DEVELOPMENT else ~first) & (y < n_classes)))
    keep = np.concatenate([ours[y[ours] == c][:400] for c in range(n_classes)])
    # The second colour is one of the five others: so drawn, all six come as often.
    return z[keep, (rng.random(len(keep)) < 5 / 6).astype(int)].astype(np.float32), y[keep]


def mislabelled(rng: np.random.Generator, n_classes: int, share: float) -> Data:
    """Well separated classes, some labels drawn anew."""
    true = rng.integers(0, n_classes, 3000)
    Z = rng.normal(size=(3000, 64))
    Z[np.arange(3000), true] += 4.0
    return Z, np.where(rng.random(3000) < share, rng.integers(0, n_classes, 3000), true)


def independent(rng: np.random.Generator, n_classes: int) -> Data:
    """A clear attribute that has nothing to do with the label."""
    y, a = rng.integers(0, n_classes, 3000), rng.integers(0, n_classes, 3000)
    Z = rng.normal(size=(3000, 64))
    Z[np.arange(3000), y] += 1.5
    Z[np.arange(3000), n_classes + a] += 4.0
    return Z, y


def cases(seed: int, mnist: Path | None, pictures: Path | None) -> Iterator[Case]:
    """All kinds of draws; those of a folder that was not given are left out."""
    for size in (3, 4, 5, 10):
        yield f"digits, {size} classes", lambda rng, size=size: digits(rng, size)
    for K, share in ((3, 0.05), (4, 0.1), (10, 0.05)):
        yield f"mislabelled {share:.0%}, {K} classes", lambda rng, K=K, share=share: mislabelled(rng, K, share)
    yield "independent attribute, 5 classes", lambda rng: independent(rng, 5)
    for K in (3, 4, 6) if pictures else ():
        for name in ("framed", "marked"):
            yield (
                f"{name}, colour independent, {K} classes",
                lambda rng, K=K, name=name: composed(rng, pictures, name, K, seed),
            )
    if mnist:
        for counts in ((500,) * 4, (400,) * 5, (300,) * 10):
            yield (
                f"random colours, {len(counts)} digits",
                lambda rng, counts=counts: random_colours(rng, mnist, counts),
            )
        yield "random colours, 5 unequal classes", lambda rng: random_colours(rng, mnist, (700, 350, 200, 100, 60))
        yield "random colours, permuted labels", lambda rng: random_colours(rng, mnist, (500,) * 4, permuted=True)


def main() -> None:
    """Look at the missing draws and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--composites", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    for seed in options.seeds:
        for number, (kind, draw) in enumerate(cases(seed, options.mnist, options.composites)):
            record = json.loads(options.out.read_text()) if options.out.is_file() else {"draws": {}}
            key = f"{kind}/{seed}"
            if key in record["draws"]:
                continue
            found = discover(*draw(np.random.default_rng([seed, number])), random_state=seed)
            record["draws"][key] = {"alarm": found.found, "source": found.source_, "message": found.message_}
            alarms = sum(entry["alarm"] for entry in record["draws"].values())
            record["alarms"], record["n"] = alarms, len(record["draws"])
            options.out.write_text(json.dumps(record, indent=1) + "\n")
            print(key, record["draws"][key], flush=True)


if __name__ == "__main__":
    main()
