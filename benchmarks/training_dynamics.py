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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aifs_peft.bench.statistics import holm, paired
from aifs_peft.experiments import provenance
from aifs_peft.explain.share import mean_share
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
CORE, SPURIOUS, WIDTH, TRAIN, TEST = 2.0, 5.0, 64, 2000, 4000
RADIUS = 0.5
# A mask has converged from the update on after which none moves more than this share of it.
STILL = 0.01


@dataclass(frozen=True)
class Planted:
    """Latents and what is known of them.

    Attributes:
        z: training latents `(n, d)`.
        y: their labels.
        test: latents, labels and attribute values of the test set, with even cells.
        alpha: `(d,)`, what the class moves a latent by.
        beta: `(d,)`, what the attribute moves it by.
    """

    z: Tensor
    y: Tensor
    test: tuple[Tensor, Tensor, Tensor]
    alpha: Tensor
    beta: Tensor


def planted(share: float, seed: int) -> Planted:
    """Gaussian latents, the class along the first axis and the attribute along the second."""
    generator = torch.Generator().manual_seed(seed)
    alpha, beta = torch.zeros(WIDTH), torch.zeros(WIDTH)
    alpha[0], beta[1] = CORE, SPURIOUS

    def draw(n: int, aligned: float) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.randint(2, (n,), generator=generator)
        a = torch.where(torch.rand(n, generator=generator) < aligned, y, 1 - y)
        z = torch.randn(n, WIDTH, generator=generator)
        return z + (y[:, None] - 0.5) * alpha + (a[:, None] - 0.5) * beta, y, a

    z, y, _ = draw(TRAIN, share)
    return Planted(z, y, draw(TEST, 0.5), alpha, beta)


def rotated(share: float, seed: int) -> Planted:
    """The planted latents, turned at random."""
    plain, generator = planted(share, seed), torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    test = (plain.test[0] @ turn, *plain.test[1:])
    return Planted(plain.z @ turn, plain.y, test, plain.alpha @ turn, plain.beta @ turn)


def dominoes(share: float, seed: int) -> Planted:
    """Dominoes in principal coordinates with one scale, as `AIFSClassifier` trains on them."""
    from discovery_dominoes import dominoes as draw

    from aifs_peft.discovery.principal_components import principal_components

    (z, y, _), (z_test, y_test, a_test) = draw(share, seed)
    rows = np.random.default_rng(seed).permutation(len(y))[:TRAIN]
    reduction = principal_components(z[rows], rng=np.random.default_rng(seed))
    scale = reduction.scale / np.sqrt(np.mean(reduction.scale**2))
    train, test = (torch.as_tensor(reduction.transform(part) * scale).float() for part in (z[rows], z_test))
    y_t, a_t = torch.as_tensor(y_test), torch.as_tensor(a_test)
    means = torch.stack([test[(y_t == k) & (a_t == v)].mean(0) for k in (0, 1) for v in (0, 1)]).view(2, 2, -1)
    alpha, beta = (means[1] - means[0]).mean(0), (means[:, 1] - means[:, 0]).mean(0)
    return Planted(train, torch.as_tensor(y[rows]), (test, y_t, a_t), alpha, beta)


def load(case: str, seed: int) -> Planted:
    """The draw of a case."""
    name, share = case.split()
    return {"planted": planted, "rotated": rotated, "dominoes": dominoes}[name](float(share), seed)


def top_curvature(
    gradient: Callable[[Tensor], Tensor], at: Tensor, start: Tensor, *, most: int = 300, tolerance: float = 1e-5
) -> tuple[float, Tensor]:
    """Largest eigenvalue of a Hessian without a negative one, and its eigenvector, by power iteration.

    Args:
        gradient: of the loss, at a vector of all parameters.
        at: the parameters `(p,)`.
        start: where the iteration starts, `(p,)`.
        most: iterations.
        tolerance: length of `H v - c v`, as a share of the curvature `c`, at which it ends.
    """
    vector, value = start / start.norm(), 0.0
    times_hessian = torch.func.vjp(gradient, at)[1]  # it is symmetric, so either side will do
    for _ in range(most):
        (product,) = times_hessian(vector)
        value = float(vector @ product)
        if float((product - value * vector).norm()) <= tolerance * value:
            break
        vector = product / product.norm()
    return value, vector


def along(direction: Tensor) -> Tensor:
    """The unit change of weights and biases `(2 d + 2,)` that lets the head follow a unit direction `(d,)`."""
    half = direction.double() / math.sqrt(2)
    return torch.cat([-half, half, half.new_zeros(2)])


def curvature_along(margin: Tensor, projection: Tensor) -> float:
    """Curvature of two classes' cross-entropy along `along(u)`: `2 mean p (1 - p) (u' z)^2`."""
    p = torch.sigmoid(margin)
    return float(2 * (p * (1 - p) * projection.square()).mean())


class Watcher:
    """Looks at the head after every epoch; see this module's text."""

    def __init__(self, data: Planted) -> None:
        self.data = data
        self.z, self.core, self.spurious = data.z.double(), *(v / v.norm() for v in (data.alpha, data.beta))
        self._vector = torch.randn(2 * data.z.shape[1] + 2, generator=torch.Generator().manual_seed(0)).double()
        self._mask: Tensor | None = None

    def __call__(self, _: int, head: nn.Module, state: AIFSState) -> Mapping[str, float]:
        """Numbers of one epoch."""
        numbers = {**self._on_the_test_set(head), **self._loss(head), **self._masks(state)}
        return {name: float(f"{value:.3g}") for name, value in numbers.items()}

    def _on_the_test_set(self, head: nn.Module) -> dict[str, float]:
        (z, y, a), alpha, beta = self.data.test, self.data.alpha, self.data.beta
        weight = head.weight[1] - head.weight[0]  # type: ignore[index]

        def right(latents: Tensor, target: Tensor) -> Tensor:
            return head(latents).argmax(1).eq(target).double()  # type: ignore[no-any-return]

        hit = right(z, y)
        return {
            "sensitivity": float(weight @ alpha),
            "reliance": float(weight @ beta),
            "core_share": mean_share(head, z, z.mean(0), self.core[:, None]),
            "spurious_share": mean_share(head, z, z.mean(0), self.spurious[:, None]),
            "core_alone": float(right(z - (a[:, None] - 0.5) * beta, y).mean()),
            "spurious_alone": float(right(z - (y[:, None] - 0.5) * alpha, a).mean()),
            "aligned": float(hit[y == a].mean()),
            "conflicting": float(hit[y != a].mean()),
        }

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

    def _masks(self, state: AIFSState) -> dict[str, float]:
        mask = state.mask.double()
        if float(mask.sum()) == 0:
            return {}
        mask = mask / mask.sum()
        numbers = {}
        if self._mask is not None and self._mask.shape == mask.shape:
            numbers["mask_change"] = float((mask - self._mask).abs().sum() / 2)
        self._mask = mask
        if not state.has_basis:
            for name, direction in (("core", self.core), ("spurious", self.spurious)):
                numbers[f"mask_{name}"] = float(mask @ direction.double().square()) * len(mask)
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
Series = dict[str, list[float | None]]


def half_time(values: list[float | None], share: float = 0.5) -> float:
    """Epochs until a series first has this share of its last value, between epochs on a straight line."""
    series = np.abs(np.asarray(values, dtype=float))
    goal = share * series[-1]
    after = int(np.argmax(series >= goal))
    if after == 0:
        return 0.0
    before = series[after - 1]
    return float(after - 1 + (goal - before) / (series[after] - before))


def converged(changes: list[float | None]) -> int | None:
    """The epoch from which on no update moves more than STILL of the mask; None where the last one does."""
    moving = [epoch for epoch, change in enumerate(changes) if change is None or change > STILL]
    first = (max(moving) + 1) if moving else 0
    return first if first < len(changes) else None


def questions(methods: Mapping[str, list[Series]]) -> dict[str, tuple[list[float], list[float]]]:
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
    tests: list[dict[str, Any]] = []
    record["masks"] = {}
    for case, methods in record["runs"].items():
        series = {m: [Series(one) for one in seeds.values()] for m, seeds in methods.items()}
        if set(series) != set(METHODS) or min(map(len, series.values())) < 2:
            continue  # a case that is not complete yet
        for name, (a, b) in questions(series).items():
            mean, low, high, p = paired(a, b)
            tests.append({"case": case, "question": name, "first": float(np.mean(a)), "second": float(np.mean(b)),
                          "difference": mean, "low": low, "high": high, "p": p, "seeds": len(a)})  # fmt: skip
        for method, runs in series.items():
            if "mask_change" in runs[0]:
                record["masks"][f"{case}/{method}"] = [converged(one["mask_change"]) for one in runs]
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["corrected"] = p
    record["tests"] = [{k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in t.items()} for t in tests]


def save(record: dict[str, Any], path: Path) -> None:
    """Write the record, a series in one line."""
    text = json.dumps(record, indent=1)
    lists = json.JSONDecoder()
    out, place = [], 0
    while (start := text.find("[", place)) >= 0:
        content, end = lists.raw_decode(text, start)
        plain = all(not isinstance(v, dict | list) for v in content)
        out.append(text[place:start] + (json.dumps(content) if plain else "["))
        place = end if plain else start + 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join([*out, text[place:]]) + "\n")


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
