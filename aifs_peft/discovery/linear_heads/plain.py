"""Logistic regression that knows of no attribute: plain training, and what is trained where nothing was found."""

from __future__ import annotations

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, deal, random_folds
from aifs_peft.discovery.config import DEFAULT_CONFIG, HeadConfig
from aifs_peft.discovery.linear_heads.logistic import LinearHead, fit_logistic, fit_on_common_scale


def fit_plain(
    X: Array,
    y: IntArray,
    n_classes: int,
    *,
    rng: np.random.Generator,
    weights: Array | None = None,
    by_worst_class: bool = False,
    scale: Array | None = None,
    config: HeadConfig = DEFAULT_CONFIG.heads,
) -> tuple[LinearHead, float]:
    """Logistic regression, its L2 penalty chosen on held-out folds.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds and, for large data, of the rows that choose the penalty.
        weights: Of the examples, shape `(n,)`; all one if `None`.
        by_worst_class: Whether another penalty than that of the best weighted accuracy is taken where its worst class
            is better by more than one standard error. Ties go to the stronger penalty.
        scale: Standard deviations that the coordinates had before they were whitened, shape `(k,)`. With more than two
            classes and few examples, one common scale is compared with unit variance: whitening costs accuracy there.
        config: Grid of penalties and folds.

    Returns:
        The head and the penalty.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = (rng.random(2000) < 0.1).astype(int); X = rng.normal(size=(2000, 2)); X[:, 0] += 2 * y
        >>> def worst(head):
        ...     hits = head.logits(X).argmax(axis=1) == y
        ...     return min(hits[y == c].mean() for c in (0, 1))
        >>> plain, _ = fit_plain(X, y, 2, rng=rng)
        >>> even, _ = fit_plain(X, y, 2, rng=rng, weights=1.0 / np.bincount(y)[y], by_worst_class=True)
        >>> bool(worst(plain) < 0.5), bool(worst(even) > 0.8)
        (True, True)
    """
    rows = np.sort(rng.permutation(len(y))[: config.max_rows])
    w = np.ones(len(y)) if weights is None else weights
    if by_worst_class:
        # Dealt class by class: every fold has its share of a small one.
        fold = deal(np.lexsort((rng.random(len(rows)), y[rows])), config.folds)
    else:
        fold = random_folds(len(rows), config.folds, rng)
    settings: list[tuple[float, Array | None]] = [(l2, None) for l2 in config.erm_l2]
    if n_classes > 2 and scale is not None and len(rows) < config.common_scale_rows * X.shape[1]:
        settings += [(l2, scale) for l2 in config.erm_l2]
    # Weight of the examples of each class that are classified rightly, per penalty and scale.
    right = np.zeros((len(settings), n_classes))
    for j in range(config.folds):
        train, test = rows[fold != j], rows[fold == j]
        head = None
        for i, setting in enumerate(settings):
            head = _fit(X[train], y[train], n_classes, setting, None if weights is None else w[train], head)
            hits = head.logits(X[test]).argmax(axis=1) == y[test]
            right[i] += np.bincount(y[test], w[test] * hits, minlength=n_classes)
    chosen = int(right.sum(axis=1).argmax())
    if by_worst_class:
        in_all = np.bincount(y[rows], w[rows], minlength=n_classes)
        chosen = _by_worst(right / np.maximum(in_all, 1e-12), np.bincount(y[rows], minlength=n_classes), chosen)
    return _fit(X, y, n_classes, settings[chosen], weights), settings[chosen][0]


def _fit(
    X: Array,
    y: IntArray,
    n_classes: int,
    setting: tuple[float, Array | None],
    weights: Array | None,
    start: LinearHead | None = None,
) -> LinearHead:
    """Logistic regression with a penalty, on one common scale if `setting` holds the coordinates' own ones."""
    l2, scale = setting
    if scale is None:
        return fit_logistic(X, y, n_classes, l2=l2, weights=weights, start=start)
    return fit_on_common_scale(X, y, n_classes, l2=l2, scale=scale, weights=weights, start=start)


def _by_worst(accuracy: Array, counts: IntArray, default: int) -> int:
    """The row of `accuracy (settings, K)` with the best worst class if that is clearly better than `default`'s."""
    worst = accuracy.min(axis=1)
    best, place = int(worst.argmax()), int(accuracy[default].argmin())
    error = np.sqrt(max(worst[default] * (1.0 - worst[default]), 0.01) / max(counts[place], 1))
    return best if worst[best] - worst[default] > error else default
