"""Confidence intervals: exact for proportions, Student's t over seeds, and bootstrap quantiles."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from aifs_peft._checks import check_number
from aifs_peft.errors import InvalidInputError

Floats = NDArray[np.float64]


class MeanInterval(NamedTuple):
    """A mean and its two-sided interval."""

    mean: float
    low: float
    high: float


def check_confidence(confidence: float) -> float:
    """Return `confidence` as a float strictly between 0 and 1.

    Raises:
        InvalidInputError: it is not.

    Example:
        >>> check_confidence(0.9)
        0.9
    """
    return check_number("confidence", confidence, 0, 1, above=True, below=True, error=InvalidInputError)


def clopper_pearson(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Exact two-sided interval of a binomial proportion (Clopper and Pearson, Biometrika 1934).

    It never covers less than `confidence`, whatever the sample size, which is why small groups use it.

    Args:
        successes: number of successes, any shape, `0 <= successes <= n`.
        n: number of trials, broadcast against `successes`.
        confidence: coverage, strictly between 0 and 1.

    Returns:
        Lower and upper bounds in [0, 1], of the broadcast shape (zero-dimensional for scalars); both NaN
        where `n` is 0, because an empty group says nothing.

    Raises:
        InvalidInputError: negative counts, more successes than trials, or a confidence outside (0, 1).

    Example:
        >>> low, high = clopper_pearson(9, 10)
        >>> f"{low:.4f} {high:.4f}"
        '0.5550 0.9975'
    """
    alpha = 1.0 - check_confidence(confidence)
    k, total = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64))
    if not np.all((k >= 0) & (k <= total) & np.isfinite(total)):  # also false for NaN
        msg = f"successes must lie between 0 and n; got successes {successes!r} of n {n!r}"
        raise InvalidInputError(msg)
    # The beta quantile is undefined at the two ends, where the bound is 0 or 1 by definition.
    low = np.where(k > 0, stats.beta.ppf(alpha / 2, np.maximum(k, 1), total - k + 1), 0.0)
    high = np.where(k < total, stats.beta.ppf(1 - alpha / 2, k + 1, np.maximum(total - k, 1)), 1.0)
    empty = total == 0
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> MeanInterval:
    """Mean of a few independent values (one per seed) with Student's t interval.

    `mean +- t(1 - alpha / 2, n - 1) * s / sqrt(n)` with the sample standard deviation `s`.

    Args:
        values: shape `(n,)`, finite.
        confidence: coverage, strictly between 0 and 1.

    Returns:
        `(mean, low, high)`; the bounds are NaN for a single value, which has no spread to learn from.

    Raises:
        InvalidInputError: no value, a shape other than `(n,)`, or a value that is not finite.

    Example:
        >>> mean_interval([0.70, 0.72, 0.74]).mean.__round__(3)
        0.72
    """
    level = check_confidence(confidence)
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0 or not np.all(np.isfinite(array)):
        msg = f"values must be a non-empty list of finite numbers; got shape {array.shape}: {values!r}"
        raise InvalidInputError(msg)
    mean = float(array.mean())
    if array.size == 1:
        return MeanInterval(mean, float("nan"), float("nan"))
    half = stats.t.ppf(0.5 + level / 2, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size)
    return MeanInterval(mean, mean - float(half), mean + float(half))


def minimum_interval(successes: NDArray[np.int64], n: NDArray[np.int64], confidence: float) -> list[float]:
    """Interval of the smallest of several proportions that is not fooled by having picked the smallest.

    The interval of the group that happens to score worst is too narrow: with many groups one is low by
    chance. Here the lower bound is the smallest of the exact lower bounds, which is below the worst group's
    own; the upper bound is the smallest of the exact upper bounds at level `alpha / G`, valid by the union
    bound. The coverage is at least `confidence` for independent and for overlapping groups alike.

    Args:
        successes: shape `(G,)`.
        n: shape `(G,)`; groups with `n == 0` are left out.
        confidence: coverage, strictly between 0 and 1.

    Returns:
        `[low, high]`, both NaN without any non-empty group.

    Example:
        >>> low, high = minimum_interval(np.array([90, 8]), np.array([100, 10]), 0.95)
        >>> f"{low:.3f} {high:.3f}"
        '0.444 0.956'
    """
    filled = n > 0
    if not filled.any():
        return [float("nan"), float("nan")]
    low, _ = clopper_pearson(successes[filled], n[filled], confidence)
    _, high = clopper_pearson(successes[filled], n[filled], 1.0 - (1.0 - confidence) / int(filled.sum()))
    return [float(low.min()), float(high.min())]


def bootstrap_interval(
    estimate: float,
    replicates: Floats | None,
    confidence: float,
    *,
    reflect: bool = False,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> list[float]:
    """Bootstrap interval of one statistic.

    Args:
        estimate: the statistic on the data.
        replicates: shape `(n_boot,)`, NaN where a replicate leaves the statistic undefined; `None` without
            a bootstrap.
        confidence: coverage, strictly between 0 and 1.
        reflect: `False` for percentiles; `True` for the basic interval `2 estimate - quantile`. Minima,
            maxima of differences and calibration errors are biased away from the truth by noise, and again
            by resampling; reflecting cancels that bias, percentiles double it.
        bounds: range of the statistic, to which the interval is clipped.

    Returns:
        `[low, high]`, which always contains `estimate`; NaN without replicates or with an undefined estimate.

    Example:
        >>> [round(b, 3) for b in bootstrap_interval(0.5, np.linspace(0.0, 1.0, 101), 0.9)]
        [0.05, 0.95]
    """
    if replicates is None or not np.isfinite(estimate) or not np.isfinite(replicates).any():
        return [float("nan"), float("nan")]
    tail = (1.0 - confidence) / 2
    low, high = np.nanquantile(replicates, [tail, 1.0 - tail])
    if reflect:
        low, high = 2 * estimate - high, 2 * estimate - low
    return [float(max(bounds[0], min(low, estimate))), float(min(bounds[1], max(high, estimate)))]
