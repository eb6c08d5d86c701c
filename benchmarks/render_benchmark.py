"""Fill `docs/benchmark.md` from the results of `aifs bench`: `python benchmarks/render_benchmark.py [--check]`.

Each block `<!-- bench:NAME -->` gets the tables of the experiment `benchmarks/experiments/NAME.json`, and
`docs/img/bench_NAME.png` its figure of worst group against average.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from aifs_peft.bench import read_experiment, read_results
from aifs_peft.bench.figures import worst_against_average
from aifs_peft.bench.rendering import markdown_report
from aifs_peft.bench.tables import summarise

ROOT = Path(__file__).resolve().parent.parent
PAGE, IMAGES = ROOT / "docs" / "benchmark.md", ROOT / "docs" / "img"
EXPERIMENTS, RESULTS = ROOT / "benchmarks" / "experiments", ROOT / "benchmarks" / "results"
PEERS = re.compile(r"<!-- peers -->\n.*?<!-- /peers -->", re.DOTALL)
BLOCK = re.compile(r"<!-- bench:(\w+) -->\n.*?<!-- /bench:\1 -->", re.DOTALL)
PEER_METRICS = ("worst_group_accuracy", "average_accuracy", "equal_opportunity_difference")
TOP = "There are no results yet."


def render(text: str) -> str:
    """The page's text with its blocks filled."""

    def fill(match: re.Match[str]) -> str:
        experiment = read_experiment(EXPERIMENTS / f"{match[1]}.json")
        found = read_results(RESULTS, experiment)
        asked = len(experiment.data) * len(experiment.methods) * len(experiment.seeds)
        told = f"{len(found)} of {asked} runs are done.\n\n" if len(found) < asked else ""
        report = markdown_report(experiment, found).rstrip() if found else TOP
        return f"<!-- bench:{match[1]} -->\n{told}{report}\n<!-- /bench:{match[1]} -->"

    return PEERS.sub(f"<!-- peers -->\n{peers_table()}\n<!-- /peers -->", BLOCK.sub(fill, text))


def peers_table() -> str:
    """Other packages on the same latents, where `peers.py` has been run."""
    file = RESULTS / "peers.json"
    if not file.is_file():
        return TOP
    record = json.loads(file.read_text(encoding="utf-8"))
    lines = [
        "| data set | method | group labels | worst group | average | equal opportunity | processor seconds |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for cell, numbers in sorted(record["summary"].items(), key=lambda item: -item[1]["worst_group_accuracy"][0]):
        data, name = cell.split("/")
        shown = [_with_error(numbers[key]) for key in PEER_METRICS]
        groups = record["group_labels"][name]
        lines.append(f"| {data} | {name} | {groups} | {' | '.join(shown)} | {numbers['cpu_seconds'][0]:.1f} |")
    seeds = min(numbers["seeds"] for numbers in record["summary"].values())
    return "\n".join([*lines, "", f"At least {seeds} seeds in each row."])


def _with_error(value: list[float | None]) -> str:
    mean, _, high = value
    return f"{mean:.3f}" if high is None or mean is None else f"{mean:.3f} ± {high - mean:.3f}"


def draw(text: str) -> None:
    """The figures of the blocks that have results."""
    for match in BLOCK.finditer(text):
        experiment = read_experiment(EXPERIMENTS / f"{match[1]}.json")
        rows = summarise(read_results(RESULTS, experiment))
        image = IMAGES / f"bench_{match[1]}.png"
        if any(row.seeds for row in rows) and f"img/{image.name}" in text:
            worst_against_average(rows, image, experiment.focus)


def main() -> None:
    """Write the page, or check that it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    before = PAGE.read_text(encoding="utf-8")
    after = render(before)
    if check and after != before:
        raise SystemExit("docs/benchmark.md is not what the results say: run python benchmarks/render_benchmark.py")
    if not check:
        PAGE.write_text(after, encoding="utf-8")
        draw(after)


if __name__ == "__main__":
    main()
