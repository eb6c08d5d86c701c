"""Evidence against its scale: every candidate that was tried, the gate, and what the words mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aifs_peft.report.numbers import value_of
from aifs_peft.report.plots.svg import clean_axes
from aifs_peft.report.plots.theme import BAND, CONFLICTING, INK, MUTED, PLAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_evidence(
    ax: Axes,
    evidence: float,
    *,
    found: bool,
    candidates: Sequence[float] = (),
    scale: Sequence[tuple[float, str]] = (),
) -> None:
    """The evidence on a line from "as by chance" over the gate (0) to the strongest.

    Args:
        ax: to draw on.
        evidence: of what was found; 0 where nothing was.
        found: whether anything was.
        candidates: evidence of everything that was tried.
        scale: lower bounds with their words, such as `(0, "weak"), (20, "clear")`.
    """
    beyond = [2 * bound for bound, _ in scale if bound > 0]
    known = [value for value in map(value_of, candidates) if value is not None]
    right = max(beyond) if beyond else max([evidence * 1.25, *known, 10.0])
    left = -max(0.25 * right, min(right, -min([0.0, *known])))
    # What lies off the line stands at its end.
    known = [min(max(value, left), right) for value in known]
    shown = min(evidence, 0.95 * right)
    ax.axvspan(left, 0, color=BAND, zorder=0, linewidth=0)
    ax.axvline(0, color=MUTED, linewidth=1.2, zorder=2)
    if known:
        ax.plot(known, [0.0] * len(known), "|", color=PLAIN, markersize=16, markeredgewidth=1.5, zorder=3)
    if found:
        ax.plot([shown], [0.0], "o" if shown == evidence else ">", color=CONFLICTING, markersize=11, zorder=4)
        ax.annotate(f"{evidence:,.0f}", (shown, 0.0), (0, 12), textcoords="offset points", ha="center", color=INK,
                    weight="bold")  # fmt: skip
    for bound, word in scale:
        ax.axvline(bound, color=MUTED, linewidth=0.6, linestyle=(0, (2, 3)), zorder=1)
        ax.annotate(word, (bound, -0.9), (4, 0), textcoords="offset points", color=MUTED, fontsize=8.5, va="bottom")
    ax.annotate("passes for chance", (0, 0.95), (-5, 0), textcoords="offset points", ha="right", va="top",
                color=MUTED, fontsize=8.5)  # fmt: skip
    ax.annotate("gate", (0, 0.95), (5, 0), textcoords="offset points", va="top", color=INK, fontsize=8.5)
    ax.set(xlim=(left, right), ylim=(-1, 1), yticks=[])
    ax.set_xlabel("evidence")
    ax.spines["left"].set_visible(False)
    clean_axes(ax)


def evidence_words(
    evidence: float, *, found: bool, candidates: Sequence[float] = (), scale: Sequence[tuple[float, str]] = ()
) -> str:
    """The figure in words."""
    many = f"{len(candidates)} candidates were tried. " if candidates else ""
    passed = f"The accepted one has evidence {evidence:.1f}." if found else "None passed."
    told = ", ".join(f"{word} from {low:g}" for low, word in scale)
    return f"{many}The gate is at 0. {passed}" + (f" Scale: {told}." if told else "")
