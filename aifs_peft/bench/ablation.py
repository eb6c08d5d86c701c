"""What each part is worth: every variant of an experiment beside its focus, paired by seed."""

from __future__ import annotations

from collections.abc import Sequence

from aifs_peft.bench.experiment import Experiment
from aifs_peft.bench.formatting import differs, listed, percent, points, table
from aifs_peft.bench.overview import FAILED, NOT_RUN
from aifs_peft.bench.statistics import Comparison
from aifs_peft.bench.tables import WORST, Row

# What a sentence calls a loss or a gain, beside being there after the correction.
_WORTH = 0.01


def ablation_table(experiment: Experiment, rows: Sequence[Row], comparisons: Sequence[Comparison]) -> str:
    """Variants by data sets: worst group of each minus the focus's, in points; the focus itself in percent, first.

    Args:
        experiment: orders data sets, of which those with results are shown, and names variants and focus.
        rows: of `aifs_peft.bench.tables.summarise`.
        comparisons: of `aifs_peft.bench.statistics.compare`, of the focus.

    Returns:
        Markdown, the costliest variants first.
    """
    cells = {(row.dataset, row.method): row for row in rows}
    against = {(c.dataset, c.other): c for c in comparisons}
    datasets = [entry.name for entry in experiment.data if any(row.dataset == entry.name for row in rows)]

    def own(dataset: str) -> str:
        row = cells.get((dataset, str(experiment.focus)))
        if row is None or WORST not in row.values:
            return NOT_RUN if row is None else FAILED
        return percent(row.values[WORST].mean, row.values[WORST].high)

    def other(dataset: str, name: str) -> str:
        found = against.get((dataset, name))
        if found is None:
            row = cells.get((dataset, name))
            return FAILED if row is not None and not row.seeds else NOT_RUN
        text = _minus(found)
        return f"**{text}**" if differs(found) else text

    names = [entry.name for entry in experiment.methods if entry.name != experiment.focus]
    of = {name: [-c.difference for c in comparisons if c.other == name] for name in names}
    names.sort(key=lambda name: sum(of[name]) / len(of[name]) if of[name] else 0.0)
    lines = [[f"`{experiment.focus}`, worst group in percent", *map(own, datasets)]]
    lines += [[f"`{name}`", *(other(dataset, name) for dataset in datasets)] for name in names]
    return table(["", *datasets], lines)


def ablation_sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """Which changes cost, which gain, which change nothing, and of which the seeds show neither.

    Args:
        comparisons: of the focus against its variants.
    """
    variants = list(dict.fromkeys(c.other for c in comparisons))
    costs: list[str] = []
    gains: list[str] = []
    alike: list[str] = []
    undecided: list[str] = []
    for name in variants:
        of = [c for c in comparisons if c.other == name]
        lost = [c for c in of if differs(c) and c.difference > _WORTH]
        won = [c for c in of if differs(c) and -c.difference > _WORTH]
        for found, texts in ((lost, costs), (won, gains)):
            if found:
                texts.append(f"`{name}` on {_where(found, len(of))}")
        if not lost and not won:
            (alike if all(map(_within, of)) else undecided).append(f"`{name}`")
    sentences = []
    if costs:
        sentences.append(f"Costs more than 1 point of worst group: {'; '.join(costs)}.")
    if gains:
        sentences.append(f"Gains more than 1 point: {'; '.join(gains)}.")
    if alike:
        sentences.append(f"Within 1 point on every data set, for the whole interval: {listed(alike)}.")
    if undecided:
        sentences.append(f"Not shown either way by these seeds: {listed(undecided)}.")
    return sentences


def _within(comparison: Comparison) -> bool:
    low, high = comparison.low, comparison.high
    return low is not None and high is not None and low >= -_WORTH and high <= _WORTH


def _where(found: Sequence[Comparison], n: int) -> str:
    """Names of the data sets with their differences, or the range where it is all of several."""
    if 2 < len(found) == n:
        differences = [-c.difference for c in found]
        return f"all {n} ({points(min(differences))} to {points(max(differences))})"
    return listed([f"{c.dataset} ({points(-c.difference)})" for c in found])


def _minus(comparison: Comparison) -> str:
    """Variant minus focus."""
    low, high = comparison.low, comparison.high
    if low is None or high is None:
        return points(-comparison.difference)
    return points(-comparison.difference, -high, -low)
