"""One entry per group from counts: the same keys whatever the data, and a reason beside every NaN."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aifs_peft.metrics import rates
from aifs_peft.metrics.bootstrap import auc_replicates, calibration_replicates, confusion_replicates
from aifs_peft.metrics.intervals import bootstrap_interval, clopper_pearson
from aifs_peft.metrics.ranking import Ranking, by_slot
from aifs_peft.metrics.statistics import SlotStatistics

Floats = NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True)
class Settings:
    """How a result is computed; `rng` is drawn from only when `n_boot > 0`."""

    n_boot: int
    confidence: float
    min_group_size: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Part:
    """Everything known about one set of slots: the groups, the attributes, or the whole data set.

    Attributes:
        names: one per slot.
        statistics: counts.
        auc: `(slots,)`, NaN where undefined.
        rankings: what the areas came from; empty without scores.
        no_score: why score metrics are undefined, or `""`.
        no_calibration: why calibration is undefined, or `""`.
        replicates: bootstrap replicates by name, `(n_boot, slots)` or `(n_boot,)`; empty without bootstrap.
    """

    names: tuple[str, ...]
    statistics: SlotStatistics
    auc: Floats
    rankings: tuple[Ranking, ...]
    no_score: str
    no_calibration: str
    replicates: dict[str, Floats]

    def drawn(self, name: str, slot: int | None = None) -> Floats | None:
        """Replicates of one statistic, or `None` without a bootstrap."""
        values = self.replicates.get(name)
        return values if values is None or slot is None else values[:, slot]


def build_part(
    names: Sequence[str],
    statistics: SlotStatistics,
    rankings: Sequence[Ranking],
    no_score: str,
    no_calibration: str,
    settings: Settings,
) -> Part:
    """Areas and bootstrap replicates of one set of slots.

    The macro area of several classes is the mean over the classes for which it is defined in that slot.
    """
    auc = np.full(statistics.slots, np.nan)
    for slot, parts in by_slot(rankings):
        auc[slot] = np.mean([part.auc for part in parts])
    replicates: dict[str, Floats] = {}
    if settings.n_boot and statistics.slots:
        slots = statistics.slots
        table = confusion_replicates(statistics, settings.n_boot, settings.rng, _confusion_columns)
        for position, name in enumerate(("accuracy", "true_positive_rate", "false_positive_rate")):
            replicates[name] = table[:, position * slots : (position + 1) * slots]
        replicates["equal_opportunity_difference"], replicates["equalized_odds_difference"] = table[:, 3 * slots :].T
        if rankings:
            replicates["roc_auc"] = auc_replicates(rankings, slots, settings.n_boot, settings.rng)
        if not no_calibration:
            replicates["calibration"] = calibration_replicates(statistics, settings.n_boot, settings.rng)
    return Part(tuple(names), statistics, auc, tuple(rankings), no_score, no_calibration, replicates)


def _confusion_columns(tables: NDArray[np.int64]) -> Floats:
    columns = [
        rates.accuracy(tables),
        rates.headline_rate(rates.true_positive_rates(tables)),
        rates.headline_rate(rates.false_positive_rates(tables)),
        rates.equal_opportunity_difference(tables)[:, None],
        rates.equalized_odds_difference(tables)[:, None],
    ]
    return np.concatenate(columns, axis=1)


def slot_entries(part: Part, settings: Settings) -> dict[str, dict[str, Any]]:
    """One entry per slot, by name and in order."""
    statistics = part.statistics
    shown = {
        "true_positive_rate": rates.true_positive_rates(statistics.confusion),
        "false_positive_rate": rates.false_positive_rates(statistics.confusion),
    }
    calibration, (brier, brier_error) = statistics.calibration_error(), statistics.brier()
    accuracies = rates.accuracy(statistics.confusion)
    low, high = clopper_pearson(statistics.correct, statistics.n, settings.confidence)
    entries = {}
    for slot, name in enumerate(part.names):
        n = int(statistics.n[slot])
        entry: dict[str, Any] = {
            "n": n,
            "class_counts": statistics.confusion[slot].sum(1).tolist(),
            "small": n < settings.min_group_size,
            "accuracy": float(accuracies[slot]),
            "accuracy_interval": [float(low[slot]), float(high[slot])],
            "roc_auc": float(part.auc[slot]),
            "roc_auc_interval": bootstrap_interval(
                float(part.auc[slot]), part.drawn("roc_auc", slot), settings.confidence
            ),
        }
        for rate, values in shown.items():
            entry[rate] = float(rates.headline_rate(values[slot]))
            entry[f"{rate}_interval"] = _rate_interval(part, rate, slot, entry[rate], settings)
            entry[f"{rate}_per_class"] = values[slot].tolist()
        calibrated = not part.no_calibration
        error = float(calibration[slot]) if calibrated else NAN
        score = float(brier[slot]) if calibrated else NAN
        entry["expected_calibration_error"] = error
        entry["expected_calibration_error_interval"] = bootstrap_interval(
            error, part.drawn("calibration", slot), settings.confidence, reflect=True
        )
        entry["brier_score"] = score
        entry["brier_score_interval"] = normal_interval(score, float(brier_error[slot]), settings.confidence)
        entry["reasons"] = _slot_reasons(part, entry)
        entries[name] = entry
    return entries


def _rate_interval(part: Part, rate: str, slot: int, value: float, settings: Settings) -> list[float]:
    """Exact for two classes, where the rate is a proportion; bootstrap for a mean over classes."""
    table = part.statistics.confusion[slot]
    if table.shape[0] > 2:
        return bootstrap_interval(value, part.drawn(rate, slot), settings.confidence)
    row = table[1] if rate == "true_positive_rate" else table[0]
    low, high = clopper_pearson(row[1], row.sum(), settings.confidence)
    return [float(low), float(high)]


def normal_interval(mean: float, error: float, confidence: float) -> list[float]:
    """Normal interval of a mean of many bounded terms from its standard error; NaN where either is undefined.

    Example:
        >>> [round(bound, 3) for bound in normal_interval(0.2, 0.01, 0.95)]
        [0.18, 0.22]
    """
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * error
    if not np.isfinite(mean + half):
        return [NAN, NAN]
    return [max(0.0, mean - half), min(2.0, mean + half)]


def _slot_reasons(part: Part, entry: dict[str, Any]) -> dict[str, str]:
    """Why a number of this entry is NaN, or covers fewer classes than there are; keyed by metric."""
    if entry["n"] == 0:
        names = ("accuracy", "roc_auc", "true_positive_rate", "false_positive_rate")
        return dict.fromkeys((*names, "expected_calibration_error", "brier_score"), "no example in this group")
    counts = entry["class_counts"]
    absent = [str(k) for k, count in enumerate(counts) if count == 0]
    reasons = {}
    if part.no_score:
        reasons["roc_auc"] = part.no_score
    elif len(counts) - len(absent) < 2:
        only = next(k for k, count in enumerate(counts) if count)
        reasons["roc_auc"] = f"only class {only} occurs in this group, so there is nothing to rank it against"
    elif absent:
        reasons["roc_auc"] = f"mean over the classes that occur; without class {', '.join(absent)}"
    if part.no_calibration:
        reasons["expected_calibration_error"] = reasons["brier_score"] = part.no_calibration
    for rate, verb in (("true_positive_rate", "of class 1"), ("false_positive_rate", "of class 0")):
        if np.isnan(entry[rate]):
            reasons[rate] = f"no example {verb} in this group"
        elif len(counts) > 2 and np.isnan(entry[f"{rate}_per_class"]).any():
            reasons[rate] = f"mean over the classes for which it is defined; without class {', '.join(absent)}"
    return reasons
