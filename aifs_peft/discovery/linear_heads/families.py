"""The families of heads, each fitted for inferred groups with one number that the choice sets.

`"additive"` and `"interacting"`: linear discriminants of the additive model. `"balanced"`: logistic regression balanced
over inferred cells. `"counterfactual"`: the same with counterfactual examples added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import DEFAULT_CONFIG, DiscoveryConfig, HeadConfig
from aifs_peft.discovery.linear_heads.additive import additive_head
from aifs_peft.discovery.linear_heads.logistic import LinearHead, fit_logistic
from aifs_peft.discovery.linear_heads.rows import most_rows, sampled_rows
from aifs_peft.discovery.mixture.additive import AdditiveModel, additive_model, with_conflicting_covariance
from aifs_peft.discovery.mixture.joint import combine, conflicts, joint_offsets
from aifs_peft.discovery.reduced import ReducedLatents

ADDITIVE = ("additive", "interacting")


@dataclass(frozen=True)
class HeadSetting:
    """A family of heads and its one number.

    Args:
        family: `"additive"`, `"interacting"`, `"balanced"` or `"counterfactual"`.
        value: Shrinkage of the covariance for the first two, L2 penalty for the others.
    """

    family: str
    value: float

    def describe(self) -> str:
        """Short text for logs."""
        name = "shrinkage" if self.family in ADDITIVE else "l2"
        return f"{self.family} ({name} {self.value:g})"


def default_setting(
    n_classes: int, *, rough: bool = False, several: bool = False, config: HeadConfig = DEFAULT_CONFIG.heads
) -> HeadSetting:
    """The head that is trained unless another is clearly better.

    Where the partition is `rough` (many classes, no mixture confirms it), the latents are not additive enough for a
    mixture, and the covariance has to allow for what class and attribute do together. With `several` attributes on real
    latents they are even less so, and balancing with counterfactuals is safer.

    Args:
        n_classes: `K`.
        rough: Whether the partition is rough.
        several: Whether there are several attributes.
        config: The settings of each.

    Example:
        >>> default_setting(2).describe(), default_setting(10, rough=True).describe()
        ('additive (shrinkage 0.5)', 'interacting (shrinkage 0.02)')
    """
    if several:
        return HeadSetting("counterfactual", config.default_l2_several)
    if rough:
        return HeadSetting("interacting", config.default_shrinkage_many)
    return HeadSetting("additive", config.default_shrinkage if n_classes == 2 else config.default_shrinkage_many)


def balanced_weights(
    y: IntArray, R: Array, *, floor: float = DEFAULT_CONFIG.heads.cell_floor, own: Array | None = None
) -> Array:
    """Weight of each example so that aligned and conflicting ones weigh what they do in an even population.

    With `K` values that are independent of the label, a class has `1 / K` aligned and `(K - 1) / K` conflicting
    examples. The conflicting part is one cell per class: with many classes the single cells `(y, a)` are too small to
    weigh, and which value an example carries is less sure than that it conflicts. For two classes this is the balance
    over all four cells. With several attributes, `R (n, m, K)`, a class has `2**m` parts, whose shares multiply.

    Args:
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Responsibilities, shape `(n, K)` or `(n, m, K)`.
        floor: A lighter part counts as if it had this weight, so that no single example dominates the loss.
        own: What each example weighs in its part, shape `(n,)`, mean one; all one if `None`.

    Returns:
        Shape `(n,)`, sum one.

    Example:
        >>> y = np.array([0, 0, 0, 1, 1]); a = np.array([0, 0, 1, 1, 0])
        >>> balanced_weights(y, np.eye(2)[a], floor=0.0).tolist()
        [0.125, 0.125, 0.25, 0.25, 0.25]
        >>> y = np.array([0, 0, 0, 1, 1, 2, 2]); a = np.array([0, 0, 2, 1, 0, 2, 1])  # a third aligned in each class
        >>> balanced_weights(y, np.eye(3)[a], floor=0.0).round(2).tolist()
        [0.06, 0.06, 0.22, 0.11, 0.22, 0.11, 0.22]
    """
    n, K = len(y), R.shape[-1]
    parts = np.ones((n, 1)) if own is None else own[:, None].astype(np.float64)
    even = np.ones(1)  # weight of each part, in units of that of a part among equals
    for aligned in R.reshape(n, -1, K)[np.arange(n), :, y].T.astype(np.float64):
        parts = np.concatenate([parts * aligned[:, None], parts * (1.0 - aligned)[:, None]], axis=1)
        even = np.concatenate([even * 2.0 / K, even * 2.0 * (K - 1) / K])
    weights = np.empty(n)
    for c in range(K):
        rows = y == c
        weights[rows] = np.sum(parts[rows] * even / np.maximum(parts[rows].sum(axis=0), floor), axis=1)
    return np.asarray(weights / weights.sum())


def counterfactuals(
    X: Array,
    y: IntArray,
    R: Array,
    *,
    rng: np.random.Generator,
    weights: Array | None = None,
    model: AdditiveModel | None = None,
) -> Array:
    """Each example with another attribute value, drawn evenly from the others: `X + beta_b - beta_a`.

    With several attributes, `R (n, m, K)`, another combination of their values.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Responsibilities, shape `(n, K)` or `(n, m, K)`.
        rng: Source of the values.
        weights: Of the examples, see `additive_model`.
        model: The additive model of these examples, where it is known.

    Returns:
        Shape `(n, k)`.

    Example:
        >>> y, a = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
        >>> X = np.array([[0.0, 0.0], [0.0, 4.0], [2.0, 0.0], [2.0, 4.0]])
        >>> moved = counterfactuals(X, y, np.eye(2)[a], rng=np.random.default_rng(0))
        >>> bool(np.abs(moved - [[0, 4], [0, 0], [2, 4], [2, 0]]).max() < 0.01)
        True
    """
    model = additive_model(X, y, R, weights=weights) if model is None else model
    K = R.shape[-1]
    beta = joint_offsets(model.beta.reshape(-1, K, X.shape[1]))
    own = combine(attribute_values(R), K)
    other = (own + rng.integers(1, len(beta), len(y))) % len(beta)
    # The few displacements that occur, once, and not one row of float64 per example.
    pairs, which = np.unique(own * len(beta) + other, return_inverse=True)
    moves = beta[pairs % len(beta)] - beta[pairs // len(beta)]
    out = moves.astype(X.dtype)[which]
    out += X
    return np.asarray(out)


def attribute_values(R: Array) -> IntArray:
    """Most probable value of each attribute, `(n, m)`, from responsibilities `(n, K)` or `(n, m, K)`."""
    return np.asarray(R.reshape(len(R), -1, R.shape[-1]).argmax(axis=2))


def fit_head(
    X: ReducedLatents,
    y: IntArray,
    R: Array,
    setting: HeadSetting,
    *,
    rng: np.random.Generator,
    start: LinearHead | None = None,
    weights: Array | None = None,
    model: AdditiveModel | None = None,
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> LinearHead:
    """Fit one head.

    Additive heads need sums over all rows only. Logistic ones of many rows are fitted to a sample in which every cell
    of label and attribute is as full as can be, and weighs what all of its examples do.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Responsibilities, shape `(n, K)`; of several attributes `(n, m, K)`.
        setting: Family and number.
        rng: Source of the counterfactuals, and of the sample.
        start: Where a logistic regression starts.
        weights: Of the examples, shape `(n,)`, above 0; only their ratios count. All one if `None`.
        model: The additive model of these examples, for callers that fit several heads to them.
        config: Fixed numbers of the families.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(1000, 2)); X[:, 0] += 6 * a; X[:, 1] += 6 * y
        >>> head = fit_head(X, y, np.eye(2)[a], HeadSetting("additive", 0.05), rng=rng)
        >>> bool(np.mean(head.logits(X)[a != y].argmax(axis=1) == y[a != y]) > 0.9)
        True
    """
    own, K = config.heads, R.shape[-1]
    if setting.family in ADDITIVE:
        model = additive_model(X, y, R, weights=weights) if model is None else model
        if setting.family == "interacting":
            model = with_conflicting_covariance(
                model, X, y, R, weight=own.conflict_weight, config=config.mixture, weights=weights
            )
        return additive_head(model, shrinkage=setting.value, avoidance=own.avoidance, config=config.mixture)
    n = len(y)
    scaled = None if weights is None else weights * (n / weights.sum())
    rows, times = sampled_rows(cells_of(y, R), most_rows(K, X.shape[1], own), rng)
    if times is not None:
        y, R, scaled, model = y[rows], R[rows], times if scaled is None else scaled[rows] * times, None
    sample = X[:] if times is None else X[rows]
    balanced = balanced_weights(y, R, floor=own.cell_floor, own=scaled)
    if setting.family == "counterfactual":
        moved = counterfactuals(sample, y, R, rng=rng, weights=scaled, model=model)
        each = np.full(len(y), own.counterfactual_weight / n)
        balanced = np.concatenate([balanced, each if scaled is None else each * scaled])
        sample, y = np.concatenate([sample, moved]), np.concatenate([y, y])
    return fit_logistic(sample, y, K, l2=setting.value, weights=balanced, start=start)


def cells_of(y: IntArray, R: Array) -> IntArray:
    """The cell of each example: its label, and which attributes conflict with it.

    Args:
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Responsibilities, shape `(n, K)` or `(n, m, K)`.

    Returns:
        `2**m * y` plus a number in `0..2**m-1`, 0 where none conflicts; shape `(n,)`.

    Example:
        >>> cells_of(np.array([0, 0, 1]), np.eye(2)[[0, 1, 1]]).tolist()
        [0, 1, 2]
    """
    values = attribute_values(R)
    return np.asarray(2 ** values.shape[1] * y + conflicts(values, y))
