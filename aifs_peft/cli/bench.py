"""`aifs bench`: the runs of an experiment that are missing, and its tables from the results that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aifs_peft.cli.mistakes import UsageError, command
from aifs_peft.cli.option import Option
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.cli.screen import Progress, print_json, quiet_libraries

if TYPE_CHECKING:
    from aifs_peft.bench import Experiment

_WHAT, _HOW = "Experiment", "Runs"
RESULTS, CACHE = "benchmarks/results", "runs/bench_latents"
_OPTIONS = (
    Option("experiment", "str", None, "JSON file of the experiment, see benchmarks/experiments", _WHAT),
    Option("data", "list", None, "only these data sets of it", _WHAT),
    Option("methods", "list", None, "only these methods of it", _WHAT),
    Option("seeds", "ints", None, "only these seeds of it", _WHAT, {"low": 0}),
    Option("results", "str", RESULTS, "folder of all results: one file per run", _WHAT),
    Option("dry_run", "bool", False, "say how many runs are missing and about how long they take", _HOW),
    Option("jobs", "int", 1, "processes", _HOW, {"low": 1}),
    Option("minutes", "float", None, "begin no further run after that time", _HOW, {"low": 0.0, "above": True}),
    Option("cache", "str", CACHE, "folder that keeps latents", _HOW),
    Option(
        "tables", "str", None,
        "run nothing; write tables (Markdown, LaTeX, CSV) and figures of the results that are there into this folder",
        "Output",
    ),
    *OUTPUT,
)  # fmt: skip
_DESCRIPTION = (
    "Do the runs of an experiment that are missing. Each result is a file, written when its run is done: after an "
    "interruption the same command goes on."
)


@command
def main(argv: Sequence[str]) -> int:
    """Plan, run or render."""
    given = Parser("bench", _DESCRIPTION, _OPTIONS).values(argv)
    if given.experiment is None:
        raise UsageError("needed: --experiment FILE.json; see aifs bench --help")
    if given.dry_run and given.tables is not None:
        raise UsageError("--dry-run and --tables are two calls: give one of them")
    quiet_libraries()
    from aifs_peft.bench import plan, read_experiment, run_experiment

    say = Progress(quiet=given.quiet)
    experiment = read_experiment(given.experiment).only(given.data, given.methods, given.seeds)
    if given.tables is not None:
        return _render(experiment, given.results, Path(given.tables), json=given.json)
    ahead = plan(experiment, given.results)
    if given.dry_run:
        if given.json:
            seconds = None if ahead.seconds is None else ahead.seconds / given.jobs
            print_json({"done": ahead.done, "missing": ahead.missing, "fits": ahead.fits, "seconds": seconds})
        else:
            print(ahead.describe(given.jobs))
        return 0
    say(ahead.describe(given.jobs))
    minutes = float("inf") if given.minutes is None else given.minutes
    left = run_experiment(
        experiment, given.results, cache_dir=given.cache, jobs=given.jobs, minutes=minutes, say=say
    )  # fmt: skip
    if left:
        say(f"{left} runs are left; the same command goes on with them")
    return _show(experiment, given.results, json=given.json)


def _show(experiment: Experiment, results: str, *, json: bool) -> int:
    """The main table on stdout."""
    from aifs_peft.bench import read_results
    from aifs_peft.bench.tables import markdown_table, summarise

    summary = summarise(read_results(results, experiment))
    if json:
        print_json([row.as_json() for row in summary])
    else:
        print(markdown_table(summary))
    return 0


def _render(experiment: Experiment, results: str, folder: Path, *, json: bool) -> int:
    """Tables and figures as files."""
    from aifs_peft.bench.rendering import render

    written = render(experiment, results, folder)
    if json:
        print_json({"written": [str(path) for path in written]})
    else:
        print("\n".join(f"saved: {path}" for path in written))
    return 0
