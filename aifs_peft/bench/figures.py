"""Figures of results: who differs from whom over data sets, worst group against average, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifs_peft.bench.curves import Curve
from aifs_peft.bench.group_labels import count_text
from aifs_peft.bench.overview import best_of, label_free
from aifs_peft.bench.statistics import Ranks, mean_interval_of
from aifs_peft.bench.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS = 110
_WIDTH = 8.0
_COLUMNS = 3
PLAIN = "erm"
# More methods than that in a panel: only some have their name beside the dot.
_NAMED = 8


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
        focus: a method that stands out. Of many methods only the best of the others without group labels has its name.
    """
    datasets = list(dict.fromkeys(row.dataset for row in rows if row.seeds))
    figure, panels = _panels(len(datasets))
    free = label_free(rows)
    kinds: dict[str, Any] = {}
    for panel, dataset in zip(panels, datasets, strict=False):
        here = [row for row in rows if row.dataset == dataset and row.seeds]
        best = best_of(rows, dataset, [name for name in free if name not in (focus, PLAIN)])
        for row in here:
            kind, colour = _kind(row.method, focus, free)
            x, y = row.values["average_accuracy"], row.values["worst_group_accuracy"]
            kinds[kind] = panel.errorbar(
                x.mean, y.mean, fmt="o", markersize=4, color=colour, elinewidth=0.7, zorder=3 if kind == focus else 2,
                xerr=None if x.high is None else x.high - x.mean, yerr=None if y.high is None else y.high - y.mean,
            )  # fmt: skip
            if len(here) <= _NAMED or row.method == best:
                panel.annotate(
                    row.method, (x.mean, y.mean), xytext=(-4, -3), textcoords="offset points", ha="right", va="top",
                    fontsize=7,
                )  # fmt: skip
        panel.set(title=dataset, xlabel="average accuracy", ylabel="worst-group accuracy")
        panel.set(xlim=[max(-0.02, panel.get_xlim()[0]), min(1.02, panel.get_xlim()[1])])
        panel.set(ylim=[max(-0.02, panel.get_ylim()[0]), min(1.02, panel.get_ylim()[1])])
    figure.legend(kinds.values(), kinds.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=_DOTS)
    return path


def _kind(method: str, focus: str | None, free: Sequence[str]) -> tuple[str, str]:
    """What a dot stands for, and its colour."""
    if method == focus:
        return method, "tab:red"
    if method == PLAIN:
        return "plain training", "black"
    return ("without group labels", "tab:blue") if method in free else ("told group labels", "tab:grey")


def strength_figure(curves: Sequence[Curve], path: Path) -> Path:
    """One panel per family of interventions: worst group (solid) and average (dashed) against strength.

    Args:
        curves: of `aifs_peft.bench.curves.strength_curves`.
        path: of the PNG file.
    """
    families = list(dict.fromkeys(curve.family for curve in curves))
    figure, panels = _panels(len(families))
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(curve.dataset for curve in curves))}
    for panel, family in zip(panels, families, strict=False):
        of = [curve for curve in curves if curve.family == family]
        places = sorted({point.x for curve in of for point in curve.points})
        for curve in of:
            x = [places.index(point.x) for point in curve.points]
            share = "" if curve.aligned_share is None else f", {100 * curve.aligned_share:g} % aligned"
            _line(panel, x, [point.worst for point in curve.points], colours[curve.dataset], f"{curve.dataset}{share}")
            average = [mean_interval_of(list(point.average.values()))[0] for point in curve.points]
            panel.plot(x, average, color=colours[curve.dataset], linestyle="--", linewidth=0.9)
        panel.set(title=family, xlabel="strength", ylabel="worst group; average dashed", ylim=(0, 1))
        panel.set_xticks(range(len(places)), [f"{place:g}" for place in places])
        panel.legend(fontsize=6, frameon=False)
    figure.savefig(path, dpi=_DOTS)
    return path


def label_figure(curves: Sequence[Curve], levels: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> Path:
    """One panel per data set: worst group against known groups, beside methods that know none as level lines.

    Args:
        curves: of `aifs_peft.bench.curves.label_curves`.
        levels: worst groups, one per seed, by method without group labels and data set.
        path: of the PNG file.
    """
    datasets = list(dict.fromkeys(curve.dataset for curve in curves))
    figure, panels = _panels(len(datasets))
    for panel, dataset in zip(panels, datasets, strict=False):
        of = [curve for curve in curves if curve.dataset == dataset]
        places = sorted({point.x for curve in of for point in curve.points})
        for i, curve in enumerate(of):
            x = [places.index(point.x) for point in curve.points]
            _line(panel, x, [point.worst for point in curve.points], f"C{i}", curve.family)
        for i, (name, by_data) in enumerate(levels.items()):
            if by_data.get(dataset):
                mean, low, high = mean_interval_of(list(by_data[dataset]))
                colour = "tab:red" if i == 0 else "tab:grey"
                panel.axhline(mean, color=colour, linewidth=1, linestyle=":", label=f"{name}, no group labels")
                if low is not None and high is not None:
                    panel.axhspan(low, high, color=colour, alpha=0.12, linewidth=0)
        panel.set(title=dataset, xlabel="validation examples with known group", ylabel="worst-group accuracy")
        panel.set_xticks(range(len(places)), [count_text(place) for place in places])
        panel.legend(fontsize=6, frameon=False)
    figure.savefig(path, dpi=_DOTS)
    return path


def _panels(n: int) -> tuple[Figure, Any]:
    """A figure with `n` panels, three beside each other; what is left of the last line is empty."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(1, min(_COLUMNS, n))
    lines = max(1, -(-n // columns))
    figure = Figure(figsize=(4.0 * columns, 3.4 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels[n:]:
        panel.axis("off")
    return figure, panels


def _line(panel: Any, x: Sequence[int], numbers: Sequence[Mapping[int, float]], colour: str, name: str) -> None:
    """Means of the places with their intervals."""
    found = [mean_interval_of(list(by_seed.values())) for by_seed in numbers]
    error = [0.0 if high is None else high - mean for mean, _, high in found]
    panel.errorbar(
        x, [mean for mean, _, _ in found], yerr=error, color=colour, marker="o", markersize=3, linewidth=1.2,
        elinewidth=0.7, label=name,
    )  # fmt: skip
