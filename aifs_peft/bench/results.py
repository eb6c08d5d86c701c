"""The file of one run: what it holds, where it lies, how it is written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aifs_peft._plain import plain
from aifs_peft.bench.choosing import Choice, Trial
from aifs_peft.bench.draws import Draw
from aifs_peft.bench.experiment import CLOSED, ORACLE, DataEntry, Experiment, MethodEntry
from aifs_peft.errors import DataNotFoundError, InvalidInputError
from aifs_peft.experiments.evaluation import evaluate_groups
from aifs_peft.experiments.provenance import provenance
from aifs_peft.methods import get

# What the keys of a result mean. It is raised where a key goes or comes to mean something else, not where one is added
# that a file can do without: readers of before overlook it, and this one fills it in (`ADDED`).
FORMAT = 1
# Keys that results had from later on, and what is said where a result lacks one.
ADDED: dict[str, Any] = {"cpu_seconds": None}
# Digits of the numbers in a file: a ten-thousandth of a point.
_DIGITS = 6
# What every result has, whether it failed or not.
KEYS = (
    "format", "experiment", "dataset", "aligned_share", "encoder", "regime", "method", "supervision", "selection",
    "seed", "asked", "failed", "chosen", "metrics", "oracle_selection", "wall_seconds", "cpu_seconds",
    "peak_memory_bytes", "run_seconds", "draw_seconds", "trials", "notes", "versions", "git", "hardware",
    "data_checksum",
)  # fmt: skip
NOT_A_RESULT = "{path} is no result of `aifs bench`: {reason}"
NEWER = (
    "{path} was made by a newer version of aifs_peft: its format is {given}, and this version reads up to {known}; "
    "update aifs_peft, or run the experiment again into another folder"
)


def result_path(results: str | Path, experiment: str, data: str, method: str, seed: int) -> Path:
    """Where a result lies.

    Args:
        results: folder of all results.
        experiment: its name.
        data: name of the data set.
        method: name of the method or variant.
        seed: of the run.

    Example:
        >>> result_path("results", "frozen", "dominoes", "erm", 0).as_posix()
        'results/frozen/dominoes/erm/seed0.json'
    """
    return Path(results) / experiment / data / method / f"seed{seed}.json"


def asked(experiment: Experiment, data: DataEntry, entry: MethodEntry) -> dict[str, Any]:
    """What a result answers to: a result of anything else is made again.

    Args:
        experiment: for what holds for all.
        data: the data set.
        entry: the method.
    """
    common = {"regime": experiment.regime, "selection": experiment.selection, "schedule": experiment.schedule}
    about = asdict(data)
    if data.encoder.revision is None:  # the newest, as in results that were made before a revision could be named
        del about["encoder"]["revision"]
    content = {"data": about, "method": asdict(entry), **common, "budget": experiment.budget}
    return dict(json.loads(json.dumps(content)))  # tuples as JSON has them


def describe_run(
    experiment: Experiment, data: DataEntry, entry: MethodEntry, draw: Draw, choice: Choice, seconds: float
) -> dict[str, Any]:
    """The content of a result's file, but for the time that its draw took (`draw_seconds`).

    Args:
        experiment: of the run.
        data: the data set.
        entry: the method.
        draw: of the run; its test split is looked at here, and nowhere before.
        choice: what was tried and chosen.
        seconds: that the whole run took.
    """
    source = provenance()
    failed = None if choice.best else next((trial.failed for trial in choice.trials if trial.failed), "no fit")
    best = choice.best.fitted if choice.best else None
    content = {
        "format": FORMAT,
        "experiment": experiment.name,
        "dataset": data.name,
        "aligned_share": data.aligned_share,
        "encoder": data.encoder.model,
        "regime": experiment.regime,
        "method": entry.name,
        "supervision": supervision(entry),
        "selection": experiment.selection,
        "seed": draw.seed,
        "asked": asked(experiment, data, entry),
        "failed": failed,
        "chosen": choice.best.setting if choice.best else None,
        "metrics": _tested(choice.best, draw),
        "oracle_selection": _of_oracle(choice, draw),
        "wall_seconds": _rounded(best.took.seconds) if best else None,
        "cpu_seconds": _rounded(best.took.cpu_seconds) if best else None,
        "peak_memory_bytes": best.took.peak_memory_bytes if best else None,
        "run_seconds": _rounded(seconds),
        "trials": [{"setting": t.setting, "scores": _rounded(t.scores), "failed": t.failed} for t in choice.trials],
        "notes": best.notes if best else {},
        "versions": source["versions"],
        "git": {"commit": source["commit"], "dirty": source["dirty"]},
        "hardware": source["hardware"],
        "data_checksum": draw.checksum,
    }
    return dict(plain(content))


def supervision(entry: MethodEntry) -> str:
    """Which labels a method reads beside the classes': "none", "hints", "groups", or how many groups.

    Args:
        entry: the method.
    """
    if entry.method in CLOSED:
        return "none"
    if entry.group_labels is not None:
        return f"{entry.group_labels} groups of validation examples"
    return get(entry.method).supervision


def test_metrics(trial: Trial, draw: Draw) -> dict[str, Any]:
    """Group metrics of a fit on the test split.

    Args:
        trial: with its fit.
        draw: whose test split it is.
    """
    assert trial.fitted is not None  # noqa: S101 - chosen trials keep their fit
    metrics = evaluate_groups(draw.splits["test"], trial.fitted.logits["test"], train=draw.splits["train"])
    return dict(_rounded(plain(metrics)))


def _tested(trial: Trial | None, draw: Draw) -> dict[str, Any] | None:
    return None if trial is None else test_metrics(trial, draw)


def _of_oracle(choice: Choice, draw: Draw) -> dict[str, Any] | None:
    """What the oracle's rule chose: the numbers for all examples, without those of each group."""
    if choice.oracle is None:
        return None
    metrics = test_metrics(choice.oracle, draw)
    told = {name: value for name, value in metrics.items() if name not in ("groups", "attributes", "reasons")}
    return {"selection": ORACLE, "chosen": choice.oracle.setting, "metrics": told}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def write_result(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result aside and give it its name: an interruption leaves no half of one.

    Args:
        path: of the file; its folder is made.
        content: of `describe_run`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    # One line per key: short, and a change shows where it is.
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items()]
    aside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    aside.replace(path)


def read_result(path: str | Path) -> dict[str, Any]:
    """Read one result.

    Args:
        path: of its file.

    Returns:
        Its content, with every key of `KEYS`; one that came later than the file is None.

    Raises:
        DataNotFoundError: there is none.
        InvalidInputError: it is none, or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise DataNotFoundError(f"there is no result {path}; `aifs bench --experiment FILE` makes results")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInputError(NOT_A_RESULT.format(path=path, reason=f"no JSON ({error})")) from error
    # The format first: of one that this version does not know, nothing is said about what it lacks.
    kind = content.get("format") if isinstance(content, dict) else None
    if kind is None:
        raise InvalidInputError(NOT_A_RESULT.format(path=path, reason="it lacks 'format'"))
    if type(kind) is int and kind > FORMAT:
        raise InvalidInputError(NEWER.format(path=path, given=kind, known=FORMAT))
    if kind != FORMAT:
        raise InvalidInputError(NOT_A_RESULT.format(path=path, reason=f"its format is {kind!r}, not {FORMAT}"))
    content = ADDED | content
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise InvalidInputError(NOT_A_RESULT.format(path=path, reason=f"it lacks {missing[0]!r}"))
    return dict(content)


def read_results(results: str | Path, experiment: Experiment) -> list[dict[str, Any]]:
    """The results of an experiment that are there and answer to what its file asks now.

    Args:
        results: folder of all results.
        experiment: whose results.

    Returns:
        In the order of the file: data sets, methods, seeds.
    """
    found = []
    for data in experiment.data:
        for entry in experiment.methods:
            for seed in experiment.seeds:
                path = result_path(results, experiment.name, data.name, entry.name, seed)
                content = read_result(path) if path.is_file() else None
                if content is not None and content["asked"] == asked(experiment, data, entry):
                    found.append(content)
    return found
