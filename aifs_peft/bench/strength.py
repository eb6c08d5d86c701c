"""Is there a best strength of an intervention, and does it move with the strength of the shortcut?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.bench.curves import Curve
from aifs_peft.bench.formatting import DASH, percent, points, table
from aifs_peft.bench.statistics import mean_interval_of, paired

# With more seeds than that a curve's optimum is resampled, not counted out.
_COUNTED, _RESAMPLES = 5, 2000


@dataclass(frozen=True)
class Optimum:
    """Where a curve is highest.

    Args:
        x: the best place by the mean over seeds.
        low: the best place of resampled seeds, 2.5 % quantile.
        high: 97.5 % quantile.
        gain: best place minus the first, paired by seed: mean, low, high. The place was chosen on the same seeds, so
            that this is a little too high.
        over_last: best place minus the last, the same.
    """

    x: float
    low: float
    high: float
    gain: tuple[float, float | None, float | None]
    over_last: tuple[float, float | None, float | None]


def optimum(curve: Curve) -> Optimum | None:
    """The best strength with its interval, by resampling the seeds that all places have; None without such seeds.

    Args:
        curve: of `strength_curves`.
    """
    seeds = sorted(set.intersection(*(set(point.worst) for point in curve.points)))
    if not seeds:
        return None
    values: NDArray[Any] = np.array([[point.worst[seed] for seed in seeds] for point in curve.points])
    n = len(seeds)
    if n <= _COUNTED:
        drawn = np.array(list(product(range(n), repeat=n)))
    else:
        drawn = np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))
    best = values[:, drawn].mean(axis=2).argmax(axis=0)
    low, high = (int(np.quantile(best, q, method="nearest")) for q in (0.025, 0.975))
    place = int(values.mean(axis=1).argmax())
    gain, over = (paired(values[place].tolist(), values[end].tolist())[:3] for end in (0, -1))
    xs = [point.x for point in curve.points]
    return Optimum(xs[place], xs[low], xs[high], gain, over)


def strength_table(curves: Sequence[Curve]) -> str:
    """Family and data set by the best strength, as Markdown.

    Args:
        curves: of `strength_curves`.
    """
    rows = []
    for curve in _by_share(curves):
        best = optimum(curve)
        if best is None:
            continue
        at = next(point for point in curve.points if point.x == best.x)
        average, worst = (mean_interval_of(list(numbers.values())) for numbers in (at.average, at.worst))
        share = DASH if curve.aligned_share is None else f"{100 * curve.aligned_share:g} %"
        tried = f"{curve.points[0].x:g} to {curve.points[-1].x:g}"
        rows.append(
            [f"`{curve.family}`", share, tried, f"{best.x:g} ({best.low:g} to {best.high:g})",
             percent(worst[0], worst[2]), percent(average[0], average[2]), points(*best.gain), points(*best.over_last)]
        )  # fmt: skip
    head = ["strength", "aligned", "tried", "best, 95 % interval", "worst group there", "average there",
            "over the lowest, points", "over the highest, points"]  # fmt: skip
    return table(head, rows, texts=2)


def strength_sentences(curves: Sequence[Curve]) -> list[str]:
    """Whether there is an optimal strength, and whether it moves with the aligned share: one sentence per family.

    Args:
        curves: of `strength_curves`.
    """
    sentences = []
    ordered = _by_share(curves)
    for family in dict.fromkeys(curve.family for curve in ordered):
        known = [(c, best) for c in ordered if c.family == family and (best := optimum(c)) is not None]
        shares = [(c.aligned_share, best) for c, best in known if c.aligned_share is not None]
        told = [_exists(curve, best) for curve, best in known]
        text = f"`{family}`: {'; '.join(told)}."
        if len(shares) > 1:
            text += f" {_moves(shares)}"
        sentences.append(text)
    return sentences


def _by_share(curves: Sequence[Curve]) -> list[Curve]:
    """Families as they come, within each the weakest shortcut first."""
    families = list(dict.fromkeys(curve.family for curve in curves))
    return sorted(curves, key=lambda c: (families.index(c.family), c.aligned_share or 0.0))


def _exists(curve: Curve, best: Optimum) -> str:
    first, last = curve.points[0].x, curve.points[-1].x
    above_first, above_last = (_above(interval) for interval in (best.gain, best.over_last))
    said = f"on {curve.dataset} {best.x:g} is best"
    if best.x in (first, last):
        end, other = ("lowest", "highest") if best.x == first else ("highest", "lowest")
        clear = above_last if best.x == first else above_first
        return f"{said}, the {end} tried, {'above' if clear else 'not told apart from'} the {other}"
    told = {
        (True, True): "above both ends",
        (True, False): "above the lowest, not told apart from the highest",
        (False, True): "above the highest, not told apart from the lowest",
        (False, False): "not told apart from either end",
    }
    return f"{said}, {told[above_first, above_last]}"


def _above(interval: tuple[float, float | None, float | None]) -> bool:
    return interval[1] is not None and interval[1] > 0


def _moves(shares: Sequence[tuple[float, Optimum]]) -> str:
    """Whether the intervals of the weakest and the strongest shortcut are apart."""
    (weak_share, weak), (strong_share, strong) = shares[0], shares[-1]
    if weak.high < strong.low or strong.high < weak.low:
        way = "up" if weak.high < strong.low else "down"
        return (
            f"From {_percent(weak_share)} to {_percent(strong_share)} aligned the best strength moves {way}, from "
            f"{weak.x:g} to {strong.x:g}."
        )
    return f"The intervals at {_percent(weak_share)} and {_percent(strong_share)} aligned meet: no move is shown."


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
