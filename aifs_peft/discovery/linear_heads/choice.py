"""Which head to train, judged by worst inferred-group accuracy on held-out folds.

An additive head with fixed settings is the default, and another one replaces it only when its worst held-out cell is
better by more than one standard error: with few conflicting examples the best of many heads is the luckiest one.
Then its intercepts are moved, where that evens out the cells (`intercepts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aifs_peft.discovery.arrays import Array, BoolArray, IntArray, deal, one_hot
from aifs_peft.discovery.config import DEFAULT_CONFIG, DiscoveryConfig
from aifs_peft.discovery.linear_heads.additive import additive_head
from aifs_peft.discovery.linear_heads.families import (
    ADDITIVE,
    HeadSetting,
    attribute_values,
    default_setting,
    fit_head,
)
from aifs_peft.discovery.linear_heads.intercepts import Intercepts, even_intercepts
from aifs_peft.discovery.linear_heads.logistic import LinearHead
from aifs_peft.discovery.mixture.additive import additive_model, model_given_offsets
from aifs_peft.discovery.mixture.joint import conflicts
from aifs_peft.discovery.reduced import ReducedLatents


@dataclass(frozen=True)
class HeadChoice:
    """The head that was chosen, and why.

    Args:
        setting: The family and its number.
        scores: Worst held-out inferred-cell accuracy of each setting; empty where cells were too small to judge.
        reason: Why, in a sentence.
        intercepts: What is added to its logits, judged by the same held-out cells; `None` where they were too small.
    """

    setting: HeadSetting
    scores: dict[str, float]
    reason: str
    intercepts: Intercepts | None = None

    def shifted(self, head: LinearHead) -> LinearHead:
        """The head of this choice with its intercepts moved."""
        return head if self.intercepts is None else head.shifted(self.intercepts.shift)


def hinted_head(
    X: Array,
    y: IntArray,
    R: Array,
    beta: Array,
    *,
    weights: Array | None = None,
    of_pool: bool = False,
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> LinearHead:
    """The additive head for attribute offsets that come from a hint.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Responsibilities, shape `(n, K)`.
        beta: Attribute offsets, posterior means, shape `(K, k)`.
        weights: Of the examples, see `fit_head`.
        of_pool: Whether unlabelled examples show the attribute: the head turns away from it farther.
        config: Shrinkage and avoidance.
    """
    own = config.heads
    model = model_given_offsets(X, y, R, beta, weights=weights)
    avoided = own.unlabelled_avoidance if of_pool else own.hinted_avoidance
    return additive_head(model, shrinkage=own.hinted_shrinkage, avoidance=avoided, config=config.mixture, split=False)


def choose_hinted_head(
    X: Array,
    y: IntArray,
    R: Array,
    beta: Array,
    *,
    weights: Array | None = None,
    of_pool: bool = False,
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> tuple[LinearHead, HeadChoice]:
    """The additive head of a hint, with its intercepts moved where that evens out the cells.

    An attribute that needs a hint is too weak for its cells to be told apart, so they cannot judge a head. An example
    counts in each cell by its responsibility.

    Args:
        X: See `hinted_head`, like all that follow.
        y: Labels.
        R: Responsibilities.
        beta: Attribute offsets.
        weights: Of the examples.
        of_pool: See `hinted_head`.
        config: Folds, and what cells may judge.
    """
    own = config.heads

    def fit(rows: BoolArray | slice, of: Array | None) -> LinearHead:
        return hinted_head(X[rows], y[rows], R[rows], beta, weights=of, of_pool=of_pool, config=config)

    # In the order given within each class: every fold has its share of each.
    fold = deal(np.argsort(y, kind="stable"), own.folds)
    logits = np.empty(R.shape)
    for j in range(own.folds):
        out = fold == j
        train = None if weights is None else weights[~out]
        logits[out] = fit(~out, train).logits(X[out])
    shift = even_intercepts(logits, y, R, fold, weights=weights, config=own)
    reason = "the hinted attribute is too weak to judge a head by its cells: fixed settings"
    if shift.moved:
        reason += f"; intercepts moved, which gains {shift.gain:.3f} +- {shift.error:.3f} in the worst held-out cell"
    choice = HeadChoice(HeadSetting("additive", own.hinted_shrinkage), {}, reason, shift)
    return choice.shifted(fit(slice(None), weights)), choice


def choose_head(
    X: ReducedLatents,
    y: IntArray,
    R: Array,
    *,
    rng: np.random.Generator,
    rough: bool = False,
    weights: Array | None = None,
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> HeadChoice:
    """Compare the heads on held-out folds by the worst inferred cell.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Responsibilities of the discovered attribute, shape `(n, K)`; of several `(n, m, K)`.
        rng: Source of the folds, of the sample of large data, and of the counterfactuals.
        rough: Whether the partition is a rough one, see `Discovery.rough_`: another default.
        weights: Of the examples, see `fit_head`; they also weigh in the accuracy of a cell.
        config: Grids, folds, and the smallest cell that may judge.

    Returns:
        The choice; the default when all conflicting cells are too small to judge, with several attributes when one is:
        that of examples that conflict in all of them tells the heads apart.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.9, y, 1 - y)
        >>> X = rng.normal(size=(1000, 4)); X[:, 0] += 6 * a; X[:, 1] += 3 * y
        >>> choice = choose_head(X, y, np.eye(2)[a], rng=rng)
        >>> choice.setting.family, len(choice.scores)
        ('additive', 14)
    """
    own = config.heads
    # The parts of each class: aligned in every attribute (first), and each set of attributes that conflict.
    values = attribute_values(R)
    pattern, parts = conflicts(values, y), 2 ** values.shape[1]
    default = default_setting(R.shape[-1], rough=rough, several=parts > 2, config=own)
    rows = _sample(pattern > 0, rng, own.max_rows)
    part, y, R = X[rows], y[rows], R[rows]
    weights = None if weights is None else weights[rows]
    cells = parts * y + pattern[rows]
    counts = np.bincount(cells, minlength=parts * R.shape[-1])
    judged = np.flatnonzero(counts >= own.min_cell)
    if not np.any(judged % parts > 0) or (parts > 2 and len(judged) < len(counts)):
        return HeadChoice(default, {}, "conflicting cells too small to judge a head: the default")
    logits, fold = _held_out(part, y, R, rng=rng, config=config, weights=weights)
    scores, errors = {}, {}
    for setting, held_out in logits.items():
        hits = held_out.argmax(axis=1) == y
        means = np.array([_mean(hits, cells == c, weights) for c in judged])
        worst = int(means.argmin())
        scores[setting] = float(means[worst])
        errors[setting] = float(np.sqrt(max(means[worst] * (1 - means[worst]), 0.01) / counts[judged[worst]]))
    best = max(scores, key=lambda s: scores[s])
    margin = scores[best] - scores[default]
    chosen = best if margin > errors[default] else default
    reason = f"worst inferred cell {scores[chosen]:.3f} held out; best of all {scores[best]:.3f} ({best.describe()})"
    shift = even_intercepts(logits[chosen], y, one_hot(pattern[rows], parts), fold, weights=weights, config=own)
    if shift.moved:
        reason += f"; intercepts moved, which gains {shift.gain:.3f} +- {shift.error:.3f} there"
    return HeadChoice(chosen, {s.describe(): v for s, v in scores.items()}, reason, shift)


def _mean(hits: BoolArray, cell: BoolArray, weights: Array | None) -> float:
    """Share of a cell's examples, or of their weight, that is classified rightly."""
    return float(hits[cell].mean() if weights is None else np.average(hits[cell], weights=weights[cell]))


def _sample(conflicting: BoolArray, rng: np.random.Generator, most: int) -> IntArray:
    """Rows to compare heads on: all conflicting examples stay, up to half of them."""
    n = len(conflicting)
    if n <= most:
        return np.arange(n)
    few = rng.permutation(np.flatnonzero(conflicting))[: most // 2]
    rest = rng.permutation(np.flatnonzero(~conflicting))[: most - len(few)]
    return np.sort(np.concatenate([few, rest]))


def _held_out(
    X: Array,
    y: IntArray,
    R: Array,
    *,
    rng: np.random.Generator,
    config: DiscoveryConfig,
    weights: Array | None = None,
) -> tuple[dict[HeadSetting, Array], IntArray]:
    """Logits of each example by the head that did not see it, per setting, and the folds."""
    own = config.heads
    settings = [HeadSetting("additive", s) for s in own.shrinkages]
    settings += [HeadSetting(family, l2) for family in ("balanced", "counterfactual") for l2 in own.l2]
    if R.shape[-1] > 2:
        settings.append(HeadSetting("interacting", own.default_shrinkage_many))
    logits = {setting: np.empty((len(y), R.shape[-1]), dtype=X.dtype) for setting in settings}
    # Folds are dealt within cells, so that every fold holds its share of the few conflicting examples.
    fold = deal(np.lexsort((rng.random(len(y)), conflicts(attribute_values(R), y), y)), own.folds)
    for j in range(own.folds):
        test = fold == j
        train_X, train_y, train_R = X[~test], y[~test], R[~test]
        train_w = None if weights is None else weights[~test]
        model = additive_model(train_X, train_y, train_R, weights=train_w)
        previous: dict[str, LinearHead] = {}
        for setting in settings:
            start = previous.get(setting.family)
            head = fit_head(
                train_X, train_y, train_R, setting, rng=rng, start=start, weights=train_w, model=model, config=config
            )
            if setting.family not in ADDITIVE:
                previous[setting.family] = head
            logits[setting][test] = head.logits(X[test])
    return logits, fold
