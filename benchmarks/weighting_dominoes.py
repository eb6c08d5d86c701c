"""Methods that weight or balance examples, on dominoes latents: the oracles must agree with each other.

    python benchmarks/weighting_dominoes.py --out benchmarks/results/weighting_dominoes.json

Training draws have aligned share 0.95; a fifth is cut off for validation; latents are 256 principal components of unit
variance; heads are linear. Every method gets the same nine schedules (learning rate x weight decay) and nothing else is
tuned. Columns, all worst-group accuracy on the balanced test set: `default` (the library's schedule), `by_worst_class`
(schedule chosen by the worst class on validation, no groups), `by_true_groups` (chosen by the worst true group on
validation: oracle selection). DFR fits on the validation groups, so it gets the default schedule only. Rows that the
output file already holds are not computed again.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import sklearn
import torch
from discovery_dominoes import dominoes, group_accuracies
from numpy.typing import NDArray

from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.methods import MethodSettings, make
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents

METHODS = ("erm", "erm-balanced", "jtt", "afr", "reweight-oracle", "gdro-oracle", "dfr-oracle")
DEFAULT = LatentSchedule()
GRID = [
    replace(DEFAULT, learning_rate=rate, weight_decay=wd) for rate, wd in product((3e-4, 1e-3, 3e-3), (0.01, 1, 10))
]
Part = tuple[torch.Tensor, NDArray[np.int64], NDArray[np.int64]]


def split(share: float, seed: int) -> tuple[Part, Part, Part]:
    """Latents, labels and attributes for training, validation and test."""
    (Z, y, a), (Z_test, y_test, a_test) = dominoes(share, seed)
    rows = np.random.default_rng([seed, 1]).permutation(len(y))
    held, kept = rows[: len(y) // 5], rows[len(y) // 5 :]
    reduction = principal_components(Z[kept], 256, rng=np.random.default_rng(0))
    parts = ((Z[kept], y[kept], a[kept]), (Z[held], y[held], a[held]), (Z_test, y_test, a_test))
    train, validation, test = ((torch.as_tensor(reduction.transform(z)), labels, b) for z, labels, b in parts)
    return train, validation, test


def scores(head: torch.nn.Module, part: Part) -> dict[str, float]:
    """Worst group, mean over groups and worst class."""
    z, y, a = part
    predicted = head(z).argmax(1).numpy()
    worst_class = min(float(np.mean(predicted[y == c] == c)) for c in np.unique(y))
    return {**group_accuracies(predicted, (z.numpy(), y, a), 2), "worst_class": worst_class}


def fitted(method: str, parts: tuple[Part, Part, Part], schedule: LatentSchedule, seed: int) -> dict[str, float]:
    """One training: its scores on validation and test."""
    (Z, y, _), validation, test = parts
    wanted = make(method)
    group, held_group = (torch.as_tensor(part[1] * 2 + part[2]) for part in parts[:2])
    held_columns = {"group": held_group} if wanted.validation_columns() else {}
    fit = fit_on_latents(
        method,
        Z,
        torch.as_tensor(y),
        num_labels=2,
        settings=MethodSettings.for_method(method, seed=seed),
        schedule=schedule,
        columns={"group": group} if wanted.columns() else {},
        validation=(validation[0], torch.as_tensor(validation[1]), held_columns),
    )
    on_validation, on_test = scores(fit.head, validation), scores(fit.head, test)
    return {f"val_{name}": value for name, value in on_validation.items()} | on_test


def row(method: str, seed: int, share: float) -> dict[str, float]:
    """One method on one draw, under each rule of selection."""
    parts = split(share, seed)
    default = fitted(method, parts, DEFAULT, seed)
    out = {"default": default["worst"], "default_balanced": default["balanced"]}
    if method == "dfr-oracle":
        return out
    tried = [fitted(method, parts, schedule, seed) for schedule in GRID]
    for column, rule in (("by_worst_class", "val_worst_class"), ("by_true_groups", "val_worst")):
        best = max(tried, key=lambda result: result[rule])
        out |= {column: best["worst"], f"{column}_balanced": best["balanced"]}
    return out


def summarise(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard error over seeds, and how far the two oracles are apart on the same draws."""
    out: dict[str, dict[str, float]] = {}
    for method in METHODS:
        drawn = [value for key, value in rows.items() if key.split("/")[0] == method]
        for name in drawn[0] if drawn else ():
            values = np.array([result[name] for result in drawn])
            out.setdefault(method, {"seeds": len(drawn)})[name] = round(float(values.mean()), 4)
            out[method][f"{name}_se"] = (
                round(float(values.std(ddof=1) / np.sqrt(len(values))), 4) if len(values) > 1 else 0
            )
    if {"gdro-oracle", "reweight-oracle"} <= out.keys():
        columns = [name for name in out["gdro-oracle"] if not name.endswith("_se") and name != "seeds"]
        out["gdro_minus_reweight"] = {
            name: round(out["gdro-oracle"][name] - out["reweight-oracle"][name], 4) for name in columns
        }
    return out


def main() -> None:
    """Run the missing rows and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--share", type=float, default=0.95)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    record["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sklearn": sklearn.__version__,
    }
    record["share"] = options.share
    for seed, method in product(range(options.seeds), options.methods):
        key = f"{method}/{seed}"
        if key in record["rows"]:
            continue
        record["rows"][key] = row(method, seed, options.share)
        record["summary"] = summarise(record["rows"])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(key, record["rows"][key], flush=True)


if __name__ == "__main__":
    main()
