"""Figures of results: who differs from whom over data sets, and worst group against average."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aifs_peft.bench.statistics import Ranks
from aifs_peft.bench.tables import Row

_DOTS = 150
_WIDTH = 8.0


def critical_difference(ranks: Ranks, path: Path) -> Path:
    """Critical-difference diagram: average ranks, and bars over methods that do not differ.

    Args:
        ranks: of `aifs_peft.bench.statistics.rank`.
        path: of the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k = len(ranks.methods)
    rows, bars = (k + 1) // 2, ranks.alike()
    height = 1.2 + 0.24 * rows + 0.12 * len(bars)
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.9))
    depth = rows + 1 + 0.5 * len(bars)
    axes.set(xlim=(-0.9 - 0.25 * k, k + 0.25 * k + 1.9), ylim=(-depth, 1.6))
    axes.axis("off")
    axes.plot([1, k], [0, 0], color="black", linewidth=1)
    for place in range(1, k + 1):
        axes.plot([place, place], [0, 0.15], color="black", linewidth=1)
        axes.text(place, 0.25, str(place), ha="center", va="bottom", fontsize=8)
    axes.plot([1, 1 + ranks.critical], [1.1, 1.1], color="black", linewidth=1.5)
    axes.text(1, 1.2, f"critical difference {ranks.critical:.2f}", fontsize=8, va="bottom")
    for i, (first, last) in enumerate(bars):
        y = -0.3 - 0.4 * i
        axes.plot([ranks.average[first] - 0.05, ranks.average[last] + 0.05], [y, y], color="tab:blue", linewidth=3)
    for place, (name, value) in enumerate(zip(ranks.methods, ranks.average, strict=True)):
        left = place < rows
        y = -(place if left else k - 1 - place) - 1 - 0.5 * len(bars)
        edge = 0.6 if left else k + 0.4
        axes.plot([value, value, edge], [0, y, y], color="0.4", linewidth=0.8)
        axes.text(
            edge + (-0.1 if left else 0.1), y, f"{name} ({value:.1f})", ha="right" if left else "left", va="center",
            fontsize=8,
        )  # fmt: skip
    figure.savefig(path, dpi=_DOTS)
    return path


def worst_against_average(rows: Sequence[Row], path: Path, focus: str | None = None) -> Path:
    """One panel per data set: worst-group against average accuracy, with 95 % intervals over seeds.

    Args:
        rows: of `aifs_peft.bench.tables.summarise`.
        path: of the PNG file.
        focus: a method that stands out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    datasets = list(dict.fromkeys(row.dataset for row in rows))
    columns = min(3, len(datasets))
    lines = -(-len(datasets) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels[len(datasets) :]:
        panel.axis("off")
    for panel, dataset in zip(panels, datasets, strict=False):
        for row in rows:
            if row.dataset != dataset or not row.seeds:
                continue
            x, y = row.values["average_accuracy"], row.values["worst_group_accuracy"]
            colour = "tab:red" if row.method == focus else "tab:grey" if row.supervision == "groups" else "tab:blue"
            panel.errorbar(
                x.mean, y.mean, fmt="o", markersize=4, color=colour, elinewidth=0.7,
                xerr=None if x.high is None else x.high - x.mean, yerr=None if y.high is None else y.high - y.mean,
            )  # fmt: skip
            panel.annotate(row.method, (x.mean, y.mean), xytext=(3, 3), textcoords="offset points", fontsize=6)
        panel.set(title=dataset, xlabel="average accuracy", ylabel="worst-group accuracy")
    figure.savefig(path, dpi=_DOTS)
    return path
