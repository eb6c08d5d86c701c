"""Which head to train, judged by worst inferred-group accuracy on held-out folds.

Three families: the additive head, logistic regression balanced over inferred cells, and the same with counterfactual
examples added; with more than two classes also the additive head that allows for interactions of class and attribute.
An additive head with fixed settings is the default, and another one replaces it only when its worst held-out cell is
better by more than one standard error: with few conflicting examples the best of many heads is the luckiest one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.linear_heads.additive import (
    additive_head,
    additive_model,
    model_given_offsets,
    with_conflicting_covariance,
)
from aifs_peft.discovery.linear_heads.logistic import LinearHead, fit_logistic
from aifs_peft.discovery.mixture.joint import combine, conflicts, joint_offsets

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

FOLDS = 3
ADDITIVE = ("additive", "interacting")
L2_GRID = (1.0, 0.3, 0.1, 0.03, 0.01)
ERM_L2_GRID = (1.0, 0.1, 0.01, 0.001)
SHRINKAGE_GRID = (0.02, 0.05, 0.2, 0.5)
DEFAULT_SHRINKAGE = 0.5
# With many classes the discriminant has more directions to lose: less shrinkage, measured on ten-class Colored MNIST.
DEFAULT_SHRINKAGE_MANY = 0.02
# Measured on images with two shortcuts.
DEFAULT_L2_SEVERAL = 0.1
# Of conflicting examples in the covariance of the interacting head; 0.2 to 0.5 are alike, see docs/discovery.md.
CONFLICT_WEIGHT = 0.3
AVOIDANCE = 3.0
# For offsets that are posterior means, which are shrunk: turn away further, and trust the covariance more.
HINTED_SHRINKAGE = 0.05
HINTED_AVOIDANCE = 6.0
COUNTERFACTUAL_WEIGHT = 0.3
# A cell with less weight than this counts as if it had this much: no single example may dominate the loss.
CELL_FLOOR = 5.0
# Cells with fewer held-out examples say nothing about a head.
MIN_CELL = 10
# Rows on which heads are compared; all conflicting examples stay up to half of them.
MAX_ROWS = 6000


@dataclass(frozen=True)
class HeadSetting:
    """A family and its one setting: shrinkage for `"additive"` and `"interacting"`, L2 penalty for the others."""

    family: str
    value: float

    def describe(self) -> str:
        """Short text for logs."""
        name = "shrinkage" if self.family in ADDITIVE else "l2"
        return f"{self.family} ({name} {self.value:g})"


def default_setting(n_classes: int, *, rough: bool = False, several: bool = False) -> HeadSetting:
    """The head that is trained unless another is clearly better.

    Where the partition is `rough` (many classes, no mixture confirms it), the latents are not additive enough for a
    mixture, and the covariance has to allow for what class and attribute do together. With `several` attributes on real
    latents they are even less so, and balancing with counterfactuals is safer.
    """
    if several:
        return HeadSetting("counterfactual", DEFAULT_L2_SEVERAL)
    if rough:
        return HeadSetting("interacting", DEFAULT_SHRINKAGE_MANY)
    return HeadSetting("additive", DEFAULT_SHRINKAGE if n_classes == 2 else DEFAULT_SHRINKAGE_MANY)


@dataclass(frozen=True)
class HeadChoice:
    """The chosen setting, each setting's worst held-out inferred-cell accuracy, and why."""

    setting: HeadSetting
    scores: dict[str, float]
    reason: str


def balanced_weights(y: IntArray, R: Array, *, floor: float = CELL_FLOOR) -> Array:
    """Weight of each example so that in every class the aligned and the conflicting part weigh the same, `(n,)`.

    The conflicting part is one cell per class: with many classes the single cells `(y, a)` are too small to weigh.
    For two classes this is the balance over all four cells. With several attributes, `R (n, m, K)`, a class has
    `2**m` parts.
    """
    n, K = len(y), R.shape[-1]
    parts = np.ones((n, 1))
    for own in R.reshape(n, -1, K)[np.arange(n), :, y].T.astype(np.float64):
        parts = np.concatenate([parts * own[:, None], parts * (1.0 - own)[:, None]], axis=1)
    weights = np.empty(n)
    for c in range(K):
        rows = y == c
        weights[rows] = np.sum(parts[rows] / np.maximum(parts[rows].sum(axis=0), floor), axis=1)
    return np.asarray(weights / weights.sum())


def counterfactuals(X: Array, y: IntArray, R: Array, *, rng: np.random.Generator) -> Array:
    """Each example with another attribute value, drawn evenly from the others: `X + beta_b - beta_a`, `(n, k)`.

    With several attributes, `R (n, m, K)`, another combination of their values.
    """
    K = R.shape[-1]
    beta = joint_offsets(additive_model(X, y, R).beta.reshape(-1, K, X.shape[1]))
    own = combine(_values(R), K)
    other = (own + rng.integers(1, len(beta), len(y))) % len(beta)
    return np.asarray(X + (beta[other] - beta[own]).astype(X.dtype))


def _values(R: Array) -> IntArray:
    """Most probable value of each attribute, `(n, m)`."""
    return np.asarray(R.reshape(len(R), -1, R.shape[-1]).argmax(axis=2))


def fit_head(
    X: Array, y: IntArray, R: Array, setting: HeadSetting, *, rng: np.random.Generator, start: LinearHead | None = None
) -> LinearHead:
    """Fit one head on reduced latents `X (n, k)`, labels `y (n,)` and responsibilities `R (n, K)` or `(n, m, K)`."""
    K = R.shape[-1]
    if setting.family in ADDITIVE:
        model = additive_model(X, y, R)
        if setting.family == "interacting":
            model = with_conflicting_covariance(model, X, y, R, weight=CONFLICT_WEIGHT)
        return additive_head(model, shrinkage=setting.value, avoidance=AVOIDANCE)
    weights = balanced_weights(y, R)
    if setting.family == "counterfactual":
        X = np.concatenate([X, counterfactuals(X, y, R, rng=rng)])
        weights = np.concatenate([weights, np.full(len(y), COUNTERFACTUAL_WEIGHT / len(y))])
        y = np.concatenate([y, y])
    return fit_logistic(X, y, K, l2=setting.value, weights=weights, start=start)


def hinted_head(X: Array, y: IntArray, R: Array, beta: Array) -> tuple[LinearHead, HeadChoice]:
    """The additive head for offsets `beta (K, k)` that come from a hint.

    An attribute that needs a hint is too weak for its cells to be told apart, so they cannot judge a head.
    """
    setting = HeadSetting("additive", HINTED_SHRINKAGE)
    model = model_given_offsets(X, y, R, beta)
    head = additive_head(model, shrinkage=setting.value, avoidance=HINTED_AVOIDANCE, split=False)
    return head, HeadChoice(
        setting, {}, "the hinted attribute is too weak to judge a head by its cells: fixed settings"
    )


def choose_head(X: Array, y: IntArray, R: Array, *, rng: np.random.Generator, rough: bool = False) -> HeadChoice:
    """Compare the heads on held-out folds by the worst inferred cell.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Responsibilities of the discovered attribute, shape `(n, K)`; of several `(n, m, K)`.
        rng: Source of the folds, of the sample above 6,000 rows, and of the counterfactuals.
        rough: Whether the partition is a rough one, see `Discovery.rough_`: another default.

    Returns:
        The choice; the default when all conflicting cells are too small to judge (fewer than 10 examples), with several
        attributes when one is: that of examples that conflict in all of them tells the heads apart.
    """
    # The parts of each class: aligned in every attribute (first), and each set of attributes that conflict.
    values = _values(R)
    pattern, parts = conflicts(values, y), 2 ** values.shape[1]
    default = default_setting(R.shape[-1], rough=rough, several=parts > 2)
    rows = _sample(pattern > 0, rng)
    X, y, R = X[rows], y[rows], R[rows]
    cells = parts * y + pattern[rows]
    counts = np.bincount(cells, minlength=parts * R.shape[-1])
    judged = np.flatnonzero(counts >= MIN_CELL)
    if not np.any(judged % parts > 0) or (parts > 2 and len(judged) < len(counts)):
        return HeadChoice(default, {}, "conflicting cells too small to judge a head: the default")
    correct = _held_out(X, y, R, rng=rng)
    scores, errors = {}, {}
    for setting, hits in correct.items():
        means = np.array([hits[cells == c].mean() for c in judged])
        worst = int(means.argmin())
        scores[setting] = float(means[worst])
        errors[setting] = float(np.sqrt(max(means[worst] * (1 - means[worst]), 0.01) / counts[judged[worst]]))
    best = max(scores, key=lambda s: scores[s])
    margin = scores[best] - scores[default]
    chosen = best if margin > errors[default] else default
    reason = f"worst inferred cell {scores[chosen]:.3f} held out; best of all {scores[best]:.3f} ({best.describe()})"
    return HeadChoice(chosen, {s.describe(): v for s, v in scores.items()}, reason)


def _sample(conflicting: NDArray[np.bool_], rng: np.random.Generator) -> IntArray:
    n = len(conflicting)
    if n <= MAX_ROWS:
        return np.arange(n)
    few = rng.permutation(np.flatnonzero(conflicting))[: MAX_ROWS // 2]
    rest = rng.permutation(np.flatnonzero(~conflicting))[: MAX_ROWS - len(few)]
    return np.sort(np.concatenate([few, rest]))


def _held_out(X: Array, y: IntArray, R: Array, *, rng: np.random.Generator) -> dict[HeadSetting, NDArray[np.bool_]]:
    """Whether each example is classified rightly by the head that did not see it, per setting."""
    settings = [HeadSetting("additive", s) for s in SHRINKAGE_GRID]
    settings += [HeadSetting(family, l2) for family in ("balanced", "counterfactual") for l2 in L2_GRID]
    if R.shape[-1] > 2:
        settings.append(HeadSetting("interacting", DEFAULT_SHRINKAGE_MANY))
    correct = {setting: np.zeros(len(y), dtype=bool) for setting in settings}
    # Folds are dealt within cells, so that every fold holds its share of the few conflicting examples.
    order = np.lexsort((rng.random(len(y)), conflicts(_values(R), y), y))
    fold = np.empty(len(y), dtype=np.int64)
    fold[order] = np.arange(len(y)) % FOLDS
    for j in range(FOLDS):
        test = fold == j
        train_X, train_y, train_R = X[~test], y[~test], R[~test]
        previous: dict[str, LinearHead] = {}
        for setting in settings:
            head = fit_head(train_X, train_y, train_R, setting, rng=rng, start=previous.get(setting.family))
            if setting.family not in ADDITIVE:
                previous[setting.family] = head
            correct[setting][test] = head.logits(X[test]).argmax(axis=1) == y[test]
    return correct


def fit_erm(X: Array, y: IntArray, n_classes: int, *, rng: np.random.Generator) -> tuple[LinearHead, float]:
    """Plain logistic regression, its L2 penalty by held-out accuracy; the head and the penalty."""
    n = len(y)
    rows = np.sort(rng.permutation(n)[:MAX_ROWS])
    fold = rng.permutation(len(rows)) % FOLDS
    hits = np.zeros(len(ERM_L2_GRID))
    for j in range(FOLDS):
        train, test = rows[fold != j], rows[fold == j]
        head = None
        for i, l2 in enumerate(ERM_L2_GRID):
            head = fit_logistic(X[train], y[train], n_classes, l2=l2, start=head)
            hits[i] += np.count_nonzero(head.logits(X[test]).argmax(axis=1) == y[test])
    # Ties go to the stronger penalty.
    l2 = ERM_L2_GRID[int(hits.argmax())]
    return fit_logistic(X, y, n_classes, l2=l2), l2
