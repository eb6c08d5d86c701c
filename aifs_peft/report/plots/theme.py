"""Colours and text of every figure, in one place.

Marks have colours of middle lightness, at least 3:1 against the page in its light and its dark form, so that they are
the same in both. Text, axes and bands change with the page: in a figure they have the light form's colours, and
`svg.to_svg` puts the page's variables in their place.
"""

from __future__ import annotations

from typing import Any

INK = "#1b2530"
MUTED = "#55626f"
LINE = "#c9d1d9"
BAND = "#e9edf1"
ALIGNED = "#3b82c4"
CONFLICTING = "#d9622b"
PLAIN = "#7d8894"
METHOD = "#12907e"
SERIES = ("#12907e", "#3b82c4", "#d9622b", "#9a6fc4", "#7d8894", "#b08a1e", "#c65a8e")

VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", BAND: "var(--band)"}
"""Colour in a figure -> the variable of the page's style sheet that stands in its place."""

MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
LONGEST = 28

SETTINGS: Any = {
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.grid": False,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    # A class may be called "$x": text from data is no formula.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelsize": 9,
    "xtick.major.size": 3,
    "ytick.color": MUTED,
    "ytick.labelsize": 9.5,
    "ytick.major.size": 3,
}


def short(text: Any, longest: int = LONGEST) -> str:
    """Text from data on one line, cut where it would not fit.

    Example:
        >>> short("a   b"), short("x" * 40, 6)
        ('a b', 'xxxxx…')
    """
    flat = " ".join(str(text).split())
    return flat if len(flat) <= longest else f"{flat[: longest - 1]}…"
