"""Hints for attributes that discovery alone does not find: ten examples per cell with a known attribute value.

    python benchmarks/discovery_hints.py --out benchmarks/results/discovery_hints.json

Two families of attributes. *planted*: Gaussian latents with a class contrast of 1.5 and an attribute contrast of 2 to 3
standard deviations in random orthogonal directions, aligned for 95 %, n = 5,000. *dominoes*: the real latents, the
difference that the digit makes scaled down to 0.3. `recovered` is `(hint - erm) / (oracle - erm)` in worst-group
accuracy, with the oracle tuned on the test set as in discovery_dominoes.py. `random` gives the same hint with its
values shuffled: it should change nothing. `metadata` instead gives a column that equals the attribute for 90 % of all
examples, `direction` a named direction at a cosine of 0.8 to what the attribute adds. `refit` is last-layer refitting
on the known examples alone. *not associated*: an attribute that does not go with the label (share 0.5), 20 known per
cell: the hint should change nothing. *cars and trucks*: real pictures with a weak mark, whose latents
`discovery_encode_cars.py` writes (`--cars CACHE_DIR`). What the output file already holds is not computed again.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from discovery_dominoes import Split, group_accuracies, oracle, summarise
from numpy.typing import NDArray
from weak_attributes import dominoes_pairs, every_domino, moved_together, planted_draws

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.discovery.linear_heads.logistic import fit_logistic
from aifs_peft.discovery.principal_components import principal_components

PER_CELL = 10
SHARE = 0.95
CASES: dict[str, dict[str, float]] = {
    "planted d=64, contrast 2": {"d": 64, "contrast": 2.0},
    "planted d=64, contrast 2.5": {"d": 64, "contrast": 2.5},
    "planted d=64, contrast 3": {"d": 64, "contrast": 3.0},
    "planted d=128, contrast 2": {"d": 128, "contrast": 2.0},
    "planted d=128, contrast 3": {"d": 128, "contrast": 3.0},
    "dominoes x 0.3": {"scale": 0.3},
    "planted d=64, contrast 2, not associated": {"d": 64, "contrast": 2.0, "share": 0.5, "per_cell": 20},
    "cars and trucks, weak mark": {"marked": 1.0},
}
FITS = ("erm", "alone", "hint", "random", "all_known", "metadata", "direction", "refit", "oracle")


def planted(
    seed: int, *, d: int, contrast: float, share: float = SHARE, core: float = 1.5, n: int = 5000
) -> tuple[Split, Split]:
    """Gaussian latents with falling variances along random axes; contrasts in standard deviations."""
    draw = planted_draws(seed, d=d, contrast=contrast, core=core)
    return draw(n, share), draw(8000, 0.5)


def weakened_dominoes(seed: int, *, scale: float) -> tuple[Split, Split]:
    """Dominoes whose two digits' latents are moved towards their mean."""
    z, y = dominoes_pairs("train")
    a = np.where(np.random.default_rng(seed).random(len(y)) < SHARE, y, 1 - y)
    return (moved_together(z, a, scale), y, a), every_domino(scale)


def marked_cars(seed: int, cache: Path) -> tuple[Split, Split]:
    """Cars and trucks with a weak mark."""
    parts = {}
    for name in ("train", "test"):
        with np.load(cache / f"{name}.npz") as file:
            parts[name] = file["z"].astype(np.float32), file["y"].astype(np.int64)
    z, y = parts["train"]
    a = np.where(np.random.default_rng(seed).random(len(y)) < SHARE, y, 1 - y)
    other, labels = parts["test"]
    test = np.concatenate([other[:, 0], other[:, 1]]), np.r_[labels, labels], np.repeat([0, 1], len(labels))
    return (z[np.arange(len(y)), a], y, a), test


def known_values(
    y: NDArray[np.int64], a: NDArray[np.int64], rng: np.random.Generator, per_cell: int = PER_CELL
) -> NDArray[np.int64]:
    """The attribute of some random examples of each cell, -1 for the others."""
    known = np.full(len(y), -1)
    for cell in range(4):
        rows = rng.permutation(np.flatnonzero(2 * y + a == cell))[:per_cell]
        known[rows] = a[rows]
    return known


def rough_direction(
    Z: NDArray[np.floating], a: NDArray[np.int64], y: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.floating]:
    """What the attribute adds within the classes, plus noise shaped like the latents at a cosine of 0.8, `(d,)`."""
    within = [Z[(y == c) & (a == 1)].mean(axis=0) - Z[(y == c) & (a == 0)].mean(axis=0) for c in range(2)]
    direction = np.mean(within, axis=0)
    direction = direction / np.linalg.norm(direction)
    noise = rng.normal(size=Z.shape[1]) * Z.std(axis=0)
    noise -= (noise @ direction) * direction
    return np.asarray(0.8 * direction + 0.6 * noise / np.linalg.norm(noise))


def refitted(train: Split, test: Split, known: NDArray[np.int64]) -> float:
    """Worst group of last-layer refitting: logistic regression on the known examples alone."""
    reduction = principal_components(train[0], rng=np.random.default_rng(0))
    rows = known >= 0
    head = fit_logistic(reduction.transform(train[0][rows]), train[1][rows], 2, l2=1.0)
    return group_accuracies(head.logits(reduction.transform(test[0])).argmax(axis=1), test, 2)["worst"]


def evaluate(train: Split, test: Split, seed: int, per_cell: int, wanted: Sequence[str]) -> dict[str, Any]:
    """Of one row: ERM, discovery alone, with each kind of hint, a shuffled one and all values, and the oracle."""
    Z, y, a = train
    rng = np.random.default_rng(seed)
    known = known_values(y, a, rng, per_cell)
    shuffled = known.copy()
    shuffled[known >= 0] = rng.permutation(known[known >= 0])
    noisy = np.where(rng.random(len(a)) < 0.9, a, 1 - a)
    fits: dict[str, dict[str, Any]] = {
        "erm": {},
        "alone": {},
        "hint": {"groups": known},
        "random": {"groups": shuffled},
        "all_known": {"groups": a},
        "metadata": {"metadata": {"column": noisy}},
        "direction": {"attributes": {"name": rough_direction(Z, a, y, rng)}},
    }
    row: dict[str, Any] = {}
    for name, hint in fits.items():
        if name not in wanted:
            continue
        start = time.process_time()
        clf = AIFSClassifier("erm" if name == "erm" else "discovery", random_state=0).fit(Z, y, **hint)
        row[f"{name}_seconds"] = round(time.process_time() - start, 2)
        scores = group_accuracies(np.asarray(clf.predict(test[0])), test, 2)
        row[name], row[f"{name}_balanced"] = scores["worst"], scores["balanced"]
        if clf.discovery_ is not None:
            row[f"{name}_found"] = bool(clf.discovery_.found)
            row[f"{name}_source"] = clf.discovery_.source_
            row[f"{name}_head"] = clf.head_choice_.setting.describe() if clf.head_choice_ else ""
    if "refit" in wanted:
        row["refit"] = refitted(train, test, known)
    if "oracle" in wanted:
        row["oracle"] = max(s["worst"] for s in oracle(train, test, 2).values())
    return row


def recovered(rows: list[dict[str, float | bool | str]]) -> dict[str, float]:
    """Share of the gap between ERM and oracle, of the means and its standard error over seeds."""
    columns = {name: np.array([float(row[name]) for row in rows]) for name in ("erm", "hint", "oracle")}
    gap = float(np.mean(columns["oracle"] - columns["erm"]))
    each = (columns["hint"] - columns["erm"]) / gap
    error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("nan")
    return {"recovered": round(float(each.mean()), 4), "recovered_se": round(error, 4)}


def summary_of(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per case, of what all of its rows hold; the share of the gap where the attribute goes with the label."""
    out: dict[str, dict[str, float]] = {}
    for case in CASES:
        drawn = {key: row for key, row in rows.items() if key.rsplit("/", 1)[0] == case}
        if len(drawn) < 2:
            continue
        shared = set.intersection(*(set(row) for row in drawn.values()))
        out |= summarise({key: {n: v for n, v in row.items() if n in shared} for key, row in drawn.items()})
        if {"erm", "hint", "oracle"} <= shared and "share" not in CASES[case]:
            out[case] |= recovered(list(drawn.values()))
    return out


def main() -> None:
    """Run the missing rows and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first-seed", type=int, default=0, help="100 and above are for choosing, 0 to 4 for reporting"
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--fits", nargs="+", default=list(FITS), choices=FITS)
    parser.add_argument("--again", action="store_true", help="compute these fits also where the file holds them")
    parser.add_argument("--cars", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    record["versions"] = {"python": platform.python_version(), "numpy": np.__version__, "sklearn": sklearn.__version__}
    for case in options.cases:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            key = f"{case}/{seed}"
            setting = CASES[case]
            row = record["rows"].get(key, {})
            missing = [name for name in options.fits if options.again or name not in row]
            if not missing or ("marked" in setting and options.cars is None):
                continue
            if "scale" in setting:
                draw = weakened_dominoes(seed, scale=setting["scale"])
            elif "marked" in setting:
                draw = marked_cars(seed, options.cars)
            else:
                share = setting.get("share", SHARE)
                draw = planted(seed, d=int(setting["d"]), contrast=setting["contrast"], share=share)
            per_cell = int(setting.get("per_cell", PER_CELL))
            record["rows"][key] = row | evaluate(*draw, seed, per_cell, missing)
            record["summary"] = summary_of(record["rows"])
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n")
            print(key, record["rows"][key], flush=True)


if __name__ == "__main__":
    main()
