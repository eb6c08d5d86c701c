"""What group labels of validation examples buy beside a method that has none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from aifs_peft.bench.curves import Curve
from aifs_peft.bench.formatting import DASH, listed, percent, table
from aifs_peft.bench.statistics import mean_interval_of

# A budget of at least so many labels is the whole validation split.
EVERY = 1_000_000


def label_table(curves: Sequence[Curve]) -> str:
    """Data set and method by the number of known groups: worst group in percent, as Markdown.

    Args:
        curves: of `label_curves`.
    """
    counts = sorted({point.x for curve in curves for point in curve.points})
    rows = []
    for curve in curves:
        at = {point.x: mean_interval_of(list(point.worst.values())) for point in curve.points}
        cells = [percent(at[x][0], at[x][2]) if x in at else DASH for x in counts]
        rows.append([curve.dataset, f"`{curve.family}`", *cells])
    return table(["data set", "method", *map(count_text, counts)], rows, texts=2)


def count_text(x: float) -> str:
    """How a number of known groups is written.

    Args:
        x: the number.

    Example:
        >>> count_text(64), count_text(1_000_000)
        ('64', 'all')
    """
    return "all" if x >= EVERY else f"{x:g}"


def label_sentences(curves: Sequence[Curve], focus: str, values: Mapping[str, Mapping[int, float]]) -> list[str]:
    """With how many known groups each method reaches the focus, which knows none: one sentence per data set.

    Args:
        curves: of `label_curves`.
        focus: the method without group labels.
        values: its worst groups by data set and seed.
    """
    sentences = []
    for dataset in dict.fromkeys(curve.dataset for curve in curves):
        own = values.get(dataset)
        if not own:
            continue
        level = sum(own.values()) / len(own)
        told = [_reaches(curve, level) for curve in curves if curve.dataset == dataset]
        sentences.append(f"{dataset}: `{focus}` has {percent(level)} without any; {listed(told)}.")
    return sentences


def _reaches(curve: Curve, level: float) -> str:
    """The least number from which the mean stays at the level."""
    means = [sum(point.worst.values()) / len(point.worst) for point in curve.points]
    first = math.inf
    for point, mean in zip(reversed(curve.points), reversed(means), strict=True):
        if mean < level:
            break
        first = point.x
    if math.isinf(first):
        return f"`{curve.family}` does not reach it ({percent(means[-1])} with {count_text(curve.points[-1].x)})"
    return f"`{curve.family}` reaches it with {count_text(first)}"
