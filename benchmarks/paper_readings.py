"""Every reading of the published formulas, measured: `python benchmarks/paper_readings.py`.

`aifs-paper` with each attribution (the printed formula, and integrated gradients), each mask rule, each scale of the
mask and both signs of the sensitivity term, on planted Gaussian latents: 128 dimensions, a class of contrast 2 and a
shortcut of contrast 4, 95 % aligned, 2,000 examples, a linear head, 3 seeds; tested where shortcut and class are
independent. Beside them plain training, `aifs`, balancing by the true groups, and each of the two terms alone with a
mask in [0, 1]. With `--demo` both attributions and two scales also through the trainer, with the settings of `aifs
demo` (tuned encoder, 3 seeds). Docs: `docs/paper.md`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aifs_peft.cli.options import DEFAULTS
from aifs_peft.experiments import FinetuneSpec, provenance
from aifs_peft.experiments.build import build_trainer
from aifs_peft.experiments.evaluation import evaluate_groups
from aifs_peft.methods import MethodSettings
from aifs_peft.training import AIFSTrainingArguments
from aifs_peft.training.latent_trainer import LatentFit, LatentSchedule, fit_on_latents

RESULT = Path(__file__).parent / "results" / "paper_readings.json"
ATTRIBUTIONS = ("gradient_x_input", "ig")
RULES = ("inverse", "inverse_relative", "direct")
SCALES = ("sum", "max", "mean")
SIGNS = (-1, 1)
DEMO = tuple(f"{kind}/{scale}" for scale, kind in product(("sum", "max"), ATTRIBUTIONS))
SEEDS = (0, 1, 2)
SCHEDULE = LatentSchedule(epochs=30, learning_rate=3e-3)
Set = tuple[Tensor, Tensor, Tensor]


def planted(n: int, aligned: float, seed: int) -> Set:
    """Latents `(n, 128)`, labels, and group `2 y + a`."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=generator)
    a = torch.where(torch.rand(n, generator=generator) < aligned, y, 1 - y)
    z = torch.randn(n, 128, generator=generator)
    z[:, 0] += 2.0 * (y - 0.5)
    z[:, 1] += 4.0 * (a - 0.5)
    return z, y, 2 * y + a


def accuracies(fit: LatentFit, test: Set) -> tuple[float, float]:
    """Accuracy of the worst group, and mean over groups."""
    z, y, groups = test
    right = (fit.head(z).argmax(1) == y).double()
    each = [float(right[groups == g].mean()) for g in range(4)]
    return min(each), sum(each) / 4


def trained(method: str, seed: int, **changes: Any) -> tuple[float, float, float]:
    """Worst group, mean over groups, and the length of `lambda m` as a share of the latents' (root mean square)."""
    (z, y, groups), test = planted(2000, 0.95, seed), planted(8000, 0.5, 1000 + seed)
    settings = MethodSettings.for_method(method, seed=seed, **changes)
    columns = {"group": groups} if method.endswith("-oracle") else {}
    fit = fit_on_latents(method, z, y, num_labels=2, settings=settings, schedule=SCHEDULE, columns=columns)
    mask = fit.state.mask.double()
    moved = settings.lambda_ * float(mask.square().sum().sqrt()) / float(z.double().square().sum(1).mean().sqrt())
    return *accuracies(fit, test), moved


def averaged(method: str, **changes: Any) -> dict[str, float]:
    """The three numbers of `trained`, mean over seeds."""
    rows = [trained(method, seed, **changes) for seed in SEEDS]
    names = ("worst_group", "mean_over_groups", "noise_share")
    return {name: round(float(np.mean(values)), 5) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def on_latents() -> dict[str, dict[str, float]]:
    """Accuracies and noise of every reading, and of what it is compared with."""
    out = {name: averaged(name) for name in ("erm", "aifs", "reweight-oracle")}
    for kind, rule, scale, sign in product(ATTRIBUTIONS, RULES, SCALES, SIGNS):
        changes = {"attribution": kind, "mask_rule": rule, "mask_scale": scale, "sensitivity_sign": sign}
        name = f"{kind}/{rule}/{scale}/{sign:+d}"
        out[name] = averaged("aifs-paper", **changes)
        print(name, out[name], flush=True)
    for name, changes in (("invariance alone", {"beta": 0.0}), ("sensitivity alone", {"alpha": 0.0})):
        out[name] = averaged("aifs-paper", mask_scale="max", **changes)
    return out


def on_the_demo(name: str) -> dict[str, list[float]]:
    """Worst group and average through the trainer by seed: a reading `attribution/scale`, or plain training `erm`."""
    changes = {} if name == "erm" else dict(zip(("attribution", "mask_scale"), name.split("/"), strict=True))
    out: dict[str, list[float]] = {"worst_group": [], "average": []}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            method = "aifs-paper" if changes else "erm"
            settings = {**DEFAULTS, "method": method, "seed": seed, "output_dir": folder, "disable_tqdm": True}
            spec = FinetuneSpec(adapter="lora", dataset_options={"seed": seed})
            run = build_trainer(spec, AIFSTrainingArguments(**settings), callbacks=[])
            built = run.trainer.method
            run.trainer.method = type(built)(replace(built.settings, **changes))
            run.trainer.train()
            logits = np.asarray(run.trainer.predict(run.prepared["test"]).predictions, dtype=np.float64)
        metrics = evaluate_groups(run.splits["test"], logits, spec.n_boot, seed, run.splits["train"])
        out["worst_group"].append(round(float(metrics["worst_group_accuracy"]), 4))
        out["average"].append(round(float(metrics["average_accuracy"]), 4))
    return out


def main() -> None:
    """Measure what the file lacks; it is written after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="also through the trainer")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    record: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    record |= {"seeds": list(SEEDS), "provenance": provenance()}

    def save() -> None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")

    if "latents" not in record:
        record["latents"] = on_latents()
        save()
    for name in ("erm", *DEMO) if options.demo else ():
        if name not in record.setdefault("demo", {}):
            record["demo"][name] = on_the_demo(name)
            print(name, record["demo"][name], flush=True)
            save()


if __name__ == "__main__":
    main()
