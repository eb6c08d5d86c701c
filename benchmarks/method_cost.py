"""What each method costs beside ERM: time and peak memory of a LoRA training of the embedded encoder.

    python benchmarks/method_cost.py [--epochs 2] [--rounds 3]

Each run is a process of its own on *digits on scenes* (1,200 images, batch 32, LoRA r = 8 on `tiny_clip`), the methods
taken in turn within a round, so that a busy minute hits all of them. Time: the whole of `train`, what a method does
before the first step and after the last one included. Memory: the process's peak resident size less what it had before
training. Medians over rounds, as ratios to ERM's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "method_cost.json"


def one(method: str, epochs: float) -> dict[str, float]:
    """Train once in this process."""
    from aifs_peft.cli.options import DEFAULTS
    from aifs_peft.experiments import FinetuneSpec
    from aifs_peft.experiments.build import build_trainer
    from aifs_peft.methods import get
    from aifs_peft.training import AIFSTrainingArguments

    head = "mlp" if get(method).latent_head == "mlp" else "copy"
    with tempfile.TemporaryDirectory() as folder:
        settings = {**DEFAULTS, "method": method, "num_train_epochs": epochs, "output_dir": folder}
        settings |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
        settings |= {"disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
        trainer = build_trainer(FinetuneSpec(head=head), AIFSTrainingArguments(**settings)).trainer
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "megabytes": (peak - before) / 1024.0, "steps": float(trainer.state.global_step)}


def main() -> None:
    """Run all methods in turn and write the ratios."""
    from aifs_peft.experiments import provenance
    from aifs_peft.methods import names

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=names())
    parser.add_argument("--one", default=None, help="run one method in this process and print its numbers")
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(one(options.one, options.epochs)))
        return
    runs: dict[str, list[dict[str, float]]] = {
        name: [] for name in ("erm", *(m for m in options.methods if m != "erm"))
    }
    for _ in range(options.rounds):
        for name, done in runs.items():
            command = [sys.executable, __file__, "--one", name, "--epochs", str(options.epochs)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            done.append(json.loads(output.strip().splitlines()[-1]))
            print(name, done[-1], flush=True)
    RESULT.write_text(json.dumps({**summary(runs), "provenance": provenance()}, indent=1) + "\n")


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over rounds, and ratios to ERM's within each round."""
    out: dict[str, Any] = {"rounds": len(runs["erm"]), "methods": {}}
    for name, done in runs.items():
        ratio = [mine["seconds"] / base["seconds"] for mine, base in zip(done, runs["erm"], strict=True)]
        extra = [mine["megabytes"] - base["megabytes"] for mine, base in zip(done, runs["erm"], strict=True)]
        out["methods"][name] = {
            "seconds": round(float(np.median([run["seconds"] for run in done])), 2),
            "time_ratio": round(float(np.median(ratio)), 3),
            "time_ratio_range": [round(min(ratio), 3), round(max(ratio), 3)],
            "extra_megabytes": round(float(np.median(extra)), 1),
            "steps": int(done[0]["steps"]),
        }
    return out


if __name__ == "__main__":
    main()
