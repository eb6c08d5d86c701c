"""Tables of results: Markdown, LaTeX and CSV, from the files alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aifs_peft._plain import plain
from aifs_peft.bench.formatting import DASH, difference, table
from aifs_peft.bench.statistics import Comparison, mean_interval_of

Result = dict[str, Any]
WORST, AVERAGE = "worst_group_accuracy", "average_accuracy"
# Column -> heading; all of them means over seeds.
METRICS = {
    WORST: "worst group",
    "worst_group_roc_auc": "worst AUC",
    AVERAGE: "average",
    "adjusted_average_accuracy": "adjusted average",
    "equal_opportunity_difference": "equal opportunity",
}
ORACLE_COLUMN = "worst group, chosen by the oracle"


@dataclass(frozen=True)
class Value:
    """A mean over seeds.

    Args:
        mean: of the seeds that have the number.
        low: of its 95 % interval (Student's t over seeds); None with one seed.
        high: of the same.
    """

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """A method on a data set.

    Args:
        dataset: its name.
        method: of the method or variant.
        supervision: which labels it reads beside the classes'.
        seeds: runs with numbers.
        failed: runs that could not be done, with the first reason.
        values: by metric; one that is not defined is missing.
        oracle: worst group where the oracle's rule chose the setting.
        seconds: of the chosen fit, of the processor.
        megabytes: peak memory of it.
        found: in how many of the runs discovery found a shortcut; None for methods without discovery.
    """

    dataset: str
    method: str
    supervision: str
    seeds: int
    failed: tuple[int, str]
    values: dict[str, Value]
    oracle: Value | None
    seconds: Value | None
    megabytes: Value | None
    found: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return dict(plain(asdict(self)))


def summarise(results: Iterable[Result]) -> list[Row]:
    """One row per data set and method, in the order of the results.

    Args:
        results: contents of files.
    """
    cells: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        cells.setdefault((result["dataset"], result["method"]), []).append(result)
    return [_row(runs) for runs in cells.values()]


def _row(runs: Sequence[Result]) -> Row:
    done = [run for run in runs if not run["failed"]]
    reasons = [str(run["failed"]) for run in runs if run["failed"]]

    def value(of: Callable[[Result], float | None]) -> Value | None:
        numbers = [number for run in done if (number := of(run)) is not None]
        return mean_over_seeds(numbers) if numbers else None

    said = [run["notes"]["found"] for run in done if "found" in (run["notes"] or {})]
    named = {name: value(lambda run, n=name: run["metrics"][n]) for name in METRICS}  # type: ignore[misc]
    return Row(
        runs[0]["dataset"], runs[0]["method"], runs[0]["supervision"], len(done),
        (len(reasons), reasons[0] if reasons else ""),
        {name: found for name, found in named.items() if found is not None},
        value(lambda run: run["oracle_selection"]["metrics"]["worst_group_accuracy"]),
        value(lambda run: run["cpu_seconds"]),
        value(lambda run: None if run["peak_memory_bytes"] is None else run["peak_memory_bytes"] / 1e6),
        sum(said) if said else None,
    )  # fmt: skip


def mean_over_seeds(numbers: Sequence[float]) -> Value:
    """Mean and interval over seeds.

    Args:
        numbers: one per seed.

    Example:
        >>> mean_over_seeds([0.5]).low is None
        True
    """
    return Value(*mean_interval_of(numbers))


def markdown_table(rows: Sequence[Row], comparisons: Sequence[Comparison] = ()) -> str:
    """One table per data set, best worst group first.

    Args:
        rows: of `summarise`.
        comparisons: of `aifs_peft.bench.statistics.compare`: the focus minus each method gets a column.
    """
    parts = [
        f"**{dataset}**\n\n{dataset_table([row for row in rows if row.dataset == dataset], comparisons)}"
        for dataset in dict.fromkeys(row.dataset for row in rows)
    ]
    return "\n\n".join(parts) if parts else "There are no results yet."


def dataset_table(rows: Sequence[Row], comparisons: Sequence[Comparison] = ()) -> str:
    """The table of one data set.

    Args:
        rows: of it.
        comparisons: as for `markdown_table`; those of other data sets are left aside.
    """
    against = {(c.dataset, c.other): c for c in comparisons}
    focus = next((c.focus for c in comparisons), "")
    head, *body = _cells(rows)
    lines = []
    for cells, row in zip(body, _ordered(rows), strict=True):
        found = against.get((row.dataset, row.method))
        extra = [DASH if found is None else difference(found)] if comparisons else []
        lines.append([f"`{cells[0]}`", *cells[1:3], *extra, *cells[3:]])
    return table([*head[:3], *([f"`{focus}` minus it, points"] if comparisons else []), *head[3:]], lines, texts=2)


def latex_table(rows: Sequence[Row]) -> str:
    r"""One `tabular` per data set, with `\toprule` and its like of booktabs.

    Args:
        rows: of `summarise`.
    """
    parts = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        table = [[_escaped(cell) for cell in cells] for cells in _cells([r for r in rows if r.dataset == dataset])]
        body = [" & ".join(cells) + r" \\" for cells in table]
        columns = "ll" + "r" * (len(table[0]) - 2)
        lines = [f"% {dataset}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule", *body[1:]]
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def csv_table(results: Sequence[Result]) -> str:
    """One line per run, for a spreadsheet.

    Args:
        results: contents of files.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ("dataset", "method", "supervision", "seed")
    writer.writerow(
        [*head, *METRICS, "oracle_worst_group_accuracy", "wall_seconds", "cpu_seconds", "peak_memory_bytes", "failed"]
    )
    for run in results:
        metrics = run["metrics"] or {}
        oracle = (run["oracle_selection"] or {"metrics": {}})["metrics"].get("worst_group_accuracy")
        numbers = [metrics.get(name) for name in METRICS]
        rest = [oracle, run["wall_seconds"], run["cpu_seconds"], run["peak_memory_bytes"], run["failed"]]
        writer.writerow([*(run[name] for name in head), *numbers, *rest])
    return out.getvalue()


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    """Headings and cells of one data set."""
    head = ["method", "group labels", *METRICS.values(), ORACLE_COLUMN, "processor seconds", "MB"]
    return [head, *([row.method, _supervision(row), *_numbers(row)] for row in _ordered(rows))]


def _ordered(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -_sorted_by(row))


def _sorted_by(row: Row) -> float:
    value = row.values.get("worst_group_accuracy")
    return -1.0 if value is None else value.mean


def _supervision(row: Row) -> str:
    return {"none": "none", "groups": "of training", "hints": "hints"}.get(row.supervision, row.supervision)


def _numbers(row: Row) -> list[str]:
    if not row.seeds:
        return ["cannot be run", *[DASH] * (len(METRICS) + 2)]
    shown = [_with_error(row.values.get(name)) for name in METRICS]
    rest = [DASH if value is None else f"{value.mean:.{digits}f}" for value, digits in _costs(row)]
    return [*shown, _with_error(row.oracle), *rest]


def _costs(row: Row) -> list[tuple[Value | None, int]]:
    return [(row.seconds, 2), (row.megabytes, 0)]


def _with_error(value: Value | None) -> str:
    if value is None:
        return DASH
    return f"{value.mean:.3f}" if value.high is None else f"{value.mean:.3f} ± {value.high - value.mean:.3f}"


def _escaped(text: str) -> str:
    for plain_text, latex in (("_", r"\_"), ("%", r"\%"), ("±", r"$\pm$"), ("&", r"\&"), ("#", r"\#")):
        text = text.replace(plain_text, latex)
    return text
