"""What the conflicting examples share: columns of metadata against what chance gives, and words of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aifs_peft.report.numbers import value_of
from aifs_peft.report.plots.svg import clean_axes
from aifs_peft.report.plots.theme import BAND, CONFLICTING, MUTED, PLAIN, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_associations(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per column: its strength as a dot, the band that chance fills in 95 of 100 cases behind it.

    Args:
        ax: to draw on.
        rows: "column", "strength", "null_high" and "significant", strongest first.
    """
    for place, row in enumerate(rows):
        high, strength = (value_of(row.get(name)) for name in ("null_high", "strength"))
        if high is not None:
            ax.plot([0.0, high], [place, place], color=BAND, linewidth=11, solid_capstyle="butt", zorder=1)
        if strength is not None:
            colour = CONFLICTING if row.get("significant") else PLAIN
            ax.plot([strength], [place], "o", color=colour, markersize=7, zorder=3)
    ax.set_yticks(range(len(rows)), [short(row["column"], 22) for row in rows])
    ax.set(xlim=(-0.03, 1.03), ylim=(len(rows) - 0.4, -0.6))
    ax.set_xlabel("association with the inferred attribute; band: chance")
    ax.spines["left"].set_visible(False)
    clean_axes(ax, grid="x")


def draw_words(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Words of the vocabulary by how well they tell the examples apart, with what the best of random texts reaches.

    Args:
        ax: to draw on.
        rows: "word", "score", "null_high" and "significant", strongest first.
    """
    limit = value_of(rows[0].get("null_high"))
    colours = [CONFLICTING if row.get("significant") else PLAIN for row in rows]
    ax.barh(range(len(rows)), [value_of(row["score"]) or 0.0 for row in rows], color=colours, height=0.6)
    if limit is not None:
        ax.axvline(limit, color=MUTED, linewidth=1.2, linestyle=(0, (3, 3)))
        ax.annotate("chance", (limit, -0.55), (3, 0), textcoords="offset points", color=MUTED, fontsize=8.5, va="top")
    ax.set_yticks(range(len(rows)), [short(row["word"], 22) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("score of the word, in standard deviations")
    ax.spines["left"].set_visible(False)
    clean_axes(ax, grid="x")
