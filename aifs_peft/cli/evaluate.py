"""`aifs evaluate RUN`: a trained adapter on a data set, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aifs_peft.cli.data_options import data_options, part_option
from aifs_peft.cli.mistakes import command
from aifs_peft.cli.option import Option
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import Progress, print_json, quiet_libraries

_DESCRIPTION = "Evaluate the adapter of a run, on its own test split or on other data."
_DATA = ("dataset", "data_dir", "dataset_options", "image", "text", "features", "label", "attribute",
         "split", "test_share")  # fmt: skip
_OPTIONS = (
    Option("dataset", "str", None, "a known data set, or your own data; left out: that of the run", "Model and data"),
    *data_options(skip=("dataset",)),
    part_option(None, "which rows are read; left out: all of your own data, the test split of a known data set"),
    Option("trust_remote_code", "bool", False, "run model code that comes from the Hub", "Model and data"),
    Option("n_boot", "int", 0, "bootstrap replicates for intervals that have no exact form", "Result", {"low": 0}),
    Option("batch_size", "int", 64, "examples per forward pass", "Result", {"low": 1}),
    Option("use_cpu", "bool", False, "do not use an accelerator that is there", "Result"),
    *OUTPUT,
)


@command
def main(argv: Sequence[str]) -> int:
    """Print the table of cells."""
    positional = [("run", "folder that `aifs finetune` wrote", None)]
    given = Parser("evaluate", _DESCRIPTION, _OPTIONS, positional=positional).values(argv)
    quiet_libraries()
    from aifs_peft.experiments.saved import evaluate_run, load_run
    from aifs_peft.experiments.telling import comparison_table

    say = Progress(quiet=given.quiet)
    run = load_run(given.run, trust_remote_code=given.trust_remote_code, use_cpu=given.use_cpu)
    spec, rows, part = _rows(given, run.summary)
    say(f"evaluating {run.summary['method']} on {len(rows):,} examples")
    result = evaluate_run(run, rows, n_boot=given.n_boot, batch_size=given.batch_size)
    result = {"run": str(run.folder), "dataset": spec.dataset, "part": part, **result}
    if given.json:
        print_json(result)
        return 0
    comparison = result["comparison"]
    print(f"{run.summary['method']} of {run.folder} on {spec.dataset} ({part}): {result['n']:,} examples\n")
    print(comparison_table(comparison, run.summary["method"]))
    print("\n".join(["", *comparison["sentences"], *(f"note: {text}" for text in comparison["warnings"])]))
    return 0


def _rows(given: Any, summary: dict[str, Any]) -> tuple[Any, Any, str]:
    """The spec of the data, its rows, and which part they are."""
    from datasets import concatenate_datasets

    from aifs_peft.data.own.cuts import CUTS
    from aifs_peft.experiments.build import is_own_data, load_data
    from aifs_peft.experiments.spec import FinetuneSpec

    if given.dataset is None:
        wanted = {name: summary["spec"].get(name) for name in _DATA}
        spec = FinetuneSpec(**{name: value for name, value in wanted.items() if value is not None})
        part = given.part or "test"
    else:
        spec = FinetuneSpec(**{name: getattr(given, name) for name in _DATA})
        part = given.part or ("all" if is_own_data(spec.dataset) else "test")
        if part == "all" and spec.split in CUTS:
            spec = replace(spec, split="none")  # nobody is to be warned of the test that a cut would make
    splits = load_data(spec, needed=() if part == "all" else (part,))
    return spec, concatenate_datasets(list(splits.values())) if part == "all" else splits[part], part
