"""What a head learns when, epoch by epoch: `python benchmarks/training_dynamics.py`.

A linear head on latents with a class (the core feature) and a stronger spurious attribute whose directions are known,
trained as it is by `erm`, `aifs` and `aifs-paper`, the last also with a mask whose largest entry is 1. *planted*:
Gaussian latents with 64 dimensions, contrasts of 2 and 5 standard deviations along two axes, n = 2,000. *rotated*: the
same, turned so that neither is an axis; AdamW is not indifferent to axes. *dominoes*: the latents of
`$AIFS_SHARED/data/dominoes_latents` in principal coordinates with one scale, n = 2,000; there the offsets of class and
attribute are the differences of the four cells' means on the test set.

Before the first step and after every epoch, on a test set with even cells:

- `sensitivity`, `reliance`: by how much the lead of class 1 over class 0 moves when the class, or the attribute, does;
- `core_share`, `spurious_share`: share of the decisions along the direction (`aifs_peft.explain`);
- `core_alone`, `spurious_alone`: accuracy where the other one is taken out of each latent (of the attribute, how often
  the head says the class that it stood for);
- `aligned`, `conflicting`: accuracy of the cells;

and on the training set, of the plain cross-entropy as a function of weights and biases:

- `curvature_top`: largest eigenvalue of the Hessian, by power iteration with Hessian-vector products;
- `curvature_core`, `curvature_spurious`, `curvature_mean`: curvature along the unit change of the weights that follows
  the direction, and its mean over all directions of the latents; `sharpness_*`: by how much the loss rises on average
  over a step of RADIUS to either side;
- `top_spurious`: squared cosine of that eigenvector with the change that follows the spurious direction;
- `mask_change`: share of the mask that an update moved (total variation of masks that sum to one);
  `mask_core`, `mask_spurious`: the mask's entry in the direction, in units of its mean (where the mask has axes).

What the file holds is not computed again; it is written after each run. Docs: `docs/dynamics.md`, filled in by
`benchmarks/render_dynamics.py`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dynamics_cases import CORE, SPURIOUS, TRAIN, WIDTH, Planted, load
from dynamics_curvature import along, curvature_along, top_curvature
from dynamics_measures import MaskWatch, of_decisions
from dynamics_series import STILL, Pairs, Series, converged, half_time, save, tested
from torch import Tensor, nn

from aifs_peft.experiments import provenance
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods import MethodSettings
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents

RESULT = Path(__file__).parent / "results" / "training_dynamics.json"
SCHEDULE = LatentSchedule(epochs=30)
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "erm": ("erm", {}),
    "aifs": ("aifs", {}),
    "aifs-paper": ("aifs-paper", {}),
    "aifs-paper, largest 1": ("aifs-paper", {"mask_scale": "max"}),
}
CASES = ("planted 0.9", "planted 0.95", "rotated 0.95", "dominoes 0.95")
SEEDS = tuple(range(8))
RADIUS = 0.5


class Watcher:
    """Looks at the head after every epoch; see this module's text."""

    def __init__(self, data: Planted) -> None:
        self.data = data
        self.z, self.core, self.spurious = data.z.double(), *(v / v.norm() for v in (data.alpha, data.beta))
        self._vector = torch.randn(2 * data.z.shape[1] + 2, generator=torch.Generator().manual_seed(0)).double()
        self._masks = MaskWatch()

    def __call__(self, _: int, head: nn.Module, state: AIFSState) -> Mapping[str, float]:
        """Numbers of one epoch."""
        decisions = of_decisions(head, self.data.test, self.data.alpha, self.data.beta)
        numbers = {**decisions, **self._loss(head), **self._masks(state, self.core, self.spurious)}
        return {name: float(f"{value:.3g}") for name, value in numbers.items()}

    def _loss(self, head: nn.Module) -> dict[str, float]:
        z, y, width = self.z, self.data.y, self.z.shape[1]
        weight, bias = (p.detach().double() for p in (head.weight, head.bias))  # type: ignore[operator]
        at = torch.cat([weight.flatten(), bias])

        def loss(parameters: Tensor) -> Tensor:
            return F.cross_entropy(F.linear(z, parameters[:-2].view(2, width), parameters[-2:]), y)

        top, self._vector = top_curvature(torch.func.grad(loss), at, self._vector)
        logits = F.linear(z, weight, bias)
        margin = logits[:, 1] - logits[:, 0]
        numbers = {"loss": float(loss(at)), "curvature_top": top}
        numbers["curvature_mean"] = curvature_along(margin, z.norm(dim=1)) / width
        for name, direction in (("core", self.core), ("spurious", self.spurious)):
            change = along(direction)
            numbers[f"curvature_{name}"] = curvature_along(margin, z @ direction.double())
            sides = [float(loss(at + sign * RADIUS * change)) for sign in (1, -1)]
            numbers[f"sharpness_{name}"] = sum(sides) / 2 - numbers["loss"]
        numbers["top_spurious"] = float(self._vector @ change) ** 2
        return numbers


def run(case: str, method: str, seed: int) -> dict[str, list[float | None]]:
    """The series of one training by name, one number for each epoch from 0."""
    data = load(case, seed)
    name, changes = METHODS[method]
    settings = MethodSettings.for_method(name, seed=seed, **changes)
    watch = Watcher(data)
    fit = fit_on_latents(name, data.z, data.y, num_labels=2, settings=settings, schedule=SCHEDULE, watch=watch)
    names = sorted({key for row in fit.history for key in row if key in KEPT})
    return {key: [row.get(key) for row in fit.history if "sensitivity" in row] for key in names}


KEPT = {
    "sensitivity", "reliance", "core_share", "spurious_share", "core_alone", "spurious_alone", "aligned", "conflicting",
    "curvature_top", "curvature_mean", "curvature_core", "curvature_spurious", "sharpness_core", "sharpness_spurious",
    "top_spurious", "mask_change", "mask_core", "mask_spurious",
}  # fmt: skip


def questions(methods: Mapping[str, list[Series]]) -> Pairs:
    """Pairs of numbers over seeds, by the name of the question."""
    erm, aifs = methods["erm"], methods["aifs"]

    def last(runs: list[Series], name: str) -> list[float]:
        return [float(run[name][-1] or 0.0) for run in runs]

    def kept(runs: list[Series], name: str) -> list[float]:
        return [float(run[name][-1] or 0.0) / max(float(v or 0.0) for v in run[name]) for run in runs]

    pairs = {
        "core learned later": tuple([half_time(r[key]) for r in erm] for key in ("sensitivity", "reliance")),
        "core accuracy later": tuple(
            [half_time([float(v or 0.0) - 0.5 for v in r[key]], 0.9) for r in erm]
            for key in ("core_alone", "spurious_alone")
        ),
        "core share at the end": (last(aifs, "core_share"), last(erm, "core_share")),
        "spurious share at the end": (last(aifs, "spurious_share"), last(erm, "spurious_share")),
        "core share kept": (kept(aifs, "core_share"), kept(erm, "core_share")),
        "core accuracy at the end": (last(aifs, "core_alone"), last(erm, "core_alone")),
    }
    for method, runs in methods.items():
        for what in ("curvature", "sharpness"):
            pairs[f"log {what}, spurious over core, {method}"] = (
                [math.log(v) for v in last(runs, f"{what}_spurious")],
                [math.log(v) for v in last(runs, f"{what}_core")],
            )
    pairs["log top curvature, aifs over erm"] = tuple(
        [math.log(v) for v in last(runs, "curvature_top")] for runs in (aifs, erm)
    )
    return pairs  # type: ignore[return-value]


def summarise(record: dict[str, Any]) -> None:
    """Tests of each case over its seeds, corrected for all of them together, and when masks stand still."""
    record["runs"] = {case: record["runs"][case] for case in CASES if case in record["runs"]}
    asked: dict[str, Pairs] = {}
    record["masks"] = {}
    for case, methods in record["runs"].items():
        series = {m: [Series(one) for one in seeds.values()] for m, seeds in methods.items()}
        if set(series) != set(METHODS) or min(map(len, series.values())) < 2:
            continue  # a case that is not complete yet
        asked[case] = questions(series)
        for method, runs in series.items():
            if "mask_change" in runs[0]:
                record["masks"][f"{case}/{method}"] = [converged(one["mask_change"]) for one in runs]
    record["tests"] = tested(asked)


def main() -> None:
    """Run what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    record: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"runs": {}}
    record["settings"] = {"epochs": SCHEDULE.epochs, "batch_size": SCHEDULE.batch_size, "width": WIDTH, "train": TRAIN,
                          "learning_rate": SCHEDULE.learning_rate, "weight_decay": SCHEDULE.weight_decay, "core": CORE,
                          "spurious": SPURIOUS, "radius": RADIUS, "still": STILL}  # fmt: skip
    for case in options.cases:
        for seed in options.seeds:
            for method in METHODS:
                runs = record["runs"].setdefault(case, {}).setdefault(method, {})
                if str(seed) not in runs:
                    runs[str(seed)] = run(case, method, seed)
                    record["provenance"] = provenance()
                    save(record, options.out)
            print(case, seed, flush=True)
    summarise(record)
    save(record, options.out)


if __name__ == "__main__":
    main()
