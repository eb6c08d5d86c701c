"""Draw the README's picture from the embedded data and `results/demo.json`: `python benchmarks/render_hero.py`.

Left: training examples that follow the shortcut, and some that go against it. Right: worst-group accuracy by method.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
import matplotlib.pyplot as plt

from aifs_peft import data

ROOT = Path(__file__).resolve().parent.parent
BAR_COLOURS = {"erm": "#9aa4b2", "aifs-paper": "#9aa4b2", "aifs": "#0f766e"}


def main() -> None:
    """Write docs/img/hero.png."""
    train = data.load("digits_on_scenes")["train"]
    label, attribute = np.asarray(train["label"]), np.asarray(train["attribute"])
    names = train.features["label"].names, train.features["attribute"].names
    result = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text())["methods"]
    follows = float((label == attribute).mean())
    figure = plt.figure(figsize=(11, 3.3), dpi=110, facecolor="white")
    grid = figure.add_gridspec(2, 12, left=0.015, right=0.985, top=0.86, bottom=0.1, wspace=0.12, hspace=0.5)
    for row, (rule, title, colour) in enumerate(
        (
            (
                label == attribute,
                f"{follows:.0%} of the training images: the background goes with the class",
                "#475569",
            ),
            (
                label != attribute,
                f"{1 - follows:.0%}: it goes against it. AIFS looks for these, without group labels",
                "#b91c1c",
            ),
        )
    ):
        chosen = [i for k in (0, 1) for i in np.flatnonzero(rule & (label == k))[:4]]
        for column, i in enumerate(chosen):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(train[int(i)]["image"])
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(edgecolor=colour, linewidth=2)
            axis.set_xlabel(names[0][label[i]], fontsize=7, color="#475569", labelpad=2)
            if column == 0:
                axis.set_title(title, loc="left", fontsize=9.5, color=colour, pad=5)
    axis = figure.add_subplot(grid[:, 9:])
    means = {name: entry["worst_group_accuracy"]["mean"] for name, entry in result.items()}
    axis.barh(list(means), list(means.values()), color=[BAR_COLOURS[name] for name in means], height=0.6)
    for position, value in enumerate(means.values()):
        axis.text(value + 0.015, position, f"{value:.2f}", va="center", fontsize=10, color="#0f172a")
    axis.set(xlim=(0, 1), xticks=[0, 0.5, 1])
    axis.invert_yaxis()
    axis.set_title("worst-group accuracy on test images", loc="left", fontsize=9.5, color="#475569", pad=5)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False, labelsize=9)
    figure.savefig(ROOT / "docs" / "img" / "hero.png")


if __name__ == "__main__":
    main()
