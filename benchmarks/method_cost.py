"""What each method costs beside ERM: time and peak memory of a LoRA training of the embedded encoder, and its parts.

    python benchmarks/method_cost.py [--rounds 3]        # all methods; rounds that the file holds already are kept
    python benchmarks/method_cost.py --methods erm aifs --epochs 5 --rounds 5 \
        --output benchmarks/results/performance/whole_training.json

Each run is a process of its own on *digits on scenes* (1,200 images, batch 32, LoRA r = 8 on `tiny_clip`, one thread),
the methods taken in turn within a round, so that a busy minute hits all of them. Time: the processor's, of the whole of
`train`, what a method does before the first step and after the last one included. Memory: the process's peak resident
size less what it had before training. Medians over rounds, as ratios to ERM's of the same round.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "method_cost.json"
# What is measured apart: the name in the result, and the method of `EpochRunner`.
PARTS = {"before": "begin_training", "epochs_ends": "finish_epoch", "after": "finish_training"}


class Stopwatch:
    """Processor's time of some methods' calls, and of others' within them.

    Args:
        within: number each inner call under this name and the part that it belongs to.
    """

    def __init__(self, within: str) -> None:
        self.spent: Counter[str] = Counter()
        self._within, self._part = within, "elsewhere"

    def measure(self, owner: type, name: str, part: str | None = None) -> None:
        """Time a method's calls: as a part of the training, or with None as what is counted within the parts."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def call(*given: Any, **options: Any) -> Any:
            outer, started = self._part, time.process_time()
            self._part = part or outer
            try:
                return function(*given, **options)
            finally:
                self._part = outer
                self.spent[part or f"{self._within}_{outer}"] += time.process_time() - started

        setattr(owner, name, call)


def one(method: str, epochs: float) -> dict[str, float]:
    """Train once in this process."""
    import torch

    from aifs_peft.cli.options import DEFAULTS
    from aifs_peft.experiments import FinetuneSpec
    from aifs_peft.experiments.build import build_trainer
    from aifs_peft.methods import get
    from aifs_peft.training import AIFSTrainingArguments
    from aifs_peft.training.encoding import EncodingPasses
    from aifs_peft.training.epoch_runner import EpochRunner

    torch.set_num_threads(1)
    watch = Stopwatch("encoding")
    for part, name in PARTS.items():
        watch.measure(EpochRunner, name, part)
    watch.measure(EncodingPasses, "latents_of")
    head = "mlp" if get(method).latent_head == "mlp" else "copy"
    with tempfile.TemporaryDirectory() as folder:
        settings = {**DEFAULTS, "method": method, "num_train_epochs": epochs, "output_dir": folder}
        settings |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
        settings |= {"disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
        trainer = build_trainer(FinetuneSpec(head=head), AIFSTrainingArguments(**settings)).trainer
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        clock, started = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, clock = time.process_time() - started, time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = {"seconds": seconds, "clock": clock, **dict.fromkeys(PARTS, 0.0), **watch.spent}
    rounded = {name: round(value, 3) for name, value in run.items()}
    return {**rounded, "megabytes": round((peak - before) / 1024.0, 1), "steps": float(trainer.state.global_step)}


def main() -> None:
    """Run all methods in turn and write the ratios."""
    from aifs_peft.methods import names

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=names())
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--fresh", action="store_true", help="measure again what the file holds already")
    parser.add_argument("--one", default=None, help="run one method in this process and print its numbers")
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(one(options.one, options.epochs)))
        return
    held = {} if options.fresh or not options.output.exists() else json.loads(options.output.read_text())
    runs: dict[str, list[dict[str, float]]] = dict(held["runs"]) if held.get("epochs") == options.epochs else {}
    wanted = ["erm", *(name for name in options.methods if name != "erm")]
    for number in range(options.rounds):
        for name in wanted:
            done = runs.setdefault(name, [])
            if len(done) > number:
                continue
            command = [sys.executable, __file__, "--one", name, "--epochs", str(options.epochs)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            done.append({**json.loads(output.strip().splitlines()[-1]), "load": round(os.getloadavg()[0], 1)})
            print(name, done[-1], flush=True)
            write(options.output, options.epochs, runs)


def write(output: Path, epochs: float, runs: dict[str, list[dict[str, float]]]) -> None:
    """The runs so far, and what they say where each method has as many as ERM."""
    from aifs_peft.experiments import provenance

    content = {"epochs": epochs, **summary(runs), "runs": runs, "provenance": provenance()}
    output.write_text(json.dumps(content, indent=1) + "\n")


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over rounds, and ratios to ERM's within each round."""
    out: dict[str, Any] = {"rounds": min(len(done) for done in runs.values() if done), "methods": {}}
    for name, done in runs.items():
        if not done:
            continue
        pairs = list(zip(done, runs["erm"], strict=False))
        ratio = [mine["seconds"] / base["seconds"] for mine, base in pairs]
        later = [(mine["seconds"] - mine.get("encoding_before", 0.0)) / base["seconds"] for mine, base in pairs]
        extra = [mine["megabytes"] - base["megabytes"] for mine, base in pairs]
        out["methods"][name] = {
            "seconds": round(float(np.median([run["seconds"] for run in done])), 2),
            "time_ratio": round(float(np.median(ratio)), 3),
            "time_ratio_range": [round(min(ratio), 3), round(max(ratio), 3)],
            # The pass of the encoder before the first step is one per data set, however long the training is.
            "after_first_pass": round(float(np.median(later)), 3),
            "extra_megabytes": round(float(np.median(extra)), 1),
            "steps": int(done[0]["steps"]),
        }
    return out


if __name__ == "__main__":
    main()
