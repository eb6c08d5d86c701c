"""Draw the pictures of docs/discovery.md from real latents, one per step of the algorithm.

    AIFS_SHARED=DIR python benchmarks/render_discovery_docs.py

Dominoes at an aligned share of 0.9, drawn with seed 0. The true attribute decides only the marks in the pictures, never
the algorithm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from discovery_dominoes import dominoes
from numpy.typing import NDArray

from aifs_peft.discovery import Discovery, discover
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.mixture.additive import additive_model
from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.discovery.proposals.margins import held_out_margins

FOLDER = Path(__file__).parent.parent / "docs" / "img"
SHARE, SEED = 0.9, 0
K_MARGINS = 32
# Dark and light tell the classes apart in grey, too; conflicting examples differ by their mark.
COLOURS = ("#0b3c5d", "#f2a65a")
NAMES = ("automobile", "truck")


def margins(X: NDArray[np.floating], y: NDArray[np.int64], a: NDArray[np.int64]) -> Any:
    """Held-out margins, aligned against conflicting."""
    import matplotlib.pyplot as plt

    margin, _ = held_out_margins(
        X[:, :K_MARGINS], y, 2, rng=np.random.default_rng(SEED), config=DEFAULT_CONFIG.proposals
    )
    figure, axes = plt.subplots(figsize=(5.6, 3.2))
    edges = np.linspace(margin.min(), margin.max(), 50)
    axes.hist(margin[a == y], edges, color="#9aa5b1", label=f"aligned ({np.sum(a == y):,})")
    axes.hist(
        margin[a != y], edges, color="#b3261e", alpha=0.75, hatch="///", label=f"conflicting ({np.sum(a != y):,})"
    )
    cut = max(np.quantile(margin[y == c], 0.1) for c in (0, 1))
    axes.axvline(cut, color="black", linestyle="--", linewidth=1, label="smallest margins, 10 %")
    axes.set_xlabel(f"held-out margin, logits (k = {K_MARGINS}, L2 = {DEFAULT_CONFIG.proposals.margin_l2:g})")
    axes.set_ylabel("examples")
    axes.legend(frameon=False, loc="upper left")
    axes.set_xlim(margin.min() - 2.0, margin.max())
    return figure


def evidence(with_shortcut: Discovery, without: Discovery) -> Any:
    """Evidence of every refined partition against the number of components, with and without a shortcut in the data."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 3.4))
    marks = {"margins": ("o", 0.93), "trimmed": ("^", 1.0), "component": ("s", 1.07)}
    names = {"margins": "held-out margins", "trimmed": "trimmed discriminant", "component": "leading components"}
    for source, (mark, shift) in marks.items():
        for found, share, colour in ((with_shortcut, SHARE, "#0b3c5d"), (without, 0.5, "#b3261e")):
            for accepted in (True, False):
                shown = [c for c in found.candidates_ if c.source == source and c.accepted == accepted]
                if not shown:
                    continue
                label = f"{share:.0%} aligned, {names[source]}: {'passed' if accepted else 'refused by the gate'}"
                gains = [c.gain for c in shown]
                face = colour if accepted else "none"
                axes.scatter([shift * c.k for c in shown], gains, marker=mark, facecolors=face, edgecolors=colour,
                             s=36, label=label)  # fmt: skip
    axes.axhline(0.0, color="black", linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    ticks = sorted({c.k for found in (with_shortcut, without) for c in found.candidates_})
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set_xlabel("number of principal components k")
    axes.set_ylabel("evidence: relative strength above its gate, in 1/100")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.3))
    return figure


def groups(X: NDArray[np.floating], y: NDArray[np.int64], a: NDArray[np.int64], found: Discovery) -> Any:
    """Latents along the class's and the attribute's discriminant, marked by what was inferred."""
    import matplotlib.pyplot as plt

    model = additive_model(X, y, found.responsibilities_)
    sigma = model.sigma + 0.2 * np.trace(model.sigma) / len(model.sigma) * np.eye(len(model.sigma))
    contrasts = np.stack([np.diff(model.beta, axis=0)[0], np.diff(model.alpha, axis=0)[0]])
    weights = np.linalg.solve(sigma, contrasts.T)
    weights /= np.sqrt(np.diag(weights.T @ model.sigma @ weights))
    shown = np.random.default_rng(SEED).permutation(len(y))[:1500]
    points, moved = (X @ weights)[shown], found.groups_[shown] != y[shown]
    figure, axes = plt.subplots(figsize=(5.6, 4.0))
    marks: tuple[tuple[NDArray[np.bool_], str, dict[str, Any]], ...] = (
        (~moved, "inferred aligned", {"s": 6, "linewidths": 0}),
        (moved, "inferred conflicting", {"s": 36, "marker": "X", "edgecolors": "black", "linewidths": 0.7}),
    )
    for rows, name, style in marks:
        for c in (0, 1):
            chosen = points[rows & (y[shown] == c)]
            axes.scatter(*chosen.T, color=COLOURS[c], label=f"{NAMES[c]}, {name}", **style)
    wrong = (found.groups_ != a)[shown]
    axes.scatter(*points[wrong].T, s=110, facecolors="none", edgecolors="#b3261e", label="inferred wrongly")
    axes.set_xlabel("along the attribute, standard deviations within a group")
    axes.set_ylabel("along the class, standard deviations")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.24), ncols=2)
    return figure


def main() -> None:
    """Draw and save."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.bbox": "tight"})
    (Z, y, a), _ = dominoes(SHARE, SEED)
    X = principal_components(Z, 256, rng=np.random.default_rng(SEED)).transform(Z)
    found = discover(Z, y, random_state=SEED)
    (balanced, labels, _), _ = dominoes(0.5, SEED)
    nothing = discover(balanced, labels, random_state=SEED)
    print(found.summary(), nothing.summary(), sep="\n\n")
    pictures = {
        "margins": margins(X, y, a),
        "evidence": evidence(found, nothing),
        "groups": groups(X, y, a, found),
    }
    for name, figure in pictures.items():
        # Without dates or versions in the file, the same picture is the same bytes.
        figure.savefig(FOLDER / f"discovery_{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
