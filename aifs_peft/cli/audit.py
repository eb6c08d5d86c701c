"""`aifs audit DATA`: is there a shortcut in a data set? One pass of a frozen encoder, no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifs_peft.cli.data_options import data_options, part_option
from aifs_peft.cli.mistakes import command
from aifs_peft.cli.option import Option
from aifs_peft.cli.options import check_output_dir
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import Progress, print_json, quiet_libraries
from aifs_peft.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from datasets import Dataset

    from aifs_peft.audit import Audit
    from aifs_peft.experiments import FinetuneSpec

_DESCRIPTION = (
    "Look for a shortcut in a data set with a frozen encoder, without training: which examples go against it, what it "
    "goes with, who is hurt."
)
_EPILOG = "Nothing found is an answer too: the text says what was looked at, and what would have been seen."
_DATA = data_options(model=True, skip=("dataset",), also=("unlabelled",))
_OPTIONS = (
    *(replace(option, default="none") if option.name == "split" else option for option in _DATA),
    part_option("train", "which rows are looked at"),
    Option("metadata", "list", None, "columns to compare the shortcut with; left out: every other column", "Audit"),
    Option("harm", "bool", True, "measure what plain training loses on the conflicting examples", "Audit"),
    Option("batch_size", "int", 64, "examples per forward pass", "Audit", {"low": 1}),
    Option("seed", "int", 0, "of every random draw", "Audit", {"low": 0, "high": 2**32 - 1}),
    Option("output_dir", "str", "runs/audit", "folder of the list of conflicting examples and the report", "Output"),
    *OUTPUT,
)


@command
def main(argv: Sequence[str]) -> int:
    """Print the audit, write the conflicting examples and the report."""
    positional = [("data", "a known data set, or your own: a table, a folder, an .npz, a Hub name", None)]
    parser = Parser("audit", _DESCRIPTION, _OPTIONS, positional=positional, epilog=_EPILOG)
    given = parser.values(argv)
    check_output_dir(given.output_dir)
    quiet_libraries()
    from aifs_peft.experiments import FinetuneSpec
    from aifs_peft.experiments.loading import load_data

    say = Progress(quiet=given.quiet)
    names = {option.name for option in _DATA}
    spec = FinetuneSpec(dataset=given.data, **{name: getattr(given, name) for name in names})
    splits = load_data(spec, needed=() if given.part == "all" else (given.part,))
    rows = _rows(splits, given.part, given.metadata)
    found = _audit(spec, rows, given, say)
    written = _write(found, Path(given.output_dir), say)
    if given.json:
        print_json({**found.to_dict(), "files": {name: str(path) for name, path in written.items()}})
        return 0
    print(found)
    print("\n" + "\n".join(f"{name}: {path}" for name, path in written.items()))
    return 0


def _rows(splits: Any, part: str, metadata: list[str] | None) -> Dataset:
    """The rows that are looked at, with the columns that are compared."""
    from datasets import concatenate_datasets

    from aifs_peft._checks import check_names
    from aifs_peft.experiments.latents import INPUTS

    rows: Dataset = concatenate_datasets(list(splits.values())) if part == "all" else splits[part]
    if metadata is None:
        return rows
    check_names(metadata, rows.column_names, "--metadata: the data have no column", error=InvalidInputError)
    return rows.select_columns([name for name in rows.column_names if name in (*INPUTS, "label", *metadata)])


def _audit(spec: FinetuneSpec, rows: Dataset, given: Any, say: Progress) -> Audit:
    """Latents by a frozen model, or the features as they are, and the audit of them."""
    import torch

    from aifs_peft.audit import audit, audit_model
    from aifs_peft.audit.columns import metadata_columns
    from aifs_peft.discovery.streaming.columns import ColumnLatents
    from aifs_peft.experiments.build import base_model
    from aifs_peft.experiments.latents import INPUTS
    from aifs_peft.experiments.prepare import label_names, modality_of
    from aifs_peft.experiments.unlabelled import load_unlabelled
    from aifs_peft.models.loading import default_model, load_processor

    modality, columns = modality_of(rows), metadata_columns(rows, (*INPUTS, "label"))
    metadata = rows.select_columns(columns) if columns else {}
    pool = load_unlabelled(spec, rows, modality)
    beside = "" if pool is None else f" and {len(pool):,} unlabelled ones"
    if modality == "features" and spec.model in (None, "identity"):
        say(f"auditing {len(rows):,} rows of features{beside}")
        names = dict(enumerate(label_names(rows)))
        # In double precision, block by block: sums of features as they stand in a table are then exact.
        latents, unlabelled = (
            None if part is None else ColumnLatents(part["features"], dtype="float64") for part in (rows, pool)
        )
        return audit(latents, rows["label"][:], metadata=metadata, class_names=names, unlabelled=unlabelled,
                     random_state=given.seed, harm=given.harm)  # fmt: skip
    name = spec.model or default_model(modality)
    say(f"encoding {len(rows):,} examples{beside} with {name}, and auditing their latents")
    with torch.random.fork_rng(devices=[]):  # its head is drawn at random, and never used
        model = base_model(name, spec, rows, modality)
    if torch.cuda.is_available() and spec.quantization == "none":
        model = model.to("cuda")
    processor = load_processor(name, modality=modality, revision=spec.revision)
    return audit_model(model, rows, processor=processor, metadata=metadata, unlabelled=pool,
                       batch_size=given.batch_size, max_length=given.max_length, random_state=given.seed,
                       harm=given.harm)  # fmt: skip


def _write(found: Audit, folder: Path, say: Progress) -> dict[str, Path]:
    """The list of conflicting examples, contact sheets and the report, where its extra is installed."""
    from aifs_peft.report import write_audit_folder

    written = {"conflicting": next(p for p in write_audit_folder(found, folder) if p.name == "conflicting.csv")}
    try:
        written["report"] = found.to_html(folder / "report.html")
    except MissingDependencyError as error:
        say(f"no report: {error}")
    return written
