"""Logistic regression that knows of no attribute: plain training, and what is trained where nothing was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, deal, random_folds
from aifs_peft.discovery.config import DEFAULT_CONFIG, HeadConfig
from aifs_peft.discovery.linear_heads.intercepts import Intercepts, even_intercepts
from aifs_peft.discovery.linear_heads.logistic import LinearHead, fit_logistic, fit_on_common_scale
from aifs_peft.discovery.linear_heads.rows import most_rows, sampled_rows
from aifs_peft.discovery.reduced import ReducedLatents

# A penalty, and the scale of the coordinates where they are put on one common scale.
Setting = tuple[float, Array | None]


@dataclass(frozen=True)
class EvenFit:
    """A head for evenly weighted classes, and how it was chosen.

    Args:
        head: With the intercepts moved.
        l2: Its penalty.
        intercepts: What was added to its logits.
        held_out: Accuracy of the worst class and of all examples on held-out folds.
        plain: The same without weights and without moving intercepts.
    """

    head: LinearHead
    l2: float
    intercepts: Intercepts
    held_out: tuple[float, float]
    plain: tuple[float, float]

    @property
    def differs(self) -> bool:
        """Whether that is seen in whole per cent."""
        return bool(np.any(np.round(self.held_out, 2) != np.round(self.plain, 2)))

    def told(self) -> str:
        """What it gains and costs, in words."""
        (worst, average), (plain_worst, plain_average) = self.held_out, self.plain
        return (
            f"held out, the worst class is right for {worst:.1%} instead of {plain_worst:.1%}, all examples for "
            f"{average:.1%} instead of {plain_average:.1%}"
        )


def fit_plain(
    X: ReducedLatents,
    y: IntArray,
    n_classes: int,
    *,
    rng: np.random.Generator,
    weights: Array | None = None,
    scale: Array | None = None,
    config: HeadConfig = DEFAULT_CONFIG.heads,
) -> tuple[LinearHead, float]:
    """Logistic regression, its L2 penalty that of the best accuracy on held-out folds.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds and, for large data, of the rows that choose the penalty.
        weights: Of the examples, shape `(n,)`; all one if `None`. They weigh in the accuracy, too.
        scale: Standard deviations that the coordinates had before they were whitened, shape `(k,)`. With more than two
            classes and few examples, one common scale is compared with unit variance: whitening costs accuracy there.
        config: Grid of penalties and folds.

    Returns:
        The head and the penalty.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 500); X = rng.normal(size=(500, 2)); X[:, 0] += 2 * y
        >>> head, _ = fit_plain(X, y, 2, rng=rng)
        >>> bool(np.mean(head.logits(X).argmax(axis=1) == y) > 0.8)
        True
    """
    rows = np.sort(rng.permutation(len(y))[: config.max_rows])
    fold = random_folds(len(rows), config.folds, rng)
    own = None if weights is None else weights[rows]
    part = X[rows]
    settings = _settings(part, n_classes, scale, config)
    hits = _held_out(part, y[rows], n_classes, fold, own, settings, config).argmax(axis=2) == y[rows]
    right = hits.sum(axis=1) if own is None else hits @ own
    chosen = settings[int(right.argmax())]
    return _fit_all(X, y, n_classes, chosen, weights, rng, config), chosen[0]


def fit_even(
    X: ReducedLatents,
    y: IntArray,
    n_classes: int,
    *,
    rng: np.random.Generator,
    weights: Array,
    scale: Array | None = None,
    config: HeadConfig = DEFAULT_CONFIG.heads,
) -> EvenFit:
    """Logistic regression whose penalty and intercepts are chosen by the worst class on held-out folds.

    The penalty is that of the best weighted accuracy, or another one whose worst class is better by more than one
    standard error; ties go to the stronger penalty. Then the intercepts, see `even_intercepts`.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds and, for large data, of the rows that choose.
        weights: Of the examples, shape `(n,)`; for evenly weighted classes with equal sums in all of them.
        scale: See `fit_plain`.
        config: Grid of penalties and folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = (rng.random(2000) < 0.1).astype(int); X = rng.normal(size=(2000, 2)); X[:, 0] += 2 * y
        >>> def worst(head):
        ...     hits = head.logits(X).argmax(axis=1) == y
        ...     return min(hits[y == c].mean() for c in (0, 1))
        >>> plain, _ = fit_plain(X, y, 2, rng=rng)
        >>> even = fit_even(X, y, 2, rng=rng, weights=1.0 / np.bincount(y)[y])
        >>> bool(worst(plain) < 0.5), bool(worst(even.head) > 0.8)
        (True, True)
    """
    rows = np.sort(rng.permutation(len(y))[: config.even_rows])
    # Dealt class by class: every fold has its share of a small one.
    fold = deal(np.lexsort((rng.random(len(rows)), y[rows])), config.folds)
    part, labels, own = X[rows], y[rows], weights[rows]
    settings = _settings(part, n_classes, scale, config)
    logits = _held_out(part, labels, n_classes, fold, own, settings, config)
    # Weight of the examples of each class that are classified rightly, per penalty and scale.
    hits = logits.argmax(axis=2) == labels
    right = np.stack([np.bincount(labels, own * hit, minlength=n_classes) for hit in hits])
    in_all = np.bincount(labels, own, minlength=n_classes)
    default = int(right.sum(axis=1).argmax())
    counts = np.bincount(labels, minlength=n_classes)
    chosen = _by_worst(right / np.maximum(in_all, 1e-12), counts, default)
    intercepts = even_intercepts(logits[chosen], labels, np.ones((len(rows), 1)), fold, weights=own, config=config)
    head = _fit_all(X, y, n_classes, settings[chosen], weights, rng, config)
    plain = _held_out(part, labels, n_classes, fold, None, [settings[chosen]], config)[0]
    scores = []
    for told in (logits[chosen] + intercepts.shift, plain):
        hit = told.argmax(axis=1) == labels
        worst = np.min(np.bincount(labels, hit, minlength=n_classes) / np.maximum(counts, 1))
        scores.append((float(worst), float(hit.mean())))
    return EvenFit(head.shifted(intercepts.shift), settings[chosen][0], intercepts, *scores)


def _settings(X: Array, n_classes: int, scale: Array | None, config: HeadConfig) -> list[Setting]:
    """Penalties on unit variance and, with few examples of many classes, on one common scale."""
    settings: list[Setting] = [(l2, None) for l2 in config.erm_l2]
    if n_classes > 2 and scale is not None and len(X) < config.common_scale_rows * X.shape[1]:
        settings += [(l2, scale) for l2 in config.erm_l2]
    return settings


def _held_out(
    X: Array,
    y: IntArray,
    n_classes: int,
    fold: IntArray,
    weights: Array | None,
    settings: Sequence[Setting],
    config: HeadConfig,
) -> Array:
    """Logits of each example by the heads that did not see it, one per setting, `(settings, n, K)`."""
    logits = np.empty((len(settings), len(y), n_classes))
    for j in range(config.folds):
        out = fold == j
        train = None if weights is None else weights[~out]
        head = None
        for i, setting in enumerate(settings):
            head = _fit(X[~out], y[~out], n_classes, setting, train, head)
            logits[i, out] = head.logits(X[out])
    return logits


def _fit(
    X: Array,
    y: IntArray,
    n_classes: int,
    setting: Setting,
    weights: Array | None,
    start: LinearHead | None = None,
) -> LinearHead:
    """Logistic regression with a penalty, on one common scale if `setting` holds the coordinates' own ones."""
    l2, scale = setting
    if scale is None:
        return fit_logistic(X, y, n_classes, l2=l2, weights=weights, start=start)
    return fit_on_common_scale(X, y, n_classes, l2=l2, scale=scale, weights=weights, start=start)


def _fit_all(
    X: ReducedLatents,
    y: IntArray,
    n_classes: int,
    setting: Setting,
    weights: Array | None,
    rng: np.random.Generator,
    config: HeadConfig,
) -> LinearHead:
    """The head of all rows, or of many rows that of a sample with classes as full as can be."""
    rows, times = sampled_rows(y, most_rows(n_classes, X.shape[1], config), rng)
    if times is None:
        return _fit(X[:], y, n_classes, setting, weights)
    return _fit(X[rows], y[rows], n_classes, setting, times if weights is None else weights[rows] * times)


def _by_worst(accuracy: Array, counts: IntArray, default: int) -> int:
    """The row of `accuracy (settings, K)` with the best worst class if that is clearly better than `default`'s."""
    worst = accuracy.min(axis=1)
    best, place = int(worst.argmax()), int(accuracy[default].argmin())
    error = np.sqrt(max(worst[default] * (1.0 - worst[default]), 0.01) / max(counts[place], 1))
    return best if worst[best] - worst[default] > error else default
