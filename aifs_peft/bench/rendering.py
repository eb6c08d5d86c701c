"""Files and figures of an experiment, from its results alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aifs_peft.bench.curves import label_curves, strength_curves
from aifs_peft.bench.experiment import Experiment
from aifs_peft.bench.figures import critical_difference, label_figure, strength_figure, worst_against_average
from aifs_peft.bench.overview import ranks_of
from aifs_peft.bench.parts import Report, markdown_report, read_report, values_of
from aifs_peft.bench.tables import csv_table, latex_table
from aifs_peft.errors import DataNotFoundError


def render(experiment: Experiment, results: str | Path, folder: str | Path) -> list[Path]:
    """Write tables and figures.

    Args:
        experiment: whose results.
        results: folder of all results.
        folder: to write into; made where it is missing.

    Returns:
        The files that were written.

    Raises:
        DataNotFoundError: there are no results yet.
    """
    folder = Path(folder)
    report = read_report(experiment, results)
    if not any(not result["failed"] for result in report.found):
        raise DataNotFoundError(
            f"experiment {experiment.name!r} has no results in {results} yet; run it without --tables first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        ".md": markdown_report(report),
        ".tex": latex_table(report.rows),
        ".csv": csv_table(report.found),
    }
    written = []
    for ending, text in texts.items():
        path = folder / f"{experiment.name}{ending}"
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written + draw_figures(report, folder, experiment.name)


@dataclass(frozen=True)
class Drawing:
    """A figure of a report.

    Args:
        caption: what it shows.
        has: whether the results have something to show in it.
        draw: writes the file.
    """

    caption: str
    has: Callable[[Report], bool]
    draw: Callable[[Report, Path], Path]


def draw_figures(report: Report, folder: Path, prefix: str) -> list[Path]:
    """Every figure that the results have something to show in.

    Args:
        report: of `read_report`.
        folder: that is there.
        prefix: of the names of the files.
    """
    shown = [(name, drawing) for name, drawing in FIGURES.items() if drawing.has(report)]
    return [drawing.draw(report, folder / f"{prefix}_{name}.png") for name, drawing in shown]


def _draw_ranks(report: Report, path: Path) -> Path:
    ranks = ranks_of(report.rows)
    assert ranks is not None  # noqa: S101 - asked for by `has`
    return critical_difference(ranks, path)


def _draw_labels(report: Report, path: Path) -> Path:
    values = values_of(report.found)
    know_none = [e.name for e in report.experiment.methods if e.group_labels is None]
    order = sorted(know_none, key=lambda name: name != report.experiment.focus)
    levels = {name: {d: list(cells.get(name, {}).values()) for d, cells in values.items()} for name in order}
    return label_figure(label_curves(report.experiment, report.found), levels, path)


FIGURES: dict[str, Drawing] = {
    "worst_average": Drawing(
        "worst group against average, one panel per data set",
        lambda r: any(row.seeds for row in r.rows),
        lambda r, path: worst_against_average(r.rows, path, r.experiment.focus),
    ),
    "critical_difference": Drawing(
        "average ranks by worst group; bars join methods that are not told apart",
        lambda r: ranks_of(r.rows) is not None,
        _draw_ranks,
    ),
    "strength": Drawing(
        "worst group and average against strength",
        lambda r: bool(strength_curves(r.experiment, r.found)),
        lambda r, path: strength_figure(strength_curves(r.experiment, r.found), path),
    ),
    "group_labels": Drawing(
        "worst group against the number of known groups",
        lambda r: bool(label_curves(r.experiment, r.found)),
        _draw_labels,
    ),
}
