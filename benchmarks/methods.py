"""Every training method on frozen latents, one hyper-parameter budget for all, selection without group labels.

    python benchmarks/methods.py --cache DIR [--data dominoes ...] [--methods erm ...]

For each method the same number of random settings (learning rate, weight decay, epochs and the method's own numbers)
is tried on development draws (seeds 100 and 101). The setting is chosen there by three rules, and each choice is
trained on the draws of seeds 0 to 4 and tested:

- `worst_inferred_group` (the rule of the tables): worst accuracy on validation over class x the bit of XRM's twins,
  one run of XRM per draw, shared by all methods;
- `worst_class`: worst accuracy on validation over classes;
- `oracle`: worst accuracy on validation over the true groups. A bound, shown in a column of that name only.

Test accuracies: worst group, and mean over groups. `aifs-closed` is `AIFSClassifier()` itself, which has nothing to
tune; `erm-closed` is its plain logistic regression. DIR holds the latents of `discovery_encode_mnist.py` and gets
those of SpuriousScenes. A cell that the output file already holds is not computed again.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods_data import DATA, Draw, Split
from numpy.typing import NDArray

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.errors import AIFSError
from aifs_peft.experiments import provenance
from aifs_peft.methods import get, names
from aifs_peft.methods.common.twins import TwinOptions, fit_twins
from aifs_peft.metrics import mean_interval
from aifs_peft.training.latent_trainer import LatentSchedule

RULES = ("worst_inferred_group", "worst_class", "oracle")
DEVELOPMENT = (100, 101)
# What a random setting draws besides the schedule: around each method's defaults, in its paper's ranges where it
# gives some (IRM, XRM: DomainBed and XRM's own; the others a decade or so either way).
SPACE: dict[str, dict[str, list[Any]]] = {
    "ags": {"alpha": [0.005, 0.02, 0.05, 0.15], "percentile": [10.0, 20.0], "warmup_epochs": [1, 5]},
    "afr": {"gamma": [1.0, 2.0, 4.0, 7.0, 10.0], "penalty": [0.0, 0.1, 0.3, 1.0]},
    "elrep": {"theta1": [1e-3, 1e-2, 1e-1], "theta2": [1e-4, 1e-3, 1e-2]},
    "gdro-oracle": {"eta": [1e-3, 1e-2, 1e-1], "adjustment": [0.0, 1.0, 3.0]},
    "irm": {"environments": ["eiil", "xrm"], "penalty": [1.0, 10.0, 100.0, 1e3, 1e4]},
    "jtt": {"lambda_up": [5.0, 20.0, 50.0, 100.0], "epochs": [5, 20, 40]},
    "leia": {"rank": [1, 2, 4], "gamma": [1.0, 3.0, 5.0, 10.0]},
    "lff": {"q": [0.5, 0.7, 0.9]},
    "neurontune": {"classes": ["all", "any"], "threshold": [0.0, 0.1, 0.3]},
    "rsc": {"feature_share": [0.1, 1 / 3, 0.5], "batch_share": [0.1, 1 / 3, 0.5]},
    "shortcutprobe": {"semantic_weight": [1.0, 5.0, 20.0], "spuriousness_weight": [1.0, 5.0, 20.0]},
    "spectral-decoupling": {"strength": [1e-3, 1e-2, 1e-1, 1.0]},
    "spume": {"temperature": [3.0, 10.0, 30.0], "shots": [5, 10, 20]},
    "ule": {"lambda2": [0.1, 1.0, 10.0], "student_lr_scale": [1.0, 10.0]},
    "ule-saliency": {"lambda1": [0.5, 1.0], "lambda2": [0.1, 1.0, 10.0]},
    "xrm-gdro": {"eta": [1e-3, 1e-2, 1e-1]},
}


def settings(method: str, budget: int) -> list[dict[str, Any]]:
    """Random settings; the first is the method's defaults. The schedules are the same for all methods."""
    schedules = np.random.default_rng(0)
    own = np.random.default_rng(1)
    drawn = []
    for i in range(budget):
        schedule = {
            "epochs": int(schedules.choice([10, 20, 40])),
            "learning_rate": float(10 ** schedules.uniform(-3.5, -2)),
            "weight_decay": float(10 ** schedules.uniform(-4, 0)),
        }
        space = SPACE.get(method, {})
        options = {name: own.choice(len(values)) for name, values in space.items()} if i else {}
        drawn.append({"schedule": schedule, "options": {n: space[n][int(k)] for n, k in options.items()}})
    return drawn


def worst(right: NDArray[np.bool_], cells: NDArray[np.int64], smallest: int = 1) -> float:
    """Lowest accuracy over cells of at least `smallest` examples."""
    sizes = np.bincount(cells)
    kept = [c for c in range(len(sizes)) if sizes[c] >= smallest]
    return float(min(right[cells == c].mean() for c in kept))


@functools.cache
def development(data: str, cache: Path) -> list[tuple[int, Draw, NDArray[np.int64]]]:
    """The draws on which settings are chosen, and XRM's bits of their validation examples."""
    draws = [(seed, DATA[data](seed, cache)) for seed in DEVELOPMENT]
    return [(seed, draw, inferred_bits(draw, seed)) for seed, draw in draws]


def inferred_bits(draw: Draw, seed: int) -> NDArray[np.int64]:
    """The bit of XRM's twins for each validation example."""
    reduction = principal_components(draw.train.Z, 256, rng=np.random.default_rng(seed))
    train, held = (torch.as_tensor(reduction.transform(s.Z)) for s in (draw.train, draw.validation))
    K = int(draw.train.y.max()) + 1
    twins = fit_twins(train, torch.as_tensor(draw.train.y), K, TwinOptions(), seed)
    return twins.mistakes(held, torch.as_tensor(draw.validation.y)).numpy()


def fit(method: str, draw: Draw, setting: dict[str, Any], seed: int) -> AIFSClassifier:
    """One training run; only methods with group labels in their description get any."""
    train = draw.train
    if method in ("aifs-closed", "erm-closed"):
        recipe = "discovery" if method == "aifs-closed" else "erm"
        return AIFSClassifier(recipe, random_state=seed).fit(train.Z, train.y)
    clf = AIFSClassifier(
        method, recipe_options=setting["options"], schedule=LatentSchedule(**setting["schedule"]), random_state=seed
    )
    groups = train.a if get(method).supervision == "groups" else None
    return clf.fit(train.Z, train.y, groups=groups)


def scores(clf: AIFSClassifier, part: Split, bits: NDArray[np.int64] | None) -> dict[str, float]:
    """Worst-group and mean-of-groups accuracy, and on validation what each rule looks at."""
    right = np.asarray(clf.predict(part.Z)) == part.y
    cells = part.y * (int(part.a.max()) + 1) + part.a
    if bits is None:
        present = np.unique(cells)
        return {"worst": worst(right, cells), "balanced": float(np.mean([right[cells == c].mean() for c in present]))}
    return {
        "worst_inferred_group": worst(right, 2 * part.y + bits, 10),
        "worst_class": worst(right, part.y),
        "oracle": worst(right, cells, 5),
    }


def choose(method: str, draws: list[tuple[int, Draw, NDArray[np.int64]]], budget: int) -> dict[str, Any]:
    """The setting each rule chooses on the development draws, and what every setting scored there."""
    tried = []
    for setting in settings(method, budget):
        values = {rule: [] for rule in RULES}
        for seed, draw, bits in draws:
            try:
                held = scores(fit(method, draw, setting, seed), draw.validation, bits)
            except AIFSError as error:
                held = dict.fromkeys(RULES, -1.0)
                setting = {**setting, "failed": str(error)[:200]}
            for rule in RULES:
                values[rule].append(held[rule])
        tried.append({**setting, **{rule: float(np.mean(v)) for rule, v in values.items()}})
    best = {rule: max(range(len(tried)), key=lambda i, r=rule: tried[i][r]) for rule in RULES}
    return {"tried": tried, "chosen": best}


def run(method: str, data: str, cache: Path, budget: int, seeds: int) -> dict[str, Any]:
    """One cell of the table: choice on development draws, five test draws."""
    load = DATA[data]
    closed = method.endswith("-closed")
    record: dict[str, Any] = {"tried": [{"schedule": {}, "options": {}}], "chosen": dict.fromkeys(RULES, 0)}
    if not closed:
        record = choose(method, development(data, cache), budget)
    if any("failed" in record["tried"][i] for i in record["chosen"].values()):
        return {**record, "failed": record["tried"][0].get("failed", "all settings failed")}
    rows = []
    for seed in range(seeds):
        draw = load(seed, cache)
        done: dict[int, dict[str, float]] = {}
        for index in sorted(set(record["chosen"].values())):
            started = time.perf_counter()
            clf = fit(method, draw, record["tried"][index], seed)
            seconds = time.perf_counter() - started
            done[index] = {**scores(clf, draw.test, None), "seconds": round(seconds, 3)}
        rows.append({rule: done[record["chosen"][rule]] for rule in RULES})
    summary = {}
    for rule in RULES:
        for name in ("worst", "balanced"):
            values = [row[rule][name] for row in rows]
            mean, low, high = mean_interval(values)
            summary[f"{rule}/{name}"] = {"mean": round(mean, 4), "interval": [round(low, 4), round(high, 4)]}
    return {**record, "rows": rows, "summary": summary}


def main() -> None:
    """Fill the missing cells; the file is rewritten after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--budget", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes; with more than one, set OMP_NUM_THREADS=1")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "methods.json")
    options = parser.parse_args()
    methods = options.methods or ["erm-closed", "aifs-closed", *(n for n in names() if get(n).on_latents)]
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"results": {}}
    record |= {"budget": options.budget, "development_seeds": DEVELOPMENT, "provenance": provenance()}
    missing = [(m, d) for d in options.data for m in methods if f"{d}/{m}" not in record["results"]]
    if "spurious_scenes" in options.data:  # encoded once, before two processes want the same file
        for seed in (*DEVELOPMENT, *range(options.seeds)):
            DATA["spurious_scenes"](seed, options.cache)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        rest = (options.cache, options.budget, options.seeds)
        cells = [pool.submit(run, method, data, *rest) for method, data in missing]
        for (method, data), cell in zip(missing, cells, strict=True):
            done = record["results"][f"{data}/{method}"] = cell.result()
            options.out.write_text(json.dumps(record, indent=1) + "\n")
            print(data, method, done.get("summary", "failed"), flush=True)


if __name__ == "__main__":
    main()
