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
from aifs_peft.errors import InvalidConfigError

_DESCRIPTION = "Evaluate the adapter of a run, on its own test split or on other data."
_DATA = ("dataset", "data_dir", "dataset_options", "image", "text", "features", "label", "attribute",
         "split", "test_share")  # fmt: skip
_OPTIONS = (
    Option("dataset", "str", None, "a known data set, or your own data; left out: that of the run", "Model and data"),
    *data_options(skip=("dataset",)),
    Option("streaming", "bool", False, "hold validation and test alone, and read the part train from its beginning; "
           "left out: as the run did on its own data", "Model and data"),
    part_option(None, "which rows are read; left out: the test split, or all rows of your own data given by --dataset"),
    Option("trust_remote_code", "bool", False, "run model code that comes from the Hub", "Model and data"),
    Option("n_boot", "int", 0, "bootstrap replicates for intervals that have no exact form", "Result", {"low": 0}),
    Option("batch_size", "int", 64, "examples per forward pass", "Result", {"low": 1}),
    Option("use_cpu", "bool", False, "do not use an accelerator that is there", "Result"),
    *OUTPUT,
)  # fmt: skip
_PARTS_OF = ("train", "validation", "test")
ONE_PART = "streaming reads one part of the data; give --part train, validation or test"


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
    spec, rows, part, inputs = _rows(given, run.summary)
    say(f"evaluating {run.summary['method']} on {len(rows):,} examples")
    result = evaluate_run(run, rows, n_boot=given.n_boot, batch_size=given.batch_size, inputs=inputs)
    result = {"run": str(run.folder), "dataset": spec.dataset, "part": part, **result}
    if given.json:
        print_json(result)
        return 0
    comparison = result["comparison"]
    print(f"{run.summary['method']} of {run.folder} on {spec.dataset} ({part}): {result['n']:,} examples\n")
    print(comparison_table(comparison, run.summary["method"]))
    print("\n".join(["", *comparison["sentences"], *(f"note: {text}" for text in comparison["warnings"])]))
    return 0


def _rows(given: Any, summary: dict[str, Any]) -> tuple[Any, Any, str, Any]:
    """The spec of the data, its rows, which part they are, and what gives their inputs where they are streamed."""
    from datasets import concatenate_datasets

    from aifs_peft.data.own.cuts import CUTS
    from aifs_peft.experiments.loading import data_options as options_of_data
    from aifs_peft.experiments.loading import is_own_data, load_data
    from aifs_peft.experiments.spec import FinetuneSpec
    from aifs_peft.experiments.streamed import check_streaming, load_streamed

    if given.dataset is None:
        wanted = {name: summary["spec"].get(name) for name in (*_DATA, "streaming")}
        spec = FinetuneSpec(**{name: value for name, value in wanted.items() if value is not None})
        part = given.part or "test"
    else:
        spec = FinetuneSpec(**{name: getattr(given, name) for name in _DATA}, streaming=given.streaming)
        part = given.part or ("all" if is_own_data(spec.dataset) and not spec.streaming else "test")
        if part == "all" and spec.split in CUTS:
            spec = replace(spec, split="none")  # nobody is to be warned of the test that a cut would make
    if spec.streaming or given.streaming:
        if part not in _PARTS_OF:
            raise InvalidConfigError(ONE_PART)
        check_streaming(spec)
        streamed = load_streamed(spec, options_of_data(spec), (str(summary["modality"]),))
        return spec, streamed.splits[part], part, streamed.inputs if part == "train" else None
    splits = load_data(spec, needed=() if part == "all" else (part,))
    rows = concatenate_datasets(list(splits.values())) if part == "all" else splits[part]
    return spec, rows, part, None
