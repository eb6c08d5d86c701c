"""Share of predictions that change with the attribute: plain training and this model, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aifs_peft.report.numbers import percent, value_of
from aifs_peft.report.plots.svg import clean_axes
from aifs_peft.report.plots.theme import INK, METHOD, PLAIN, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"plain": PLAIN, "method": METHOD}


def draw_toggled(ax: Axes, rows: Sequence[Mapping[str, Any]], sides: Sequence[tuple[str, str]]) -> None:
    """Bars of the share of predictions that change, from 0 to 100 per cent.

    Args:
        ax: to draw on.
        rows: "cell" and, per side, "changed".
        sides: key and name of what stands side by side.
    """
    height = 0.8 / max(len(sides), 1)
    for place, (key, name) in enumerate(sides):
        shares = [100 * (value_of((row.get(key) or {}).get("changed")) or 0.0) for row in rows]
        at = [i + (place - (len(sides) - 1) / 2) * height for i in range(len(rows))]
        bars = ax.barh(at, shares, height=0.86 * height, color=_COLOURS[key], label=name)
        ax.bar_label(bars, [f"{share:.0f}" for share in shares], padding=3, fontsize=8.5, color=INK)
    ax.set_yticks(range(len(rows)), [short(row["cell"], 22) for row in rows])
    ax.invert_yaxis()
    ax.set_xlim(0, 107)
    ax.set_xticks(range(0, 101, 25))
    ax.set_xlabel("predictions that change, %")
    clean_axes(ax, grid="x")
    ax.figure.legend(loc="outside upper left", ncols=2, handlelength=1.2, columnspacing=1.2)


def toggled_words(rows: Sequence[Mapping[str, Any]], sides: Sequence[tuple[str, str]]) -> str:
    """The same as text."""
    told = []
    for row in rows:
        values = " and ".join(f"{percent((row.get(key) or {}).get('changed'))} of {name}" for key, name in sides)
        told.append(f"{row['cell']}: {values}")
    return f"Share of predictions that change. {'; '.join(told)}."
