"""More than two classes: a rough partition sharpened by a discriminant that does not look at its own examples.

The trimmed discriminant mixes the attribute with the class: half of the examples that it calls conflicting are
aligned ones that resemble another class. Fitting the additive model to its partition and assigning anew separates the
two, but a free mixture drifts to styles within classes. Four things hold it: an example is assigned by a model
fitted without it; the class offsets are added to the covariance so that resembling another class is no evidence; the
number of conflicting examples of a class is given, not fitted; and in the first rounds they are spread evenly over the
other values, since which value they carry is what a wrong start confirms for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np

from aifs_peft.discovery import gate as gates
from aifs_peft.discovery.arrays import Array, IntArray, one_hot, random_folds, row_chunks
from aifs_peft.discovery.config import DiscoveryConfig, MixtureConfig, RefinementConfig
from aifs_peft.discovery.mixture.additive import AdditiveModel, AdditiveMoments, additive_model, split_by_signal
from aifs_peft.discovery.mixture.em import shrink
from aifs_peft.discovery.principal_components import usable_components
from aifs_peft.discovery.reduced import ReducedLatents


def refine_attribute(
    X: Array, y: IntArray, attribute: IntArray, n_classes: int, *, rng: np.random.Generator, config: DiscoveryConfig
) -> Array:
    """Sharpen a partition of more than two attribute values.

    Costs `O(n k^2)` per round.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        attribute: Attribute value of each example to start from, shape `(n,)`.
        n_classes: `K`, above 2.
        rng: Source of the folds.
        config: Its `refinement`, and the `mixture`'s split of offsets.

    Returns:
        Weights of the attribute values, shape `(n, K)`, rows sum to one.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 4, 4000); a = np.where(rng.random(4000) < 0.9, y, rng.integers(0, 4, 4000))
        >>> X = rng.normal(size=(4000, 12)); X[:, :4] += 5 * np.eye(4)[a]; X[:, 4:8] += 3 * np.eye(4)[y]
        >>> rough = np.where(rng.random(4000) < 0.5, a, y)  # half of the conflicting examples missed
        >>> R = refine_attribute(X, y, rough, 4, rng=rng, config=DiscoveryConfig())
        >>> bool(np.mean(rough == a) < 0.97), bool(np.mean(R.argmax(axis=1) == a) > 0.98)
        (True, True)
    """
    own, n = config.refinement, len(y)
    second = (X.T @ X).astype(np.float64)
    most = own.share_growth * float(np.mean(attribute != y))
    # Class by class, so that what is the same for a class is repeated, not looked up for each example.
    order = np.argsort(y, kind="stable")
    X, y = X[order], y[order]
    R = one_hot(attribute[order], n_classes, X.dtype)
    history: list[Array] = []
    for step in range(own.rounds):
        # New folds each time: with the same ones a fold's chance errors would go round among the models.
        fold = random_folds(n, own.folds, rng)[order]
        # Values lie along the first axis in memory: sums and maxima over them then run along the examples.
        ratio, position = (np.empty((n_classes, n), dtype=X.dtype).T for _ in range(2))
        parts = [np.flatnonzero(fold == j) for j in range(own.folds)]
        blocks = [X[rows] for rows in parts]
        moments: list[AdditiveMoments] = []
        for rows, block in zip(parts, blocks, strict=True):
            # The products of all rows are the same each time: those of the last fold are what the others leave.
            last = len(moments) == own.folds - 1
            rest = second - sum(other.second for other in moments) if last else None
            moments.append(_mostly_aligned(block, y[rows], R[rows], rest))
        total = reduce(add, moments)
        for rows, block, mine in zip(parts, blocks, moments, strict=True):
            weight, offset, size = _discriminant((total - mine).fit(), own, config.mixture)
            ratio[rows], position[rows] = _evidence(block, y[rows], weight, offset, size)
        R = _assign(ratio, position, y, most, even=step < own.even_rounds, config=own)
        history = [*history[1 - own.averaged :], R]
    out = np.empty((n, n_classes), dtype=X.dtype)
    out[order] = np.mean(history, axis=0)
    return out


def refine_until_stable(
    X: Array, y: IntArray, attribute: IntArray, n_classes: int, *, rng: np.random.Generator, config: DiscoveryConfig
) -> Array:
    """`refine_attribute` again and again, as each pass can at most double the share of conflicting examples.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        attribute: Attribute value of each example to start from, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds.
        config: Its `refinement` says how often, and when the conflicting set counts as stable.

    Returns:
        Weights of the attribute values, shape `(n, K)`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 4, 4000); a = np.where(rng.random(4000) < 0.7, y, rng.integers(0, 4, 4000))
        >>> X = rng.normal(size=(4000, 12)); X[:, :4] += 5 * np.eye(4)[a]; X[:, 4:8] += 3 * np.eye(4)[y]
        >>> rough = np.where(rng.random(4000) < 0.2, a, y)  # four fifths of the conflicting examples missed
        >>> R = refine_until_stable(X, y, rough, 4, rng=rng, config=DiscoveryConfig())
        >>> bool(np.mean(rough == a) < 0.85), bool(np.mean(R.argmax(axis=1) == a) > 0.97)
        (True, True)
    """
    own = config.refinement
    R = one_hot(attribute, n_classes, X.dtype)
    for _ in range(own.repeats):
        if not (attribute != y).any():
            break
        R = refine_attribute(X, y, attribute, n_classes, rng=rng, config=config)
        previous, attribute = attribute, np.asarray(R.argmax(axis=1))
        if gates.jaccard(previous != y, attribute != y) >= own.stable:
            break
    return R


def refined_everywhere(X: ReducedLatents, y: IntArray, rows: IntArray, R: Array, *, config: DiscoveryConfig) -> Array:
    """Weights of the attribute values for all rows, from those of a refined sample.

    What is fitted to the sample judges the other rows as a fold judges those that it did not see.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        rows: Of the sample, rising, shape `(m,)`.
        R: Weights of its values, shape `(m, K)`: they stay as they are.
        config: As for `refine_attribute`.

    Returns:
        Shape `(n, K)`, float32.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 4, 4000); a = np.where(rng.random(4000) < 0.9, y, rng.integers(0, 4, 4000))
        >>> X = rng.normal(size=(4000, 12)); X[:, :4] += 5 * np.eye(4)[a]; X[:, 4:8] += 3 * np.eye(4)[y]
        >>> R = refined_everywhere(X, y, np.arange(2000), np.eye(4)[a[:2000]], config=DiscoveryConfig())
        >>> bool(np.mean(R.argmax(axis=1)[2000:] == a[2000:]) > 0.98)
        True
    """
    if len(rows) == len(y):
        return R.astype(np.float32, copy=False)
    rule = sharpened(X[rows], y[rows], R, config=config)
    out = np.empty((len(y), R.shape[1]), dtype=np.float32)
    for part in row_chunks(len(y)):
        out[part] = rule.responsibilities(X[part], y[part])
    out[rows] = R
    return out


@dataclass(frozen=True)
class Sharpened:
    """How a sharpened partition assigns rows that it was not fitted on.

    Args:
        weight: Of the discriminant, shape `(k, K)`.
        offset: Its offsets, rows are labels, shape `(K, K)`.
        size: `beta' Sigma^-1 beta`, shape `(K, K)`.
        bias: Of label (rows) and value, shape `(K, K)`.
        config: From where an example can move.
    """

    weight: Array
    offset: Array
    size: Array
    bias: Array
    config: RefinementConfig

    def responsibilities(self, X: Array, y: IntArray) -> Array:
        """Weights of the attribute values, `(n, K)`, of reduced latents `X (n, >= k)` with labels `y (n,)`."""
        ratio, position = _evidence(X[:, : len(self.weight)], y, self.weight, self.offset, self.size)
        R = one_hot(y, ratio.shape[1], ratio.dtype)
        rows, evidence = _movable(ratio, position, y, self.config)
        R[rows] = _posterior(evidence, self.bias, y[rows]).T
        return R


def sharpened(X: Array, y: IntArray, R: Array, *, config: DiscoveryConfig) -> Sharpened:
    """The rule for further rows that a sharpened partition gives.

    Args:
        X: Reduced latents, shape `(n, k)`, of which the components of the refinement are used.
        y: Labels in `0..K-1`, shape `(n,)`.
        R: Weights of the attribute values, shape `(n, K)`.
        config: Its `refinement`, the `mixture`'s split of offsets, and the number of components.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 4, 4000); a = np.where(rng.random(4000) < 0.9, y, rng.integers(0, 4, 4000))
        >>> X = rng.normal(size=(4000, 12)); X[:, :4] += 5 * np.eye(4)[a]; X[:, 4:8] += 3 * np.eye(4)[y]
        >>> rule = sharpened(X[:2000], y[:2000], np.eye(4)[a[:2000]], config=DiscoveryConfig())
        >>> bool(np.mean(rule.responsibilities(X[2000:], y[2000:]).argmax(axis=1) == a[2000:]) > 0.98)
        True
    """
    own, K = config.refinement, R.shape[1]
    wanted, per_component = config.many_classes.solved_components, config.reduction.rows_per_component
    part = np.ascontiguousarray(X[:, : usable_components(wanted, X.shape[1], len(y), per_component)[-1]])
    weight, offset, size = _discriminant(additive_model(part, y, R), own, config.mixture)
    ratio, position = _evidence(part, y, weight, offset, size)
    rows, evidence = _movable(ratio, position, y, own)
    # As many conflict in each class as the partition says.
    conflicting = 1.0 - R[np.arange(len(y)), y].astype(np.float64)
    expected = np.bincount(y, conflicting, minlength=K) / (K - 1)
    return Sharpened(weight, offset, size, _biases(evidence, y[rows], expected, even=False, config=own), own)


def _discriminant(model: AdditiveModel, config: RefinementConfig, mixture: MixtureConfig) -> tuple[Array, Array, Array]:
    """Discriminant of the attribute: weights `(k, K)`, offsets `(K, K)` (rows `y`) and `beta' Sigma^-1 beta (K, K)`.

    With the class offsets added to the covariance, resembling another class is no evidence of its attribute value.
    """
    alpha, beta = split_by_signal(model, config=mixture)
    sigma = shrink(model.sigma, config.shrinkage) + config.class_avoidance * alpha.T @ alpha / len(alpha)
    weight = np.linalg.solve(sigma, beta.T)
    size = beta @ weight
    return weight, (model.alpha.mean(axis=0) + alpha) @ weight + 0.5 * np.diag(size), size


def _mostly_aligned(X: Array, y: IntArray, R: Array, second: Array | None) -> AdditiveMoments:
    """`AdditiveMoments.of`: sums per class, and what the few that are not surely aligned change of them."""
    n, K = R.shape
    labels, counts = one_hot(y, K, X.dtype), np.bincount(y, minlength=K).astype(np.float64)
    sums = labels.T @ X
    rows = np.flatnonzero(R[np.arange(n), y] != 1.0)
    own, changed = labels[rows], R[rows].astype(X.dtype) - labels[rows]
    cells = np.diag(counts) + own.T.astype(np.float64) @ changed
    aligned = np.diag(cells)
    unsure = 1.0 - (2.0 * R[rows, y[rows]].astype(np.float64) - 1.0) ** 2
    return AdditiveMoments(
        float(n),
        cells,
        np.diag(cells.sum(axis=0)),
        np.vstack([sums, sums + changed.T @ X[rows]]).astype(np.float64),
        (X.T @ X).astype(np.float64) if second is None else second,
        np.stack([aligned, counts - aligned])[:, :, None],
        (counts - np.bincount(y[rows], unsure, minlength=K))[:, None, None],
    )


def _evidence(new: Array, labels: IntArray, weight: Array, offset: Array, size: Array) -> tuple[Array, Array]:
    """Log-likelihood ratio of each value against that of the own class, and the position between them, `(m, K)`.

    The own value's position is 0.5: it lies neither beyond another value nor on the other side.
    """
    ratio = weight.T.astype(new.dtype) @ new.T
    # Against the own value; of rising labels each class is one run.
    ratio -= ratio[labels, np.arange(len(labels))]
    beside = (offset - np.diag(offset)[:, None]).astype(new.dtype)
    ratio -= beside.T[:, labels]
    distance = np.diag(size)[:, None] + np.diag(size) - 2.0 * size
    position = ratio * (1.0 / np.maximum(distance, 1e-9)).T.astype(new.dtype)[:, labels]
    position += 0.5
    return ratio.T, position.T


def _assign(ratio: Array, position: Array, y: IntArray, most: float, *, even: bool, config: RefinementConfig) -> Array:
    """Weights of the values, `(n, K)`: posterior under biases that give each class its number of conflicting examples.

    As many examples of each class conflict as lie beyond `share_position` in all classes, less those that lie as far on
    the other side, away from every other value: aligned ones in the tails of their cluster, of which there are as many
    towards the others. At most the share `most`: where offsets are still rough, too many lie there. With `even` every
    other value gets the same part. Only examples beyond `min_position` can move.
    """
    K = ratio.shape[1]
    share = min(max(_share_beyond(ratio, position, y, config), 0.0), most)
    expected = share * np.bincount(y, minlength=K) / (K - 1)
    R = one_hot(y, K, ratio.dtype)
    rows, evidence = _movable(ratio, position, y, config)
    R[rows] = _posterior(evidence, _biases(evidence, y[rows], expected, even=even, config=config), y[rows]).T
    return R


def _share_beyond(ratio: Array, position: Array, y: IntArray, config: RefinementConfig) -> float:
    """Share of the examples beyond `share_position` towards their likeliest other value, less those far from all."""
    rows = np.flatnonzero(position.max(axis=1) > config.share_position)
    others = ratio[rows]
    others[np.arange(len(rows)), y[rows]] = -np.inf
    beyond = np.count_nonzero(position[rows, others.argmax(axis=1)] > config.share_position)
    opposite = np.count_nonzero(position.min(axis=1) < -config.share_position)
    return float(beyond - opposite) / len(y)


def _movable(ratio: Array, position: Array, y: IntArray, config: RefinementConfig) -> tuple[IntArray, Array]:
    """The examples that lie far enough from their own value, and their evidence for each value, `(K, rows)` float64.

    One row per value, one column per example: sums over the values then run along the examples.
    """
    rows = np.flatnonzero(position.max(axis=1) > config.min_position)
    # Class by class: what is summed per class is a block of columns.
    rows = rows[np.argsort(y[rows], kind="stable")]
    own = y[rows], np.arange(len(rows))
    far = (position[rows] > config.min_position).T
    far[own] = False
    evidence = np.where(far, config.temperature * ratio[rows].T.astype(np.float64), -1e3)
    evidence[own] = 0.0
    moved = far.any(axis=0)
    return rows[moved], evidence[:, moved]


def _biases(evidence: Array, own: IntArray, expected: Array, *, even: bool, config: RefinementConfig) -> Array:
    """Biases of label and value, `(K, K)`, under which each class has its `expected` number of conflicting examples.

    `own` are the examples' classes, rising: a step is two products for each class.
    """
    K = len(evidence)
    odds = np.exp(evidence - evidence.max(axis=0, initial=0.0))
    ends = np.searchsorted(own, np.arange(K + 1))
    blocks = [odds[:, start:end] for start, end in pairwise(ends)]
    bias, off = np.zeros((K, K)), 1.0 - np.eye(K)
    wanted, each = np.log(np.maximum(expected, 1e-6))[:, None], np.empty((K, K))
    for _ in range(config.bias_steps if len(own) else 0):
        factor = np.exp(bias)
        for f, block, out in zip(factor, blocks, each, strict=True):
            np.matmul(block, 1.0 / (f @ block), out=out)
        weight = off * factor * each
        if not even:
            weight = weight.sum(axis=1, keepdims=True) / (K - 1)
        step = np.clip(wanted - np.log(np.maximum(weight, 1e-6)), -config.bias_step_limit, config.bias_step_limit)
        moved = np.clip(bias + config.bias_rate * step, -config.bias_limit, config.bias_limit) * off
        done = float(np.abs(moved - bias).max()) < config.bias_tolerance
        bias = moved
        if done:
            break
    return bias


def _posterior(evidence: Array, bias: Array, own: IntArray) -> Array:
    """Softmax over the values of `evidence (K, m)` and the biases of each example's class."""
    logits = evidence + bias.T[:, own]
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits
