"""`aifs demo`: ERM and AIFS on the embedded data, the same budget for each, one table."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging

from aifs_peft.cli.options import DEFAULTS
from aifs_peft.experiments import FinetuneSpec, markdown_table, run_finetune, summarise
from aifs_peft.training import AIFSTrainingArguments

METHODS = ("erm", "aifs-paper", "aifs")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aifs demo", description=__doc__)
    parser.add_argument("--output-dir", default="runs/demo", help="where summary.json goes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--epochs", type=float, default=DEFAULTS["num_train_epochs"])
    parser.add_argument("--adapter", default="lora", help="none, lora, dora, rslora, ia3 or full")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run every method over every seed, print the table, write `summary.json`."""
    options = _parser().parse_args(argv)
    output = Path(options.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    logging.set_verbosity_error()  # the table is the output; a run's own lines are for `aifs finetune`
    started = time.perf_counter()
    runs: dict[str, list[dict[str, object]]] = {method: [] for method in options.methods}
    for seed in options.seeds:
        for method in options.methods:
            spec = FinetuneSpec(adapter=options.adapter, dataset_options={"seed": seed})
            settings = {**DEFAULTS, "num_train_epochs": options.epochs, "method": method, "seed": seed}
            settings |= {"output_dir": str(output / f"{method}-{seed}"), "disable_tqdm": True}
            summary = run_finetune(spec, AIFSTrainingArguments(**settings), callbacks=[]).summary
            runs[method].append(summary)
            worst = summary["metrics"]["worst_group_accuracy"]
            print(f"seed {seed}  {method:<12} worst group {worst:.3f}  {summary['seconds']:.1f} s", flush=True)
    summary = summarise("digits_on_scenes", options.seeds, runs)
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"\n{markdown_table(summary)}\n\n{output / 'summary.json'}  ({time.perf_counter() - started:.0f} s)")
    return 0
