"""`aifs predict RUN INPUTS`: what a trained adapter says of new inputs, as CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from aifs_peft.cli.mistakes import command
from aifs_peft.cli.option import Option
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import Progress, print_json, quiet_libraries

_DESCRIPTION = (
    "Predict new inputs with the adapter of a run: images (files, folders, or tables with a column of paths), texts "
    "(tables, or .txt files with one text a line) or features (tables of numbers, .npz). A run that was trained with "
    "--fuse takes tables with the columns that it reads."
)
_OPTIONS = (
    Option("column", "str", None, "column of a table that holds the input; left out: image, text or features",
           "Inputs", aliases=("image", "text", "features")),
    Option("batch_size", "int", 64, "inputs per forward pass", "Inputs", {"low": 1}),
    Option("trust_remote_code", "bool", False, "run model code that comes from the Hub", "Inputs"),
    Option("use_cpu", "bool", False, "do not use an accelerator that is there", "Inputs"),
    Option("output", "str", None, "CSV file to write; left out: stdout", "Output"),
    *OUTPUT,
)  # fmt: skip


@command
def main(argv: Sequence[str]) -> int:
    """Write one line per input: its name, the predicted class, the probability of each class."""
    positional = [("run", "folder that `aifs finetune` wrote", None), ("inputs", "files or folders", "+")]
    given = Parser("predict", _DESCRIPTION, _OPTIONS, positional=positional).values(argv)
    quiet_libraries()
    from aifs_peft.experiments.inputs import read_beside, read_inputs
    from aifs_peft.experiments.saved import load_run, predict_logits, predictions, prepared

    say = Progress(quiet=given.quiet)
    run = load_run(given.run, trust_remote_code=given.trust_remote_code, use_cpu=given.use_cpu)
    modality, fused = str(run.summary["modality"]), run.fused
    beside = None if fused is None else read_beside(given.inputs, fused, modality)
    names, rows = read_inputs(given.inputs, modality, given.column)
    say(f"predicting {len(names):,} inputs with {run.summary['method']}")
    logits = predict_logits(run, prepared(run, rows, beside), given.batch_size)
    table = predictions(run, names, logits)
    columns = ["input", "prediction", *(f"p_{name}" for name in run.label_names)]
    if given.output is not None:
        with Path(given.output).open("w", encoding="utf-8", newline="") as file:
            _write(file, columns, table)
        say(f"saved: {given.output}")
    if given.json:
        print_json(table)
    elif given.output is None:
        _write(sys.stdout, columns, table)
    return 0


def _write(file: TextIO, columns: list[str], table: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
