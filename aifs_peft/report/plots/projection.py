"""Latents along the class and along the attribute: where the conflicting examples lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aifs_peft.report.plots.svg import clean_axes
from aifs_peft.report.plots.theme import ALIGNED, CONFLICTING, MARKERS, PLAIN, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY_POINTS = 500
"""From here on points are one picture within the figure, not one element each."""


def draw_projection(ax: Axes, points: Sequence[Mapping[str, Any]], *, found: bool) -> None:
    """Scatter of examples; colour tells aligned from conflicting, the mark tells the label.

    Args:
        ax: to draw on.
        points: "class_axis", "attribute_axis", "label" and "inferred" of each.
        found: whether an attribute was found; without one there is nothing to conflict with.
    """
    x = np.array([point["class_axis"] for point in points], dtype=float)
    y = np.array([point["attribute_axis"] for point in points], dtype=float)
    labels = [str(point["label"]) for point in points]
    conflicting = np.array([str(p["label"]) != str(p["inferred"]) for p in points], dtype=bool)
    names = sorted(set(labels))
    marks = dict(zip(names, MARKERS, strict=False)) if len(names) <= len(MARKERS) else {}
    label = np.array(labels)
    for moved, colour, size, alpha in ((False, ALIGNED if found else PLAIN, 11, 0.4), (True, CONFLICTING, 24, 0.95)):
        for name in names:
            chosen = (label == name) & (conflicting == moved)
            if chosen.any():
                ax.scatter(
                    x[chosen], y[chosen], s=size, c=colour, alpha=alpha, marker=marks.get(name, "o"), linewidths=0,
                    rasterized=len(points) > MANY_POINTS, zorder=3 if moved else 2,
                )  # fmt: skip
    _legend(ax, {name: marks[name] for name in names if name in marks}, bool(conflicting.any()), found=found)
    ax.set_xlabel("along the class")
    ax.set_ylabel("along the attribute")
    clean_axes(ax, grid="both")


def _legend(ax: Axes, marks: Mapping[str, str], conflicting: bool, *, found: bool) -> None:
    from matplotlib.lines import Line2D

    def handle(label: str, colour: str, marker: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markersize=6, label=label)

    handles = [handle("aligned", ALIGNED, "o")] if found else []
    handles += [handle("conflicting", CONFLICTING, "o")] if conflicting else []
    handles += [handle(short(name, 18), PLAIN, mark) for name, mark in marks.items()]
    ax.figure.legend(handles=handles, loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.2)
