"""The section *What did training do?*."""

from __future__ import annotations

from typing import Any

import numpy as np

from aifs_peft.report.numbers import number, value_of
from aifs_peft.report.plots import panels
from aifs_peft.report.plots.svg import clean_axes
from aifs_peft.report.plots.theme import CONFLICTING, METHOD
from aifs_peft.report.sections.run import Run, picture

_CAPTIONS = {
    "Decisions along the attribute": "How much of the predicted class's lead runs along the spurious directions, by "
    "Integrated Gradients of the head, on training examples (plain training: after its end, on test examples)."
}
NARROW = 3.6
"""Inches: three figures stand side by side on a wide page."""


def training(run: Run) -> dict[str, Any] | None:
    """Losses, evaluation and the method's own numbers over epochs, the mask that came out; None without a history."""
    plain_share = value_of((run.what_if.get("share") or {}).get("plain"))
    figures = [
        picture(p.title, p.words(), 2.3, p.draw, _CAPTIONS.get(p.title, ""), width=NARROW)
        for p in panels(run.summary.get("history") or (), plain_share)
    ]
    learnt = _mask(run)
    if learnt:
        figures.append(learnt)
    if not figures:
        return None
    settings = run.summary.get("training") or {}
    facts = [
        (name, number(value, 5).rstrip("0").rstrip(".") if isinstance(value, float) else str(value))
        for name, value in (
            ("epochs", value_of(settings.get("num_train_epochs"))),
            ("batch size", settings.get("per_device_train_batch_size")),
            ("learning rate", value_of(settings.get("learning_rate"))),
            ("seconds", round(run.summary["seconds"]) if run.summary.get("seconds") is not None else None),
        )
        if value is not None
    ]
    return {"figures": figures, "facts": facts, "title": str(run.summary.get("method", ""))}


def _mask(run: Run) -> dict[str, Any] | None:
    """Sorted attributions of the dimensions with the mask they gave; None where no attribution was kept."""
    scores, mask = (np.asarray(run.learnt.get(name, ()), dtype=float) for name in ("ema", "mask"))
    if scores.size < 2 or not scores.any() or mask.shape != scores.shape:
        return None
    order = np.argsort(-scores)

    def draw(ax: Any) -> None:
        ax.plot(scores[order] / scores.max(), color=METHOD, label="attribution, largest = 1")
        if mask.max() > 0:
            ax.plot(mask[order] / mask.max(), color=CONFLICTING, label="mask, largest = 1")
        ax.set_xlabel("dimensions of the latent, by attribution")
        ax.set_ylim(-0.03, 1.05)
        clean_axes(ax, grid="y")
        ax.figure.legend(loc="outside upper left", ncols=2, handlelength=1.4)

    half = int(np.searchsorted(np.cumsum(scores[order]) / scores.sum(), 0.5)) + 1
    return picture(
        "Attribution and mask after the last epoch",
        f"{half} of {scores.size} dimensions hold half of the attribution; the mask's entries lie between "
        f"{mask.min():.3g} and {mask.max():.3g}.",
        2.3, draw, "Attribution of the head per dimension, and where the intervention acts.", width=NARROW,
    )  # fmt: skip
