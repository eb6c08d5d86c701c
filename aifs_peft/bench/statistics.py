"""Paired tests over seeds with a correction for many comparisons, and the comparison of methods over data sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aifs_peft.metrics import mean_interval

LEVEL = 0.05
# Data sets and methods that a test over data sets needs at least.
_LEAST_SETS, _LEAST_METHODS = 3, 3


@dataclass(frozen=True)
class Comparison:
    """The focus against another method on one data set, over the seeds that both have.

    Args:
        dataset: its name.
        focus: the method of the question.
        other: the method it is compared with.
        seeds: how many pairs.
        difference: mean of focus minus other.
        low: of its 95 % interval; None with one seed.
        high: of the same.
        p: two-sided, of the paired t-test; None with one seed.
        corrected: the same after Holm's correction for all comparisons of the experiment.
    """

    dataset: str
    focus: str
    other: str
    seeds: int
    difference: float
    low: float | None
    high: float | None
    p: float | None
    corrected: float | None = None


def paired(a: Sequence[float], b: Sequence[float]) -> tuple[float, float | None, float | None, float | None]:
    """Mean difference of pairs, its 95 % interval and the p-value of the paired t-test.

    Args:
        a: numbers.
        b: as many, in the same order.

    Returns:
        Mean of `a - b`, low, high, p. Where all differences are equal, the interval is that number and p is 0, or 1 for
        no difference at all.

    Example:
        >>> mean, low, high, p = paired([0.8, 0.9, 0.85], [0.5, 0.55, 0.52])
        >>> round(mean, 3), bool(p < 0.05)
        (0.327, True)
    """
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    mean, n = float(differences.mean()), len(differences)
    if n < 2:
        return mean, None, None, None
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error < 1e-12:
        return mean, mean, mean, 1.0 if abs(mean) < 1e-12 else 0.0
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    return mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, n - 1))


def mean_interval_of(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean over seeds with its 95 % interval by Student's t, of which one seed has none.

    Args:
        values: one per seed.

    Example:
        >>> mean_interval_of([0.5])
        (0.5, None, None)
    """
    if len(values) < 2:
        return float(values[0]), None, None
    mean, low, high = (float(part) for part in mean_interval(values))
    return mean, low, high


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for as many tests (Holm, 1979): the chance of any false rejection stays below the level.

    Args:
        p_values: one per test.

    Returns:
        In the same order, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * float(p_values[index])))
        corrected[int(index)] = largest
    return [round(value, 12) for value in corrected]


def compare(values: Mapping[str, Mapping[str, Mapping[int, float]]], focus: str) -> list[Comparison]:
    """The focus against every other method on every data set.

    Args:
        values: by data set, method and seed.
        focus: the method of the question.

    Returns:
        By data set and method, with p-values corrected for all of them together.
    """
    found = []
    for dataset, methods in values.items():
        own = methods.get(focus, {})
        for other, theirs in methods.items():
            seeds = sorted(set(own) & set(theirs))
            if other != focus and seeds:
                numbers = paired([own[s] for s in seeds], [theirs[s] for s in seeds])
                found.append(Comparison(dataset, focus, other, len(seeds), *numbers))
    tested = [index for index, one in enumerate(found) if one.p is not None]
    corrected = dict(zip(tested, holm([float(found[i].p or 0.0) for i in tested]), strict=True))
    return [
        Comparison(c.dataset, c.focus, c.other, c.seeds, c.difference, c.low, c.high, c.p, corrected.get(i))
        for i, c in enumerate(found)
    ]


@dataclass(frozen=True)
class Ranks:
    """Methods over data sets.

    Args:
        methods: those that ran on all data sets, best first.
        average: rank of each, 1 the best.
        critical: difference of average ranks from which two methods differ (Nemenyi, at 5 %).
        p: of Friedman's test that all methods are alike.
        datasets: on which they are ranked.
        left_out: methods that lack a data set.
    """

    methods: list[str]
    average: list[float]
    critical: float
    p: float
    datasets: list[str]
    left_out: list[str]

    def alike(self) -> list[tuple[int, int]]:
        """Runs of methods that do not differ, as first and last place; none within another."""
        found: list[tuple[int, int]] = []
        for first in range(len(self.methods)):
            last = max(i for i, rank in enumerate(self.average) if rank - self.average[first] <= self.critical)
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found


def rank(means: Mapping[str, Mapping[str, float]]) -> Ranks | None:
    """Average ranks over data sets (Demsar, 2006), for the critical-difference diagram.

    Args:
        means: by data set and method, higher is better.

    Returns:
        None for fewer than three data sets, or three methods that ran on all of them.
    """
    datasets = list(means)
    every = list(dict.fromkeys(name for methods in means.values() for name in methods))
    kept = [name for name in every if all(name in means[d] for d in datasets)]
    if len(datasets) < _LEAST_SETS or len(kept) < _LEAST_METHODS:
        return None
    table: NDArray[Any] = np.array([[means[d][name] for name in kept] for d in datasets])
    ranks = stats.rankdata(-table, axis=1).mean(axis=0)
    k, n = len(kept), len(datasets)
    q = float(stats.studentized_range.ppf(1 - LEVEL, k, np.inf)) / math.sqrt(2)
    order = np.argsort(ranks, kind="stable")
    same = bool((table == table[:, :1]).all())
    p = 1.0 if same else float(stats.friedmanchisquare(*table.T).pvalue)
    return Ranks(
        [kept[i] for i in order],
        [float(ranks[i]) for i in order],
        q * math.sqrt(k * (k + 1) / (6 * n)),
        p,
        datasets,
        [name for name in every if name not in kept],
    )
