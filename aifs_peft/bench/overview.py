"""The table that comes first: worst group of every method on every data set."""

from __future__ import annotations

from collections.abc import Sequence

from aifs_peft.bench.experiment import Experiment
from aifs_peft.bench.formatting import DASH, percent, table
from aifs_peft.bench.statistics import Ranks, rank
from aifs_peft.bench.tables import WORST, Row

NOT_RUN, FAILED = "not run yet", "cannot be run"
APART = "*told group labels:*"
# Supervision of methods that see no true group here: `spume`, which can read attributes, gets none.
LABEL_FREE = ("none", "hints")


def overview_table(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Methods by data sets, worst-group accuracy in percent; the best method without group labels is bold.

    Args:
        experiment: orders data sets, of which those with results are shown, and names all methods.
        rows: of `aifs_peft.bench.tables.summarise`.

    Returns:
        Markdown. Methods without group labels come first, by their average rank where there is one, else by their mean.
    """
    cells = {(row.dataset, row.method): row for row in rows}
    datasets = [entry.name for entry in experiment.data if any(row.dataset == entry.name for row in rows)]
    ranks = ranks_of(rows)
    order = _order(experiment, cells, ranks)
    free = [name for name in order if not _told(cells, name)]
    best = {d: best_of(rows, d, free) for d in datasets}
    shown = {} if ranks is None else dict(zip(ranks.methods, ranks.average, strict=True))

    def line(name: str) -> list[str]:
        numbers = [_cell(cells.get((d, name)), bold=best[d] == name) for d in datasets]
        return [f"`{name}`", *numbers, *([f"{shown[name]:.1f}" if name in shown else DASH] if shown else [])]

    told = [name for name in order if name not in free]
    head = ["method", *datasets, *(["average rank"] if shown else [])]
    middle = [[APART, *[""] * (len(head) - 1)]] if told else []
    return table(head, [*map(line, free), *middle, *map(line, told)])


def best_of(rows: Sequence[Row], dataset: str, methods: Sequence[str]) -> str | None:
    """The method with the best mean worst group; None where none has a number.

    Args:
        rows: of `summarise`.
        dataset: where.
        methods: among which.
    """
    means = {row.method: row.values[WORST].mean for row in rows if row.dataset == dataset and WORST in row.values}
    known = [name for name in methods if name in means]
    return max(known, key=lambda name: means[name]) if known else None


def ranks_of(rows: Sequence[Row]) -> Ranks | None:
    """Ranks of methods over data sets by mean worst group; a data set where a method was not run yet is left aside.

    Args:
        rows: of `summarise`.
    """
    ran: dict[str, set[str]] = {}
    means: dict[str, dict[str, float]] = {}
    for row in rows:
        ran.setdefault(row.dataset, set()).add(row.method)
        means.setdefault(row.dataset, {})
        if WORST in row.values:
            means[row.dataset][row.method] = row.values[WORST].mean
    every = set().union(*ran.values())
    return rank({dataset: of for dataset, of in means.items() if ran[dataset] == every})


def label_free(rows: Sequence[Row]) -> list[str]:
    """Methods that are told no true group, in the order of the rows.

    Args:
        rows: of `summarise`.
    """
    return list(dict.fromkeys(row.method for row in rows if row.supervision in LABEL_FREE))


def _told(cells: dict[tuple[str, str], Row], name: str) -> bool:
    return any(row.supervision not in LABEL_FREE for (_, method), row in cells.items() if method == name)


def _order(experiment: Experiment, cells: dict[tuple[str, str], Row], ranks: Ranks | None) -> list[str]:
    """By average rank, then by mean; methods without a number last, as the experiment has them."""
    ranked = [] if ranks is None else ranks.methods

    def key(name: str) -> tuple[float, float]:
        means = [row.values[WORST].mean for (_, method), row in cells.items() if method == name and WORST in row.values]
        place = ranked.index(name) if name in ranked else len(ranked)
        return place, -(sum(means) / len(means) if means else -1.0)

    return sorted((entry.name for entry in experiment.methods), key=key)


def _cell(row: Row | None, *, bold: bool) -> str:
    if row is None:
        return NOT_RUN
    if WORST not in row.values:
        return FAILED
    value = row.values[WORST]
    text = percent(value.mean, value.high)
    return f"**{text}**" if bold else text
