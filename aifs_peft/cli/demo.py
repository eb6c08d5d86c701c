"""`aifs demo`: ERM and AIFS on the embedded data, the same budget for each, one table."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifs_peft.cli.finetune import write_run
from aifs_peft.cli.mistakes import command
from aifs_peft.cli.option import Option
from aifs_peft.cli.options import DEFAULTS, check_output_dir
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import Progress, print_json, quiet_libraries
from aifs_peft.experiments.spec import ADAPTERS

if TYPE_CHECKING:
    from aifs_peft.experiments import FinetuneResult
    from aifs_peft.experiments.baseline import Plain

METHODS = ["erm", "aifs-paper", "aifs"]
_GROUP = "Demo"
_DESCRIPTION = "Compare training methods on data that ship with this package: nothing is downloaded."
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
    """Run every method over every seed, print the table, write `summary.json` and the report of one run."""
    given = Parser("demo", _DESCRIPTION, _OPTIONS).values(argv)
    check_output_dir(given.output_dir)
    output, say = Path(given.output_dir), Progress(quiet=given.quiet)
    quiet_libraries()
    from aifs_peft.experiments import markdown_table, summarise
    from aifs_peft.experiments.run import plain_of
    from aifs_peft.methods import get
    from aifs_peft.report import write_report

    for method in given.methods:
        get(method)  # a misspelt one is told before the first is trained
    output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in given.methods}
    shown = "aifs" if "aifs" in given.methods else given.methods[-1]
    report = None
    for seed in given.seeds:
        plain = None
        for method in given.methods:
            told = method == shown and seed == given.seeds[0]
            result = _run(method, seed, given, plain, audit=told)
            runs[method].append(result.summary)
            worst = result.summary["metrics"]["worst_group_accuracy"]
            say(f"seed {seed}  {method:<12} worst group {worst:.3f}  {result.summary['seconds']:.1f} s")
            if method == "erm":
                plain = plain_of(result)
            if told:
                report = write_report(write_run(result, output / f"{method}-{seed}", say))
    summary = summarise("digits_on_scenes", given.seeds, runs)
    (output / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    say(f"{output / 'summary.json'}  ({time.perf_counter() - started:.0f} s)")
    if given.json:
        print_json({**summary, "report": str(report)})
    else:
        print(f"\n{markdown_table(summary)}\n\n{report}")
    return 0


def _run(method: str, seed: int, given: Namespace, plain: Plain | None, *, audit: bool) -> FinetuneResult:
    """One method with one seed on the embedded data; the audit is made once, for the run that is reported."""
    from aifs_peft.experiments import FinetuneSpec, run_finetune
    from aifs_peft.training import AIFSTrainingArguments

    spec = FinetuneSpec(adapter=given.adapter, dataset_options={"seed": seed}, baseline="none", audit=audit)
    settings = {**DEFAULTS, "num_train_epochs": given.epochs, "method": method, "seed": seed}
    settings |= {"output_dir": str(Path(given.output_dir) / f"{method}-{seed}"), "disable_tqdm": True}
    return run_finetune(spec, AIFSTrainingArguments(**settings), callbacks=[], plain=plain)
