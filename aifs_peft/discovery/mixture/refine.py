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
    R = one_hot(attribute, n_classes, X.dtype)
    history: list[Array] = []
    for step in range(own.rounds):
        # New folds each time: with the same ones a fold's chance errors would go round among the models.
        fold = random_folds(n, own.folds, rng)
        ratio, position = np.empty((n, n_classes), dtype=X.dtype), np.empty((n, n_classes), dtype=X.dtype)
        parts = [np.flatnonzero(fold == j) for j in range(own.folds)]
        blocks = [X[rows] for rows in parts]
        moments: list[AdditiveMoments] = []
        for rows, block in zip(parts, blocks, strict=True):
            # The products of all rows are the same each time: those of the last fold are what the others leave.
            last = len(moments) == own.folds - 1
            rest = second - sum(other.second for other in moments) if last else None
            moments.append(AdditiveMoments.of(block, y[rows], R[rows], second=rest))
        total = reduce(add, moments)
        for rows, block, mine in zip(parts, blocks, moments, strict=True):
            weight, offset, size = _discriminant((total - mine).fit(), own, config.mixture)
            ratio[rows], position[rows] = _evidence(block, y[rows], weight, offset, size)
        R = _assign(ratio, position, y, most, even=step < own.even_rounds, config=own)
        history = [*history[1 - own.averaged :], R]
    return np.asarray(np.mean(history, axis=0))


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


def _evidence(new: Array, labels: IntArray, weight: Array, offset: Array, size: Array) -> tuple[Array, Array]:
    """Log-likelihood ratio of each value against that of the own class, and the position between them, `(m, K)`."""
    score = new @ weight.astype(new.dtype) - offset[labels].astype(new.dtype)
    ratio = score - score[np.arange(len(labels)), labels][:, None]
    distance = np.diag(size)[:, None] + np.diag(size) - 2.0 * size
    position = ratio / np.maximum(distance, 1e-9)[labels] + 0.5
    return np.asarray(ratio), np.asarray(position)


def _assign(ratio: Array, position: Array, y: IntArray, most: float, *, even: bool, config: RefinementConfig) -> Array:
    """Weights of the values, `(n, K)`: posterior under biases that give each class its number of conflicting examples.

    As many examples of each class conflict as lie beyond `share_position` in all classes, less those that lie as far on
    the other side, away from every other value: aligned ones in the tails of their cluster, of which there are as many
    towards the others. At most the share `most`: where offsets are still rough, too many lie there. With `even` every
    other value gets the same part. Only examples beyond `min_position` can move.
    """
    n, K = ratio.shape
    others = ratio.copy()
    others[np.arange(n), y] = -np.inf
    beyond = float(np.mean(position[np.arange(n), others.argmax(axis=1)] > config.share_position))
    opposite = np.where(np.isfinite(others), position, np.inf).min(axis=1) < -config.share_position
    share = min(max(beyond - float(np.mean(opposite)), 0.0), most)
    expected = share * np.bincount(y, minlength=K) / (K - 1)
    R = one_hot(y, K, ratio.dtype)
    rows, evidence = _movable(ratio, position, y, config)
    R[rows] = _posterior(evidence, _biases(evidence, y[rows], expected, even=even, config=config), y[rows]).T
    return R


def _movable(ratio: Array, position: Array, y: IntArray, config: RefinementConfig) -> tuple[IntArray, Array]:
    """The examples that lie far enough from their own value, and their evidence for each value, `(K, rows)` float64.

    One row per value, one column per example: sums over the values then run along the examples.
    """
    far = (position > config.min_position) & (np.arange(ratio.shape[1]) != y[:, None])
    rows = np.flatnonzero(far.any(axis=1))
    # Class by class: what is summed per class is a block of columns.
    rows = rows[np.argsort(y[rows], kind="stable")]
    evidence = np.where(far[rows], config.temperature * ratio[rows].astype(np.float64), -1e3).T
    evidence[y[rows], np.arange(len(rows))] = 0.0
    return rows, evidence


def _biases(evidence: Array, own: IntArray, expected: Array, *, even: bool, config: RefinementConfig) -> Array:
    """Biases of label and value, `(K, K)`, under which each class has its `expected` number of conflicting examples.

    `own` are the examples' classes, rising: a step is two products for each class.
    """
    K = len(evidence)
    odds = np.exp(evidence - evidence.max(axis=0, initial=0.0))
    ends = np.searchsorted(own, np.arange(K + 1))
    blocks = [odds[:, start:end] for start, end in pairwise(ends)]
    bias, off = np.zeros((K, K)), 1.0 - np.eye(K)
    for _ in range(config.bias_steps if len(own) else 0):
        factor = np.exp(bias)
        weight = off * factor * np.stack([b @ (1.0 / (f @ b)) for f, b in zip(factor, blocks, strict=True)])
        if not even:
            weight = np.broadcast_to(weight.sum(axis=1, keepdims=True) / (K - 1), (K, K))
        missing = np.log(np.maximum(expected, 1e-6)[:, None] / np.maximum(weight, 1e-6))
        step = config.bias_rate * np.clip(missing, -config.bias_step_limit, config.bias_step_limit)
        bias = np.clip(bias + step, -config.bias_limit, config.bias_limit) * off
    return bias


def _posterior(evidence: Array, bias: Array, own: IntArray) -> Array:
    """Softmax over the values of `evidence (K, m)` and the biases of each example's class."""
    logits = evidence + bias.T[:, own]
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits
