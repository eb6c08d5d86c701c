"""Does a hint show in the latents? Examples whose value is known are held out and must be predicted beyond chance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import ndtr, stdtrit

from aifs_peft.discovery.arrays import Array, IntArray, deal
from aifs_peft.discovery.config import DiscoveryConfig, GateThresholds, HintConfig
from aifs_peft.discovery.hints.known import Hint
from aifs_peft.discovery.hints.sampler import AttributeFit, Whitened, sample_attribute


@dataclass(frozen=True, order=True)
class HeldOut:
    """How far the known values are predicted beyond chance when held out.

    Args:
        beyond: Mean excess of the true value's probability over chance.
        error: Its standard error.
        freedom: Degrees of freedom that the error is estimated with.
    """

    beyond: float
    error: float
    freedom: int

    def clear(self, errors: float) -> bool:
        """Whether that is as unlikely by chance as `errors` standard errors are of a normal variable.

        The error is estimated itself: with few known examples more of them are needed, as Student's t has it. Of draws
        in which one known value per cell of nothing was given, 7 of 100 passed with 2.5 errors, 3 of 100 so.

        Example:
            >>> HeldOut(2.8, 1.0, freedom=9).clear(2.5), HeldOut(2.8, 1.0, freedom=36).clear(2.5)
            (False, True)
        """
        return bool(self.beyond >= -stdtrit(self.freedom, ndtr(-errors)) * self.error)


@dataclass(frozen=True)
class Trial:
    """One number of components and kind of shares, fitted without each fold of the known examples.

    Args:
        data: The latents in so many components.
        tied: Whether one aligned share holds for all classes.
        held_out: How far the held-out examples are predicted.
        rows: The known examples that were held out.
        fold: Which part each of them was held out with.
        fits: The fit without each part.
        with_errors: Whether known values may be wrong.
    """

    data: Whitened
    tied: bool
    held_out: HeldOut
    rows: IntArray
    fold: IntArray
    fits: tuple[AttributeFit, ...]
    with_errors: bool = False

    @property
    def k(self) -> int:
        """Number of components."""
        return int(self.data.V.shape[1])


def _held_out(
    data: Whitened,
    hint: Hint,
    *,
    tied: bool,
    rng: np.random.Generator,
    config: HintConfig,
    with_errors: bool = False,
) -> Trial:
    """How far the known values are predicted beyond chance when held out.

    The prediction is the posterior under even shares, and every cell of label and value counts the same: most examples
    of a column lie where the label alone would put them, and any offsets, those of noise, too, call them likely.
    """
    A, K = hint.n_values, len(data.means)
    rows = _evenly(data.y * A + hint.values, np.flatnonzero(hint.values >= 0), config.held_out_known, rng)
    _, cell, counts = np.unique(data.y[rows] * A + hint.values[rows], return_inverse=True, return_counts=True)
    # Dealt value by value and within it class by class, so that every fold holds each value that can be in all.
    fold = deal(np.argsort(hint.values[rows] * K + data.y[rows], kind="stable"), config.folds)
    few = np.mean(hint.values < 0) > 0.5
    sweeps, chains = (config.held_out_sweeps, config.held_out_chains) if few else (config.sweeps_known, 1)
    sweeps = config.sweeps_errors if with_errors else sweeps
    sample = partial(sample_attribute, n_values=A, rng=rng, config=config, tied=tied, with_errors=with_errors)
    scores, fits = np.empty(len(rows)), []
    for j in range(config.folds):
        test = rows[fold == j]
        known = hint.values.copy()
        known[test] = -1
        fit = sample(data, known, sweeps=sweeps, chains=chains)
        scores[fold == j] = fit.probability(data, test, hint.values[test]) - 1.0 / A
        fits.append(fit)
    means = np.bincount(cell, scores) / counts
    # With hardly more examples than cells the cells' own means leave nothing to estimate a variance from.
    freedom, spread = len(rows) - len(counts), scores - means[cell]
    if freedom < config.min_freedom:
        freedom, spread = len(rows) - 1, scores - scores.mean()
    variance = float(np.sum(spread**2)) / freedom
    error = float(np.sqrt(variance * np.mean(1.0 / counts) / len(counts)))
    held_out = HeldOut(float(means.mean()), error, freedom)
    return Trial(data, tied, held_out, rows, fold, tuple(fits), with_errors)


def _evenly(cell: IntArray, rows: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    """At most `most` of `rows`, as many of each cell as there are."""
    shuffled = rng.permutation(rows)
    in_order = shuffled[np.argsort(cell[shuffled], kind="stable")]
    _, starts, counts = np.unique(cell[in_order], return_index=True, return_counts=True)
    place = np.arange(len(in_order)) - np.repeat(starts, counts)
    return in_order[np.argsort(place, kind="stable")[:most]]


def errors_needed(hint: Hint, gate: GateThresholds) -> float:
    """By how many standard errors held-out examples must be predicted better than by chance, see `HeldOut.clear`.

    Args:
        hint: The more examples are known, the more is asked.
        gate: Its `hint_errors`.
    """
    return gate.hint_errors[0 if np.count_nonzero(hint.values >= 0) <= gate.few_known else 1]


def choose_fit(
    X: Array, y: IntArray, K: int, hint: Hint, rng: np.random.Generator, config: DiscoveryConfig
) -> tuple[Trial, list[Trial]]:
    """Number of components and kind of shares that predict held-out examples best.

    The most components whose prediction is within a standard error of the best one.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        K: Number of classes.
        hint: Values of the attribute where they are known.
        rng: Source of folds and draws.
        config: Numbers of components, folds, and what counts as beyond chance.

    Returns:
        The choice, and all that was tried.
    """
    own = config.hints
    most = min(X.shape[1], max(len(X) // config.reduction.rows_per_component, 2))
    wanted = sorted({min(k, most) for k in own.components})
    data = {k: Whitened.of(np.ascontiguousarray(X[:, :k]), y, K, own) for k in wanted}
    mostly_known = float(np.mean(hint.values >= 0)) > 0.5
    tied = not mostly_known
    tried = [_held_out(data[k], hint, tied=tied, rng=rng, config=own) for k in data]
    # Within a standard error more components win: what the class keeps beside the attribute lies in all of them.
    needed = errors_needed(hint, config.gate)
    if hint.errs and mostly_known and not any(trial.held_out.clear(needed) for trial in tried):
        # Wrong values, most of them where the label and the column disagree, hide what the others say.
        tried += [_held_out(data[k], hint, tied=tied, rng=rng, config=own, with_errors=True) for k in data]
    shown = [trial for trial in tried if trial.held_out.clear(needed)] or tried
    highest = max(trial.held_out for trial in shown)
    best = max((t for t in shown if t.held_out.beyond >= highest.beyond - highest.error), key=lambda trial: trial.k)
    if tied:
        free = _held_out(best.data, hint, tied=False, rng=rng, config=own)
        tried.append(free)
        if free.held_out.beyond > best.held_out.beyond and free.held_out.clear(needed):
            best = free
    return best, tried


def rows_with(known: IntArray, rows: IntArray, limit: int, rng: np.random.Generator) -> IntArray:
    """At most `limit` of `rows`, the known ones among all first, up to half of the limit.

    Args:
        known: Rows whose value is known.
        rows: Rows to choose from.
        limit: How many.
        rng: Source of the choice.

    Example:
        >>> rows_with(np.array([7]), np.arange(5), 4, np.random.default_rng(0)).tolist()
        [2, 3, 4, 7]
    """
    if len(rows) <= limit and len(known) == len(np.intersect1d(known, rows)):
        return rows
    first = rng.permutation(known)[: limit // 2]
    rest = rng.permutation(np.setdiff1d(rows, first))[: limit - len(first)]
    return np.sort(np.concatenate([first, rest]))
