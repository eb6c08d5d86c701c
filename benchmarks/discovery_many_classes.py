"""Discovery on subsets of the Colored MNIST classes at several aligned shares.

    python benchmarks/discovery_many_classes.py CACHE_DIR --out benchmarks/results/discovery_many_classes.json

Four or five digits drawn at random per seed, coloured by class; conflicting examples take another of the chosen
classes' colours. Latents by `benchmarks/discovery_encode_mnist.py`; the columns, and `--again`, are those of
`discovery_dominoes.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from discovery_dominoes import BASELINES, Split, baselines, evaluate, summarise


def subset(cache: Path, n_classes: int, share: float, seed: int) -> tuple[Split, Split]:
    """Train on the images of `n_classes` random digits, test on those in one of their colours."""
    with np.load(cache / "aligned.npz") as file:
        aligned, y = file["z"], file["y"].astype(np.int64)
    with np.load(cache / "other.npz") as file:
        other, colour = file["z"], file["a"].astype(np.int64)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(10, n_classes, replace=False))
    inside = np.isin(y, chosen)
    movable = inside & np.isin(colour, chosen)
    # Every image has one other colour, which is one of the chosen only for some: those are drawn more often.
    probability = (1.0 - share) * np.count_nonzero(inside) / np.count_nonzero(movable)
    moved = movable & (rng.random(len(y)) < probability)
    z, a = np.where(moved[:, None], other, aligned).astype(np.float32), np.where(moved, colour, y)
    with np.load(cache / "test.npz") as file:
        test_z, test_y, test_a = file["z"].astype(np.float32), file["y"].astype(np.int64), file["a"].astype(np.int64)
    kept = np.isin(test_y, chosen) & np.isin(test_a, chosen)
    index = np.searchsorted
    train = (z[inside], index(chosen, y[inside]), index(chosen, a[inside]))
    return train, (test_z[kept], index(chosen, test_y[kept]), index(chosen, test_a[kept]))


def main() -> None:
    """Run the missing rows and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--classes", type=int, nargs="+", default=[4, 5])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.8, 0.9, 0.95, 0.98])
    parser.add_argument("--again", action="store_true", help="measure AIFS again in rows that are there")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    for seed in range(options.seeds):
        for n_classes in options.classes:
            for share in options.shares:
                key = f"colored_mnist_{n_classes}/{share:g}/{seed}"
                old = record["rows"].get(key)
                if old and not options.again:
                    continue
                draw = subset(options.cache, n_classes, share, seed)
                base = {name: old[name] for name in BASELINES} if old else baselines(*draw, n_classes)
                record["rows"][key] = {**base, **evaluate(*draw, n_classes)}
                record["summary"] = summarise(record["rows"])
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(record, indent=1) + "\n")
                print(key, record["rows"][key], flush=True)


if __name__ == "__main__":
    main()
