"""Methods that need an encoder's patches, beside plain training, AIFS and an oracle, through the trainer on images.

    python benchmarks/methods_images.py

RaVL works on regions of images, so it has no row in `methods.py`. Here it tunes the embedded encoder (`tiny_clip`, LoRA
r = 8) with the settings of `scripts/finetune.py`, every method at its defaults, on *digits on scenes* and on ten-class
Colored MNIST (2,000 images), 95 % aligned; 5 seeds, tests with every attribute value equally often. The epoch is chosen
without group labels: by the worst inferred group where a method infers groups (`aifs`), else by the worst class. Not on
SpuriousScenes: this small encoder does not learn its classes in this budget, with group labels neither. Rows that the
output file already holds are not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from aifs_peft.cli.options import DEFAULTS
from aifs_peft.experiments import FinetuneSpec, provenance, run_finetune
from aifs_peft.metrics import mean_interval
from aifs_peft.training import AIFSTrainingArguments

RESULT = Path(__file__).parent / "results" / "methods_images.json"
SIZES = {"n_train": 2000, "n_validation": 500, "n_test": 2000}
METHODS = ("erm", "ravl", "aifs", "gdro-oracle")


def data_sets() -> dict[str, FinetuneSpec]:
    """What to train on; the seed is added per run."""
    shared = Path(os.environ.get("AIFS_SHARED", Path(__file__).parents[2] / "shared"))
    return {
        "digits_on_scenes": FinetuneSpec(baseline="none", audit=False),
        "colored_mnist": FinetuneSpec(
            dataset="colored_mnist",
            data_dir=str(shared / "data" / "mnist"),
            dataset_options=dict(SIZES),
            baseline="none",
            audit=False,
        ),
    }


def one(data: str, method: str, seed: int) -> dict[str, float]:
    """One run: worst group and average on the test set, seconds of training."""
    spec = data_sets()[data]
    spec.dataset_options["seed"] = seed
    with tempfile.TemporaryDirectory() as folder:
        settings = {**DEFAULTS, "method": method, "seed": seed, "output_dir": folder, "disable_tqdm": True}
        summary = run_finetune(spec, AIFSTrainingArguments(**settings), callbacks=[]).summary
    metrics = summary["metrics"]
    return {
        "worst": round(float(metrics["worst_group_accuracy"]), 4),
        "average": round(float(metrics["average_accuracy"]), 4),
        "seconds": round(summary["seconds"], 1),
    }


def summarise(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean and 95 % interval over seeds."""
    cells: dict[str, list[dict[str, float]]] = {}
    for key, row in rows.items():
        cells.setdefault(key.rsplit("/", 1)[0], []).append(row)
    out: dict[str, dict[str, Any]] = {}
    for cell, drawn in cells.items():
        for name in ("worst", "average"):
            mean, low, high = mean_interval(np.array([row[name] for row in drawn]))
            out.setdefault(cell, {"seeds": len(drawn)})[name] = [round(mean, 4), round(low, 4), round(high, 4)]
    return out


def main() -> None:
    """Run the missing rows; the file is rewritten after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--data", nargs="+", default=list(data_sets()))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    logging.set_verbosity_error()
    record = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    record["provenance"] = provenance()
    for data in options.data:
        for method in options.methods:
            for seed in range(options.seeds):
                key = f"{data}/{method}/{seed}"
                if key in record["rows"]:
                    continue
                record["rows"][key] = one(data, method, seed)
                record["summary"] = summarise(record["rows"])
                options.out.write_text(json.dumps(record, indent=1) + "\n")
                print(key, record["rows"][key], flush=True)


if __name__ == "__main__":
    main()
