"""The pictures of docs/dynamics.md and of section 4 of docs/theory.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dynamics_of_tuned as tuned
import numpy as np
from dynamics_of_heads import series
from dynamics_report import result

from aifs_peft.metrics.intervals import mean_interval

# `aifs-paper` is drawn thin on top of `erm`, which it hardly differs from.
STYLES = {"erm": ("#94a3b8", 4.0), "aifs": ("#0f766e", 1.6), "aifs-paper": ("#b45309", 1.0)}


def _legend(figure: Any, panel: Any, columns: int) -> None:
    handles = panel.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def draw_dynamics(path: Path) -> None:
    """Three panels: shares of the decisions, accuracies, and curvatures, of one case."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    case = "dominoes 0.95"
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    shown = (
        ("share of the decisions", ("core_share", "spurious_share")),
        ("accuracy where it alone tells", ("core_alone", "spurious_alone")),
        ("curvature along the direction", ("curvature_core", "curvature_spurious")),
    )
    for panel, (title, names) in zip(panels, shown, strict=True):
        for method, (colour, width) in STYLES.items():
            for name, style in zip(names, ("-", "--"), strict=True):
                values = series(case, method, name)
                mean, epochs = values.mean(0), np.arange(values.shape[1])
                found = [mean_interval(column) for column in values.T]
                label = f"{method}, {'core' if style == '-' else 'spurious'}"
                panel.plot(epochs, mean, style, color=colour, linewidth=width, label=label)
                panel.fill_between(epochs, [f.low for f in found], [f.high for f in found], color=colour, alpha=0.15)
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_xlabel("epoch", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False
    )
    figure.savefig(path, dpi=110)


def draw_tuned(path: Path) -> None:
    """Three panels of the first case of a tuned encoder: contrasts, accuracies, and what is learned by heart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    case = next(iter(tuned.record()["runs"]))
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    shown = (
        ("contrast in the latents (standard deviations)", {"core_contrast": "-", "spurious_contrast": "--"}),
        ("accuracy where it alone tells", {"core_alone": "-", "spurious_alone": "--"}),
        ("conflicting: test (solid), training (dotted)", {"conflicting": "-", "memorised": ":"}),
    )
    for panel, (title, names) in zip(figure.subplots(1, 3), shown, strict=True):
        for method, (colour, width) in STYLES.items():
            for name, style in names.items() if method in tuned.record()["runs"][case] else ():
                values = tuned.series(case, method, name)
                epochs = np.arange(values.shape[1])
                panel.plot(epochs, values.mean(0), style, color=colour, linewidth=width, label=f"{method}, {style}")
                if len(values) > 1:
                    found = [mean_interval(column) for column in values.T]
                    panel.fill_between(
                        epochs, [f.low for f in found], [f.high for f in found], color=colour, alpha=0.15
                    )
                # Once training has ended: `aifs` fits the last layer anew.
                panel.plot([epochs[-1] + 0.4], [tuned.end(case, method, name).mean()], "o", color=colour, markersize=4)
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_xlabel("epoch; the dot is after training", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    lines = zip(*figure.axes[0].get_legend_handles_labels(), strict=True)
    named = {label.split(",")[0]: line for line, label in lines if label.endswith(" -")}
    figure.legend(
        named.values(), named.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False,
        title="core: solid, spurious: dashed", title_fontsize=8,
    )  # fmt: skip
    figure.savefig(path, dpi=110)


def draw_sizes(path: Path) -> None:
    """One panel per number of components: share of draws found against conflicting examples."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = result("sample_sizes")
    rows, wanted = measured["rows"], measured["settings"]["wanted"]
    contrasts, widths = sorted({r["contrast"] for r in rows}), sorted({r["k"] for r in rows})
    colours = dict(zip(contrasts, ("#94a3b8", "#b45309", "#0f766e", "#1d4ed8"), strict=True))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(widths), sharey=True)
    for panel, k in zip(panels, widths, strict=True):
        for contrast, colour in colours.items():
            own = sorted((r for r in rows if (r["contrast"], r["k"]) == (contrast, k)), key=lambda r: r["minority"])
            x = [r["minority"] for r in own]
            for kind, style in (("search", "-"), ("found", ":")):
                shares = [float(np.mean(np.asarray(r[kind]) >= wanted)) for r in own]
                panel.plot(x, shares, style, marker=".", color=colour, label=f"D = {contrast:g}, {kind}")
            rule = measured["thresholds"][f"{contrast:g}/{k}"]
            panel.plot([rule["told"]], [1.06], marker="v", color=colour, clip_on=False)
            panel.plot([rule["moments"]], [1.06], marker="s", color=colour, clip_on=False)
        panel.set_xscale("log", base=2)
        panel.set(ylim=(-0.03, 1.1))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_title(f"k = {k}; above: theory, told (triangle), second moments (square)", loc="left", fontsize=9)
        panel.set_xlabel("conflicting examples per class", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of draws found", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )
    figure.savefig(path, dpi=110)
