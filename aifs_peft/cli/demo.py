"""`aifs demo`: ERM and AIFS on the embedded data, the same budget for each, one table."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from aifs_peft.cli.mistakes import command
from aifs_peft.cli.option import Option
from aifs_peft.cli.options import DEFAULTS, check_output_dir
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import Progress, print_json, quiet_libraries
from aifs_peft.experiments.spec import ADAPTERS

METHODS = ["erm", "aifs-paper", "aifs"]
_GROUP = "Demo"
_OPTIONS = (
    Option("methods", "list", METHODS, "methods to compare; `aifs methods` lists them", _GROUP),
    Option("seeds", "ints", [0, 1, 2], "one run of each method per seed", _GROUP, {"low": 0}),
    Option("epochs", "float", DEFAULTS["num_train_epochs"], "passes over the training set", _GROUP,
           {"low": 0, "above": True}),
    Option("adapter", "str", "lora", "how the encoder is tuned", _GROUP, {"choices": ADAPTERS}),
    Option("output_dir", "str", "runs/demo", "where summary.json goes", "Output"),
    *OUTPUT,
)  # fmt: skip


@command
def main(argv: Sequence[str]) -> int:
    """Run every method over every seed, print the table, write `summary.json`."""
    given = Parser("demo", "Compare training methods on the embedded data.", _OPTIONS).values(argv)
    check_output_dir(given.output_dir)
    output, say = Path(given.output_dir), Progress(quiet=given.quiet)
    quiet_libraries()
    from aifs_peft.experiments import FinetuneSpec, markdown_table, run_finetune, summarise
    from aifs_peft.methods import get
    from aifs_peft.training import AIFSTrainingArguments

    for method in given.methods:
        get(method)  # a misspelt one is told before the first is trained
    output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    runs: dict[str, list[dict[str, object]]] = {method: [] for method in given.methods}
    for seed in given.seeds:
        for method in given.methods:
            spec = FinetuneSpec(adapter=given.adapter, dataset_options={"seed": seed})
            settings = {**DEFAULTS, "num_train_epochs": given.epochs, "method": method, "seed": seed}
            settings |= {"output_dir": str(output / f"{method}-{seed}"), "disable_tqdm": True}
            summary = run_finetune(spec, AIFSTrainingArguments(**settings), callbacks=[]).summary
            runs[method].append(summary)
            worst = summary["metrics"]["worst_group_accuracy"]
            say(f"seed {seed}  {method:<12} worst group {worst:.3f}  {summary['seconds']:.1f} s")
    summary = summarise("digits_on_scenes", given.seeds, runs)
    (output / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    if given.json:
        print_json(summary)
        return 0
    print(f"\n{markdown_table(summary)}\n\n{output / 'summary.json'}  ({time.perf_counter() - started:.0f} s)")
    return 0
