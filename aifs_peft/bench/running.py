"""Do what an experiment lacks: one result after another, each written when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from aifs_peft.bench.choosing import choose, trials_of
from aifs_peft.bench.draws import Draw, load_draw
from aifs_peft.bench.experiment import DataEntry, Experiment, MethodEntry
from aifs_peft.bench.frozen import Fitted, fit_frozen
from aifs_peft.bench.results import asked, describe_run, read_result, read_results, result_path, write_result

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Args:
        done: results that are there.
        missing: runs to do, as `data/method/seed`.
        fits: that they make together.
        seconds: estimated for all of them in one process, from what finished ones took; None where none has finished.
        unknown: runs of which no finished run of the same method tells the time; they are estimated by the others.
    """

    done: int
    missing: list[str]
    fits: int
    seconds: float | None
    unknown: int

    def describe(self, jobs: int = 1) -> str:
        """One line for people.

        Args:
            jobs: processes.

        Example:
            >>> Plan(3, ["d/erm/0"], 8, 60.0, 0).describe(2)
            '3 results are there, 1 run (8 fits) is missing: about 1 minute with 2 processes.'
        """
        runs = len(self.missing)
        if not runs:
            return f"{self.done} results are there, none is missing."
        told = f"{self.done} results are there, {runs} run{'s' * (runs > 1)} ({self.fits} fits) "
        told += f"{'are' if runs > 1 else 'is'} missing"
        if self.seconds is None:
            return f"{told}; how long they take is known once some are done."
        minutes = max(1, round(self.seconds / jobs / 60))
        told += f": about {minutes} minute{'s' * (minutes > 1)} with {jobs} process{'es' * (jobs > 1)}"
        return f"{told} ({self.unknown} of them of methods without a finished run)." if self.unknown else f"{told}."


def missing_runs(experiment: Experiment, results: str | Path) -> list[tuple[DataEntry, MethodEntry, int]]:
    """The runs without a result, or with one of another file than this.

    Args:
        experiment: what is asked.
        results: folder of all results.
    """
    runs = []
    for data in experiment.data:
        for seed in experiment.seeds:
            for entry in experiment.methods:
                path = result_path(results, experiment.name, data.name, entry.name, seed)
                if not path.is_file() or read_result(path)["asked"] != asked(experiment, data, entry):
                    runs.append((data, entry, seed))
    return runs


def plan(experiment: Experiment, results: str | Path) -> Plan:
    """How many runs are missing, and about how long they take.

    Args:
        experiment: what is asked.
        results: folder of all results.
    """
    done = read_results(results, experiment)
    of_cell: dict[tuple[str, str], list[float]] = {}
    of_method: dict[str, list[float]] = {}
    for result in done:
        each = float(result["run_seconds"]) / max(1, len(result["trials"]))
        of_cell.setdefault((result["dataset"], result["method"]), []).append(each)
        of_method.setdefault(result["method"], []).append(each)
    overall = [value for values in of_method.values() for value in values]
    runs = missing_runs(experiment, results)
    seconds, fits, unknown = 0.0, 0, 0
    for data, entry, _ in runs:
        number = trials_of(experiment, entry)
        known = of_cell.get((data.name, entry.name)) or of_method.get(entry.name)
        unknown += known is None
        fits += number
        seconds += number * float(np.mean(known or overall or [0.0]))
    draws = {(data.name, seed) for data, _, seed in runs}
    loading = [float(result["draw_seconds"]) for result in done]
    seconds += len(draws) * float(np.mean(loading or [0.0]))
    names = [f"{data.name}/{entry.name}/{seed}" for data, entry, seed in runs]
    return Plan(len(done), names, fits, seconds if overall else None, unknown)


def run_experiment(
    experiment: Experiment,
    results: str | Path,
    *,
    cache_dir: str | Path | None = None,
    jobs: int = 1,
    minutes: float = float("inf"),
    say: Say = lambda _text: None,
) -> int:
    """Do the runs that are missing; each result is written when it is done, so a second call goes on.

    Args:
        experiment: what is asked.
        results: folder of all results.
        cache_dir: folder that keeps latents; None keeps none.
        jobs: processes; each computes on its share of the processors.
        minutes: after which no further run is begun.
        say: told one line per result.

    Returns:
        How many runs are left.

    Raises:
        AIFSError: data or encoder cannot be loaded.
    """
    by_draw: dict[tuple[str, int], list[MethodEntry]] = {}
    entries = {data.name: data for data in experiment.data}
    for data, entry, seed in missing_runs(experiment, results):
        by_draw.setdefault((data.name, seed), []).append(entry)
    ends = time.monotonic() + 60 * minutes
    work = [
        (experiment, entries[name], methods, seed, str(results), None if cache_dir is None else str(cache_dir))
        for (name, seed), methods in by_draw.items()
    ]
    if jobs == 1:
        for item in work:
            for line in run_draw(*item, ends):
                say(line)
    else:
        _in_processes(work, jobs, ends, say)
    return len(missing_runs(experiment, results))


def _in_processes(work: Sequence[Any], jobs: int, ends: float, say: Say) -> None:
    """Draws among processes; what they did is told as each draw is done."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_share, initargs=(jobs,)) as pool:
        waiting: set[Future[list[str]]] = {pool.submit(_whole_draw, *item, ends) for item in work}
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for done in finished:
                for line in done.result():
                    say(line)


def _share(jobs: int) -> None:
    """Processors of one of several processes, whose libraries draw no bars."""
    import os

    import datasets
    import torch
    from transformers.utils import logging

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _whole_draw(*item: Any) -> list[str]:
    return list(run_draw(*item))


def run_draw(
    experiment: Experiment,
    data: DataEntry,
    methods: Sequence[MethodEntry],
    seed: int,
    results: str,
    cache_dir: str | None,
    ends: float,
) -> Iterator[str]:
    """The runs of one draw, which is loaded and encoded once for all of them.

    Args:
        experiment: of the runs.
        data: the data set.
        methods: to run.
        seed: of the draw.
        results: folder of all results.
        cache_dir: folder that keeps latents.
        ends: on the monotonic clock, when no further run is begun.

    Yields:
        One line per result.
    """
    draw: Draw | None = None
    took = 0.0
    for entry in methods:
        if time.monotonic() > ends:
            return
        if draw is None:
            started = time.perf_counter()
            draw = load_draw(data, seed, cache_dir)
            _ = draw.inferred  # now: it is no part of what the first method costs
            took = time.perf_counter() - started
        content = {**run_one(experiment, data, entry, draw), "draw_seconds": round(took, 3)}
        write_result(result_path(results, experiment.name, data.name, entry.name, seed), content)
        yield line_of(content)


def run_one(experiment: Experiment, data: DataEntry, entry: MethodEntry, draw: Draw) -> dict[str, Any]:
    """One run: choose a setting, and test it.

    Args:
        experiment: of the run.
        data: the data set.
        entry: the method.
        draw: of it.

    Returns:
        The content of its file.
    """
    started = time.perf_counter()
    choice = choose(experiment, entry, draw, lambda setting: fit_one(experiment.regime, data, entry, draw, setting))
    return describe_run(experiment, data, entry, draw, choice, time.perf_counter() - started)


def fit_one(regime: str, data: DataEntry, entry: MethodEntry, draw: Draw, setting: dict[str, dict[str, Any]]) -> Fitted:
    """One fit. Closed heads work on latents of the untuned encoder in every regime.

    Args:
        regime: "frozen" or "lora".
        data: the data set.
        entry: the method.
        draw: of the data set.
        setting: the method's numbers, by part.
    """
    if regime == "frozen" or entry.closed:
        return fit_frozen(entry, draw, setting)
    from aifs_peft.bench.tuned import fit_tuned

    return fit_tuned(data, entry, draw, setting)


def line_of(content: dict[str, Any]) -> str:
    """What is told of a result.

    Args:
        content: of its file.
    """
    name = f"{content['dataset']}/{content['method']}/seed{content['seed']}"
    if content["failed"]:
        return f"{name}: cannot be run: {content['failed']}"
    worst, average = (content["metrics"][key] for key in ("worst_group_accuracy", "average_accuracy"))
    return f"{name}: worst group {worst:.3f}, average {average:.3f}, {content['run_seconds']:.1f} s"
