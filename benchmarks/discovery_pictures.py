"""The pictures of docs/discovery.md and of the research log; drawn by `render_discovery_docs.py --pictures`.

The guide's are drawn from embedded data, digits over photographs in the latents of the embedded encoder, and the log's
from dominoes at an aligned share of 0.9. The true attribute decides only marks of what is wrong, never the algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery import Discovery, discover
from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.mixture.additive import additive_model
from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.discovery.proposals.margins import held_out_margins

SHARE, SEED = 0.95, 0
K_MARGINS = 32
# Dark and light tell the classes apart in grey, too; conflicting examples differ by their mark.
COLOURS = ("#0b3c5d", "#f2a65a")


@dataclass(frozen=True)
class Encoded:
    """Images, their latents `(n, d)`, labels and attribute `(n,)`, and the classes' names."""

    images: list[Any]
    Z: NDArray[np.floating]
    y: NDArray[np.int64]
    a: NDArray[np.int64]
    names: list[str]


def embedded(aligned_share: float) -> Encoded:
    """The training images of the embedded data, in the latents of the embedded encoder."""
    import torch
    from transformers import AutoImageProcessor, CLIPModel

    from aifs_peft.data import load

    data = load("digits_on_scenes", aligned_share=aligned_share)["train"]
    folder = str(files("aifs_peft") / "assets" / "tiny_clip")
    encoder = CLIPModel.from_pretrained(folder).eval().vision_model
    processor = AutoImageProcessor.from_pretrained(folder)
    images = data["image"][:]
    with torch.no_grad():
        Z = encoder(processor(images, return_tensors="pt").pixel_values).pooler_output.numpy()
    y, a = (np.array(data[column][:], dtype=np.int64) for column in ("label", "attribute"))
    return Encoded(images, Z, y, a, data.features["label"].names)


def sheet(data: Encoded, found: Discovery) -> Any:
    """A row of aligned and a row of conflicting images of each class, the most certain ones first."""
    import matplotlib.pyplot as plt

    frame = found.to_frame()
    columns = 10
    figure, axes = plt.subplots(4, columns, figsize=(7.6, 3.4))
    for c, name in enumerate(data.names):
        for row, conflicting in ((2 * c, False), (2 * c + 1, True)):
            rows = frame[(data.y == c) & (frame["conflicting"] == conflicting)]
            chosen = rows.sort_values("confidence", ascending=False, kind="stable")["row"]
            for i, panel in enumerate(axes[row]):
                panel.imshow(data.images[chosen.iloc[i]])
                panel.set_xticks([])
                panel.set_yticks([])
            text = "against it" if conflicting else "with the shortcut"
            axes[row, 0].set_ylabel(f"{name}\n{text}", rotation=0, ha="right", va="center")
    figure.subplots_adjust(wspace=0.05, hspace=0.05)
    return figure


def evidence(with_shortcut: Discovery, without: Discovery) -> Any:
    """The two tests of the gate that decide most often, for every partition that was tried."""
    import matplotlib.pyplot as plt

    gate = DEFAULT_CONFIG.gate
    figure, axes = plt.subplots(figsize=(5.6, 3.4))
    for found, name, colour, mark in (
        (with_shortcut, f"shortcut in {SHARE:.0%} of the images", "#0b3c5d", "o"),
        (without, "no shortcut", "#b3261e", "^"),
    ):
        for accepted in (True, False):
            shown = [c for c in found.candidates_ if c.accepted == accepted]
            if not shown:
                continue
            relative = [c.gain / 100 + gate.relative for c in shown]
            face = colour if accepted else "none"
            axes.scatter([c.strength for c in shown], relative, marker=mark, facecolors=face, edgecolors=colour, s=40,
                         label=f"{name}: {'passed' if accepted else 'turned away'}")  # fmt: skip
    axes.axvline(gate.refined_strength, color="black", linestyle="--", linewidth=1)
    axes.axhline(gate.relative, color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("attribute contrast, standard deviations")
    axes.set_ylabel("relative strength")
    axes.set_xlim(left=0.0)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def groups(data: Encoded, found: Discovery) -> Any:
    """Latents along the class's and the attribute's discriminant, marked by what was inferred."""
    import matplotlib.pyplot as plt

    X = principal_components(data.Z, rng=np.random.default_rng(SEED)).transform(data.Z)
    model = additive_model(X, data.y, found.responsibilities_)
    sigma = model.sigma + 0.2 * np.trace(model.sigma) / len(model.sigma) * np.eye(len(model.sigma))
    contrasts = np.stack([np.diff(model.beta, axis=0)[0], np.diff(model.alpha, axis=0)[0]])
    weights = np.linalg.solve(sigma, contrasts.T)
    weights /= np.sqrt(np.diag(weights.T @ model.sigma @ weights))
    shown = np.random.default_rng(SEED).permutation(len(X))
    points, moved = (X @ weights)[shown], found.conflicting_[shown]
    figure, axes = plt.subplots(figsize=(5.6, 4.0))
    marks: tuple[tuple[NDArray[np.bool_], str, dict[str, Any]], ...] = (
        (~moved, "inferred aligned", {"s": 6, "linewidths": 0}),
        (moved, "inferred conflicting", {"s": 36, "marker": "X", "edgecolors": "black", "linewidths": 0.7}),
    )
    for rows, name, style in marks:
        for c in (0, 1):
            chosen = points[rows & (data.y[shown] == c)]
            axes.scatter(*chosen.T, color=COLOURS[c], label=f"{data.names[c]}, {name}", **style)
    wrong = (found.groups_ != data.a)[shown]
    axes.scatter(*points[wrong].T, s=110, facecolors="none", edgecolors="#b3261e", label="inferred wrongly")
    axes.set_xlabel("along the attribute, standard deviations within a group")
    axes.set_ylabel("along the class, standard deviations")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.24), ncols=2)
    return figure


def margins(X: NDArray[np.floating], y: NDArray[np.int64], a: NDArray[np.int64]) -> Any:
    """Held-out margins of dominoes, aligned against conflicting."""
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


def draw(folder: Path, *, dominoes: bool) -> None:
    """Draw and save the guide's pictures, and with `dominoes`, whose latents are not embedded, the log's."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.bbox": "tight"})
    data, balanced = embedded(SHARE), embedded(0.5)
    found, nothing = (discover(d.Z, d.y, random_state=SEED) for d in (data, balanced))
    print(found.summary(), nothing.summary(), sep="\n\n")
    pictures = {"example": sheet(data, found), "evidence": evidence(found, nothing), "groups": groups(data, found)}
    if dominoes:
        from discovery_dominoes import dominoes as latents

        (Z, y, a), _ = latents(0.9, SEED)
        pictures["margins"] = margins(principal_components(Z, rng=np.random.default_rng(SEED)).transform(Z), y, a)
    for name, figure in pictures.items():
        # Without dates or versions in the file, the same picture is the same bytes.
        figure.savefig(folder / f"discovery_{name}.png", dpi=110, metadata={"Software": None})
