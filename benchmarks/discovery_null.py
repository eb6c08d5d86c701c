"""False alarms of discovery on data without a shortcut.

    python benchmarks/discovery_null.py --seeds 4 --out benchmarks/results/discovery_null.json

Every draw has no attribute that goes with the label: balanced dominoes at several sizes, permuted labels, one fixed
attribute, natural tasks of scikit-learn, mislabelled examples, planted Gaussians. With `--colored-mnist CACHE_DIR`
(made by `benchmarks/discovery_encode_mnist.py`) also digits with random colours: ten classes, four, and pairs.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

from aifs_peft.discovery import discover
from aifs_peft.discovery.linear_heads.choice import choose_head
from aifs_peft.discovery.linear_heads.families import fit_head
from aifs_peft.discovery.linear_heads.plain import fit_plain
from aifs_peft.discovery.mixture.joint import marginals
from aifs_peft.discovery.principal_components import principal_components

Case = tuple[str, NDArray[np.floating], NDArray[np.integer]]


def dominoes(rng: np.random.Generator) -> Iterator[Case]:
    """Balanced draws, permuted labels, one fixed attribute."""
    root = Path(os.environ.get("AIFS_SHARED", Path(__file__).parents[2] / "shared"))
    with np.load(root / "data" / "dominoes_latents" / "train.npz") as file:
        z, y = file["z"], file["y"].astype(np.int64)
    for n in (500, 1000, 2000, 5000):
        rows = rng.permutation(len(y))[:n]
        a = rng.integers(0, 2, n)
        yield f"dominoes balanced, n={n}", z[rows, a], y[rows]
        yield f"dominoes permuted labels, n={n}", z[rows, a], rng.permutation(y[rows])
    aligned = z[np.arange(len(y)), np.where(rng.random(len(y)) < 0.95, y, 1 - y)]
    yield "dominoes 0.95 permuted labels", aligned, rng.permutation(y)
    rows = rng.permutation(len(y))[:3000]
    yield "dominoes fixed attribute", z[rows, 0], y[rows]


def natural(rng: np.random.Generator) -> Iterator[Case]:
    """Tasks of scikit-learn: all digits, five, pairs, and three small tables."""
    digits = datasets.load_digits()
    sizes = (10, 5, 2, 2, 2)
    for size in sizes:
        keep = np.flatnonzero(np.isin(digits.target, rng.choice(10, size, replace=False)))
        keep = rng.permutation(keep)[: int(0.9 * len(keep))]
        yield f"digits, {size} classes", digits.data[keep], digits.target[keep]
    for load in (datasets.load_breast_cancer, datasets.load_wine, datasets.load_iris):
        table = load()
        keep = rng.permutation(len(table.target))[: int(0.9 * len(table.target))]
        yield load.__name__.removeprefix("load_"), (table.data / table.data.std(axis=0))[keep], table.target[keep]


def gaussian(rng: np.random.Generator) -> Iterator[Case]:
    """An attribute independent of the label, noise, mislabelled examples."""
    for K in (2, 5):
        y, a = rng.integers(0, K, 3000), rng.integers(0, K, 3000)
        Z = rng.normal(size=(3000, 64))
        Z[np.arange(3000), y] += 1.5
        Z[np.arange(3000), K + a] += 4.0
        yield f"planted independent attribute, K={K}", Z, y
    yield "noise", rng.normal(size=(3000, 50)), rng.integers(0, 2, 3000)
    for core, share in ((2.5, 0.05), (5.0, 0.03), (4.0, 0.1)):
        y = rng.integers(0, 2, 3000)
        Z = rng.normal(size=(3000, 32))
        Z[:, 0] += core * y
        yield f"mislabelled {share:.0%}, classes {core} apart", Z, np.where(rng.random(3000) < share, 1 - y, y)


def mislabelled(rng: np.random.Generator) -> Iterator[Case]:
    """More than two well separated classes, some labels drawn anew."""
    for K in (3, 4, 10):
        for share in (0.02, 0.05, 0.1):
            true = rng.integers(0, K, 3000)
            Z = rng.normal(size=(3000, 64))
            Z[np.arange(3000), true] += 4.0
            yield (
                f"mislabelled {share:.0%}, K={K}",
                Z,
                np.where(rng.random(3000) < share, rng.integers(0, K, 3000), true),
            )


def random_colours(cache: Path, rng: np.random.Generator) -> Iterator[Case]:
    """Digits whose colour says nothing: ten classes, four, pairs, and digit >= 5."""
    with np.load(cache / "test.npz") as file:
        z, y = file["z"], file["y"].astype(np.int64)
    for size in (10, 4, 2, 2, 2):
        keep = np.flatnonzero(np.isin(y, rng.choice(10, size, replace=False)))
        yield f"random colours, {size} digits", z[keep], y[keep]
    rows = rng.permutation(len(y))[:4000]
    yield "random colours, digit >= 5", z[rows], (y[rows] >= 5).astype(np.int64)
    yield "random colours, permuted labels", z[rows], rng.permutation(y[rows])


def cost(Z: NDArray[np.floating], y: NDArray[Any], R: NDArray[np.floating], seed: int) -> float:
    """What an alarm takes from the worst class: accuracy of plain training minus AIFS's, on a held-out 30 %.

    The alarm's partition is kept, in responsibilities `R (n, m, K)`: discovery on fewer rows might not raise it again.
    """
    y = np.unique(y, return_inverse=True)[1]
    K, rng = R.shape[-1], np.random.default_rng(seed)
    held = rng.random(len(y)) < 0.3
    reduction = principal_components(Z[~held], 256, rng=rng)
    X, X_held = reduction.transform(Z[~held]), reduction.transform(Z[held])
    choice = choose_head(X, y[~held], R[~held], rng=np.random.default_rng(seed))
    aifs = fit_head(X, y[~held], R[~held], choice.setting, rng=np.random.default_rng(seed))
    plain, _ = fit_plain(X, y[~held], K, rng=np.random.default_rng(seed))
    hits = [head.logits(X_held).argmax(axis=1) == y[held] for head in (plain, aifs)]
    worst = [min(float(hit[y[held] == c].mean()) for c in range(K)) for hit in hits]
    return worst[0] - worst[1]


def main() -> None:
    """Count false alarms per kind of draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--colored-mnist", type=Path, default=None)
    parser.add_argument("--only", default="", help="kinds of draws that contain this text; all are drawn, as ever")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    kinds: dict[str, dict[str, int]] = {}
    costs: list[float] = []
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        draws = [*dominoes(rng), *natural(rng), *gaussian(rng)]
        draws += [*random_colours(options.colored_mnist, rng)] if options.colored_mnist else []
        draws += [*mislabelled(rng)]
        for name, Z, y in (draw for draw in draws if options.only in draw[0]):
            result = discover(Z.astype(np.float32), y, random_state=seed)
            count = kinds.setdefault(name, {"draws": 0, "alarms": 0})
            count["draws"] += 1
            count["alarms"] += int(result.found)
            if result.found:
                R = marginals(result.responsibilities_, len(result.classes_))
                costs.append(round(cost(Z.astype(np.float32), y, R, seed), 4))
        total = {key: sum(c[key] for c in kinds.values()) for key in ("draws", "alarms")}
        record = {
            "seeds": seed + 1,
            "total": total,
            "false_alarm_rate": total["alarms"] / total["draws"],
            "worst_class_cost_of_alarms": costs,
            "kinds": kinds,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(seed, total, flush=True)


if __name__ == "__main__":
    main()
