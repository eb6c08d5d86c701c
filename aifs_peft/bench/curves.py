"""Curves of results: worst group against the strength of an intervention, and against known group labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aifs_peft.bench.experiment import Experiment
from aifs_peft.bench.tables import AVERAGE, WORST

_LEAST_POINTS = 3


@dataclass(frozen=True)
class Point:
    """One place of a curve.

    Args:
        x: strength, or number of known groups.
        worst: worst-group accuracy by seed.
        average: average accuracy by seed.
    """

    x: float
    worst: Mapping[int, float]
    average: Mapping[int, float]


@dataclass(frozen=True)
class Curve:
    """Results of one family of methods on one data set, by ascending `x`.

    Args:
        family: what the methods have in common: `aifs.alpha`, `dfr-oracle`.
        dataset: its name.
        aligned_share: of its training examples, where it is known.
        points: those with results.
    """

    family: str
    dataset: str
    aligned_share: float | None
    points: tuple[Point, ...]


def strength_of(name: str) -> tuple[str, float] | None:
    """Family and strength of a method's name, `FAMILY=NUMBER`; None for other names.

    Args:
        name: of a method of an experiment.

    Example:
        >>> strength_of("aifs.alpha=0.3"), strength_of("erm")
        (('aifs.alpha', 0.3), None)
    """
    family, _, number = name.rpartition("=")
    try:
        return (family, float(number)) if family else None
    except ValueError:
        return None


def strength_curves(experiment: Experiment, found: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """One curve per family and data set, where all methods of the experiment are strengths of some family.

    Args:
        experiment: names the methods.
        found: its results.
    """
    parsed = {entry.name: strength_of(entry.name) for entry in experiment.methods}
    if any(place is None for place in parsed.values()):
        return []
    return _curves(experiment, found, {name: place for name, place in parsed.items() if place is not None})


def label_curves(experiment: Experiment, found: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """One curve per method and data set, against the number of validation examples whose group is known.

    Args:
        experiment: whose methods say `group_labels`.
        found: its results.
    """
    known = {e.name: (e.method, float(e.group_labels)) for e in experiment.methods if e.group_labels is not None}
    return _curves(experiment, found, known)


def _curves(
    experiment: Experiment, found: Sequence[Mapping[str, Any]], places: Mapping[str, tuple[str, float]]
) -> list[Curve]:
    done: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in found:
        if run["method"] in places and not run["failed"]:
            done.setdefault((run["dataset"], run["method"]), []).append(run)
    curves = []
    for family in dict.fromkeys(family for family, _ in places.values()):
        for data in experiment.data:
            of = sorted((x, name) for name, (f, x) in places.items() if f == family and (data.name, name) in done)
            points_of = tuple(_point(x, done[data.name, name]) for x, name in of)
            if len(points_of) >= _LEAST_POINTS:
                curves.append(Curve(family, data.name, data.aligned_share, points_of))
    return curves


def _point(x: float, runs: Sequence[Mapping[str, Any]]) -> Point:
    worst, average = ({run["seed"]: run["metrics"][name] for run in runs} for name in (WORST, AVERAGE))
    return Point(x, worst, average)
