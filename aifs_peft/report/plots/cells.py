"""Before and after: accuracy of each cell with its interval, plain training and the method on the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aifs_peft.report.numbers import percent, value_of
from aifs_peft.report.plots.svg import clean_axes
from aifs_peft.report.plots.theme import METHOD, PLAIN, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Side = Mapping[str, Any]


def draw_cells(ax: Axes, rows: Sequence[Mapping[str, Any]], sides: Sequence[tuple[str, str]]) -> None:
    """Dots with intervals, one line per cell, the sides below each other.

    Args:
        ax: to draw on.
        rows: "cell", "n", and under each side's key "accuracy", "low" and "high" (None where missing).
        sides: key and name of each side; the first is drawn as plain training, the last as the method.
    """
    colours = dict(zip((key for key, _ in sides), (PLAIN, METHOD) if len(sides) == 2 else (METHOD,), strict=True))
    for place, row in enumerate(rows):
        for order, (key, name) in enumerate(sides):
            side: Side = row.get(key) or {}
            value = value_of(side.get("accuracy"))
            if value is None:
                continue
            height = place + (order - (len(sides) - 1) / 2) * 0.3
            low, high = (value_of(side.get(end)) for end in ("low", "high"))
            if low is not None and high is not None:
                ax.plot([100 * low, 100 * high], [height, height], color=colours[key], linewidth=2.2, alpha=0.55)
            ax.plot([100 * value], [height], "o", color=colours[key], markersize=7, label="" if place else name)
    ax.set_yticks(range(len(rows)), [_name(row) for row in rows])
    ax.set(xlim=(-2, 102), ylim=(len(rows) - 0.4, -0.6))
    ax.set_xlabel("accuracy in %, with 95 % interval")
    ax.spines["left"].set_visible(False)
    clean_axes(ax, grid="x")
    handles, _ = ax.get_legend_handles_labels()
    if len(handles) > 1:
        ax.figure.legend(handles=handles, loc="outside upper left", ncols=2, handletextpad=0.2)


def _name(row: Mapping[str, Any]) -> str:
    n = f"\nn = {row['n']:,}" if row.get("n") is not None else ""
    return f"{short(row['cell'], 24)}{n}"


def cells_words(rows: Sequence[Mapping[str, Any]], sides: Sequence[tuple[str, str]]) -> str:
    """The figure in words."""
    parts = []
    for row in rows:
        told = ", ".join(f"{name} {percent((row.get(key) or {}).get('accuracy'))}" for key, name in sides)
        parts.append(f"{short(row['cell'], 60)}: {told}")
    return "; ".join(parts) + "."
