"""Fill `docs/benchmark.md` from the results of `aifs bench`: `python benchmarks/render_benchmark.py [--check]`.

A block `<!-- bench:NAME:PART -->` gets that part of what the experiment `benchmarks/experiments/NAME.json` has to say,
with its figures as `docs/img/bench_NAME_FIGURE.png`; the block `<!-- peers -->` gets the table of other packages,
`<!-- full_size -->` the forecasts of `full_size_forecasts.py`. An experiment without results says so. `--results DIR`
reads another folder of results.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

from aifs_peft.bench import read_experiment
from aifs_peft.bench.formatting import percent, table
from aifs_peft.bench.parts import (
    NOTHING,
    Report,
    ablation_part,
    claims_part,
    curves_part,
    overview_part,
    read_report,
    tables_part,
    told_progress,
)
from aifs_peft.bench.rendering import FIGURES

ROOT = Path(__file__).resolve().parent.parent
PAGE, IMAGES = ROOT / "docs" / "benchmark.md", ROOT / "docs" / "img"
EXPERIMENTS, RESULTS = ROOT / "benchmarks" / "experiments", ROOT / "benchmarks" / "results"
TABLE = re.compile(r"<!-- (peers|full_size) -->\n.*?<!-- /\1 -->", re.DOTALL)
BLOCK = re.compile(r"<!-- bench:(\w+):(\w+) -->\n.*?<!-- /bench:\1:\2 -->", re.DOTALL)
PEER_METRICS = ("worst_group_accuracy", "average_accuracy", "equal_opportunity_difference")
# Part -> what is said, and the figures that go with it.
PARTS: dict[str, tuple[Callable[[Report], str], tuple[str, ...]]] = {
    "overview": (overview_part, ("critical_difference", "worst_average")),
    "claims": (claims_part, ()),
    "ablation": (ablation_part, ()),
    "curves": (curves_part, ("strength", "group_labels")),
    "tables": (tables_part, ()),
}


def reports(text: str, results: Path = RESULTS) -> dict[str, Report]:
    """What the experiments of a page have by now, read once each."""
    names = dict.fromkeys(match[1] for match in BLOCK.finditer(text))
    return {name: read_report(read_experiment(EXPERIMENTS / f"{name}.json"), results) for name in names}


def render(text: str, results: Path = RESULTS) -> str:
    """The page's text with its blocks filled."""
    known = reports(text, results)

    def fill(match: re.Match[str]) -> str:
        report = known[match[1]]
        said, figures = PARTS[match[2]]
        shown = [f"![{FIGURES[f].caption}](img/{image(match[1], f)})" for f in figures if FIGURES[f].has(report)]
        lines = [told_progress(report), said(report), *shown] if report.found else [NOTHING]
        filled = "\n\n".join(line for line in lines if line) or NOTHING
        return f"<!-- bench:{match[1]}:{match[2]} -->\n{filled}\n<!-- /bench:{match[1]}:{match[2]} -->"

    def fill_table(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{TABLES[match[1]](results)}\n<!-- /{match[1]} -->"

    return TABLE.sub(fill_table, BLOCK.sub(fill, text))


def image(experiment: str, figure: str) -> str:
    """Name of a figure's file."""
    return f"bench_{experiment}_{figure}.png"


def peers_table(results: Path = RESULTS) -> str:
    """Other packages on the same latents, where `peers.py` has been run."""
    file = results / "peers.json"
    if not file.is_file():
        return NOTHING
    record = json.loads(file.read_text(encoding="utf-8"))
    rows = []
    for cell, numbers in sorted(record["summary"].items(), key=lambda item: -item[1]["worst_group_accuracy"][0]):
        data, name = cell.split("/")
        shown = [percent(numbers[key][0], numbers[key][2]) for key in PEER_METRICS]
        rows.append([data, name, record["group_labels"][name], *shown, f"{numbers['cpu_seconds'][0]:.1f}"])
    head = ["data set", "method", "group labels", "worst group", "average", "equal opportunity", "processor seconds"]
    seeds = min(numbers["seeds"] for numbers in record["summary"].values())
    return f"{table(head, rows, texts=3)}\n\nAt least {seeds} seeds in each row."


def full_size_table(results: Path = RESULTS) -> str:
    """What trainings at full size would take on one core, where `full_size_forecasts.py` has been run."""
    file = results / "performance" / "full_size.json"
    if not file.is_file():
        return NOTHING
    rows = []
    record = json.loads(file.read_text(encoding="utf-8"))
    for name, row in record["rows"].items():
        seconds, batch, epoch = row["cpu_seconds_per_step"], row["batch"], row["examples"] / row["batch"] / 3600
        numbers = [f"{row['parameters'] / 1e6:.0f} M", f"{row['trained'] / row['parameters']:.2%}", f"{seconds:,.0f}"]
        memory = f"{row['peak_bytes'] / 1e9:.0f} GB at {row['per_device_batch']}"
        rows.append([f"`{name}`", *numbers, f"{seconds * epoch:,.0f}", memory])
        if batch != 256:
            raise ValueError(f"{name} has batches of {batch}, and the table says 256")
    head = [
        "configuration",
        "parameters",
        "of them trained",
        "seconds for a step of 256",
        "hours for an epoch",
        "memory",
    ]
    return table(head, rows, texts=1)


TABLES: dict[str, Callable[[Path], str]] = {"peers": peers_table, "full_size": full_size_table}


def draw(text: str, results: Path = RESULTS) -> None:
    """The figures that the page shows."""
    known = reports(text, results)
    for match in BLOCK.finditer(text):
        for figure in PARTS[match[2]][1]:
            if FIGURES[figure].has(known[match[1]]):
                FIGURES[figure].draw(known[match[1]], IMAGES / image(match[1], figure))


def main() -> None:
    """Write the page, or check that it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = render(before, given.results)
    if given.check and after != before:
        raise SystemExit("docs/benchmark.md is not what the results say: run python benchmarks/render_benchmark.py")
    if not given.check:
        PAGE.write_text(after, encoding="utf-8")
        draw(after, given.results)


if __name__ == "__main__":
    main()
