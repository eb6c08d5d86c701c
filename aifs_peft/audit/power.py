"""How strong a shortcut would have been seen, by simulated data of a size no easier than the one at hand.

`power.json` is the compact table of `benchmarks/audit_power.py`: planted latents, classes 2 standard deviations apart,
a mark of some strength, and how many draws of ten discovery read rightly.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from aifs_peft.audit.coordinates import Coordinates
from aifs_peft.audit.within import WithinClasses
from aifs_peft.discovery.config import DEFAULT_CONFIG

# Seen in at least this share of the draws, at this strength and at every greater one.
RELIABLE = 0.9
# Simulated classes are of one size up to chance; the smallest class may be this much smaller than theirs.
SIZE_TOLERANCE = 0.8
# The contrast of the classes is measured in at most this many components, and at least so many rows for each.
MAX_COMPONENTS = 64
ROWS_PER_COMPONENT = 10


@lru_cache(maxsize=1)
def power_table() -> dict[str, Any]:
    """The simulated sizes and how often each strength was seen."""
    text = (files("aifs_peft.audit") / "power.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@dataclass(frozen=True)
class Detectable:
    """What would have been seen at one size.

    Args:
        share: of the examples for which the mark goes with the class.
        contrast: how far the mark moves latents, in standard deviations within groups; `None` where nothing up to the
            strongest mark tried is seen reliably.
        seen: draws in which it was seen.
        draws: of how many.
        n: simulated number of examples, at most that of the data.
        width: simulated number of dimensions.
        classes: simulated number of classes.
    """

    share: float
    contrast: float | None
    seen: int
    draws: int
    n: int
    width: int
    classes: int


def detectable(n: int, width: int, n_classes: int, smallest: int) -> list[Detectable]:
    """What would have been seen, one entry for each simulated share; empty below the smallest simulated size.

    Taken from the largest simulation that is no easier: not more examples, in all and in the smallest class, and not
    fewer dimensions (up to the 256 components that discovery looks at).

    Args:
        n: number of examples.
        width: of the latents.
        n_classes: number of classes.
        smallest: examples of the smallest class.

    Example:
        >>> detectable(100, 32, 2, 50)
        []
        >>> [d.share for d in detectable(1000, 32, 2, 500)]
        [0.95, 0.9]
    """
    table = power_table()
    rows = table["table"]
    kind = 2 if n_classes == 2 else max(row["classes"] for row in rows)
    widths = sorted({row["width"] for row in rows})
    wide = next((w for w in widths if w >= min(width, widths[-1])), widths[-1])
    fits = [
        row for row in rows
        if row["classes"] == kind and row["width"] == wide and row["n"] <= n
        and SIZE_TOLERANCE * row["n"] / kind <= smallest
    ]  # fmt: skip
    largest = max((row["n"] for row in fits), default=0)
    fits = [row for row in fits if row["n"] == largest]
    return [_of_row(row, table["draws"]) for row in sorted(fits, key=lambda row: -row["share"])]


def _of_row(row: dict[str, Any], draws: int) -> Detectable:
    """The weakest mark from which on every stronger one was seen reliably, too."""
    contrast, seen = None, 0
    for strength, times in sorted(((float(c), times) for c, times in row["seen"].items()), reverse=True):
        if times < RELIABLE * draws:
            break
        contrast, seen = strength, times
    return Detectable(row["share"], contrast, seen, draws, row["n"], row["width"], row["classes"])


def class_contrast(coordinates: Coordinates) -> float:
    """Distance between class means, in standard deviations within classes, without what chance gives.

    A shortcut that was not found is part of it.

    Args:
        coordinates: of the latents.

    Example:
        >>> from aifs_peft.discovery.streaming.arrays import ArrayLatents
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 4000); X = rng.normal(size=(4000, 8)); X[:, 0] += 3 * y
        >>> bool(abs(class_contrast(Coordinates.of(ArrayLatents(X), y, 2, rng=rng)) - 3.0) < 0.15)
        True
    """
    n, n_classes = len(coordinates.y), coordinates.n_classes
    k = max(1, min(coordinates.width, MAX_COMPONENTS, n // ROWS_PER_COMPONENT))
    means = WithinClasses.of(coordinates.moments(k)).means
    counts = np.bincount(coordinates.y, minlength=n_classes)
    squares = 2.0 * float(np.sum(means**2)) / (n_classes - 1)
    chance = 2.0 * k * float(np.mean(1.0 / np.maximum(counts, 1)))
    return float(np.sqrt(max(squares - chance, 0.0)))


def power_sentence(found: list[Detectable], contrast: float, n: int, smallest: int) -> str:
    """What a shortcut that was not found must have been like, for people.

    Args:
        found: see `detectable`.
        contrast: see `class_contrast`.
        n: number of examples.
        smallest: of the smallest class.
    """
    if not found:
        least = min(row["n"] for row in power_table()["table"])
        return (
            f"With {n:,} examples, {smallest:,} in the smallest class, a shortcut is found by luck if at all, and "
            f"nothing found says little: the smallest data simulated have {least} examples in classes of one size."
        )
    seen = next((d for d in found if d.contrast is not None), None)
    classes = found[0].classes
    size = f"{found[0].n:,} simulated examples of {classes} classes in {found[0].width} dimensions"
    if seen is None or seen.contrast is None:
        most = max(map(float, power_table()["table"][0]["seen"]))
        return (
            f"In {size} no mark of up to {most:g} standard deviations was seen in 9 of 10 draws: at this size "
            "shortcuts are missed, and nothing found says little."
        )
    text = (
        f"In {size} a mark on {100 * seen.share:.0f} % of each class that moves latents by {seen.contrast:g} standard "
        f"deviations was seen in {seen.seen} of {seen.draws} draws; a weaker one can be missed"
    )
    gate = DEFAULT_CONFIG.gate
    ratio = gate.relative if classes == 2 else gate.ratio
    needed = ratio * contrast
    if needed > seen.contrast:
        text += (
            f", and so can one below {needed:.1f}: it must be {'' if ratio == 1.0 else f'{ratio:g} times '}as strong "
            f"as what tells the classes apart ({contrast:.1f})"
        )
    return text + "."
