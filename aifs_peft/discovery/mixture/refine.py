"""Many classes: a rough partition sharpened by an attribute discriminant that does not look at its own examples.

The trimmed discriminant mixes the attribute with the class: half of the examples that it calls conflicting are
aligned ones that resemble another class. Fitting the additive model to its partition and assigning anew separates the
two, but a free mixture drifts to styles within classes. Four things hold it: an example is assigned by a model
fitted without it; the class offsets are added to the covariance so that resembling another class is no evidence; the
number of conflicting examples of a class is given, not fitted; and in the first rounds they are spread evenly over the
other values, since which value they carry is what a wrong start confirms for ever.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.linear_heads.additive import additive_model, split_by_signal
from aifs_peft.discovery.linear_heads.logistic import softmax
from aifs_peft.discovery.mixture.em import shrink

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

ROUNDS = 8
# The result is the mean over the last rounds: examples that come and go get a weight between 0 and 1.
AVERAGED = 5
# Rounds in which every cell `(y, a)` of a class gets the same weight. Later ones fix the weight per class only, so that
# clear evidence for unequal cells is followed.
EVEN_ROUNDS = 5
FOLDS = 3
SHRINKAGE = 0.02
# How often `alpha alpha' / K` is added to the covariance.
CLASS_AVOIDANCE = 10.0
# Log-likelihood ratios count half: the latents have heavier tails than a Gaussian.
TEMPERATURE = 0.5
# A conflicting example lies at least this far from its own value (0) towards another one (1).
MIN_POSITION = 0.6
# As many examples conflict as lie farther than this (aligned ones beyond make up for conflicting ones before it), but
# at most this multiple of those that the start calls: where offsets are still rough or tails heavy, too many lie there.
SHARE_POSITION, SHARE_GROWTH = 0.65, 2.0
# Steps of fitting the biases to the weights that cells should have, the size of a step, and the largest bias.
BIAS_STEPS, BIAS_RATE, BIAS_LIMIT = 40, 0.7, 20.0


def refine_attribute(
    X: Array, y: IntArray, attribute: IntArray, n_classes: int, *, rng: np.random.Generator, rounds: int = ROUNDS
) -> Array:
    """Sharpen a partition of more than two attribute values.

    Costs `O(n k^2)` per round.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        attribute: Attribute value of each example to start from, shape `(n,)`.
        n_classes: `K`, above 2.
        rng: Source of the folds.
        rounds: Alternations of fitting and assigning.

    Returns:
        Weights of the attribute values, shape `(n, K)`, rows sum to one.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 4, 4000); a = np.where(rng.random(4000) < 0.9, y, rng.integers(0, 4, 4000))
        >>> X = rng.normal(size=(4000, 12)); X[:, :4] += 5 * np.eye(4)[a]; X[:, 4:8] += 3 * np.eye(4)[y]
        >>> rough = np.where(rng.random(4000) < 0.5, a, y)  # half of the conflicting examples missed
        >>> R = refine_attribute(X, y, rough, 4, rng=rng)
        >>> bool(np.mean(rough == a) < 0.97), bool(np.mean(R.argmax(axis=1) == a) > 0.98)
        (True, True)
    """
    n = len(y)
    total = (X.T @ X).astype(np.float64)
    most = SHARE_GROWTH * float(np.mean(attribute != y))
    R = np.eye(n_classes, dtype=X.dtype)[attribute]
    history: list[Array] = []
    for step in range(rounds):
        # New folds each time: with the same ones a fold's chance errors would go round among the three models.
        fold = rng.permutation(n) % FOLDS
        ratio, position = np.empty((n, n_classes), dtype=X.dtype), np.empty((n, n_classes), dtype=X.dtype)
        for j in range(FOLDS):
            rows, seen = fold == j, fold != j
            new = X[rows]
            second = total - (new.T @ new).astype(np.float64)
            ratio[rows], position[rows] = _evidence(X[seen], y[seen], R[seen], second, new, y[rows])
        R = _assign(ratio, position, y, most, even=step < EVEN_ROUNDS)
        history = [*history[1 - AVERAGED :], R]
    return np.asarray(np.mean(history, axis=0))


def _evidence(X: Array, y: IntArray, R: Array, second: Array, new: Array, labels: IntArray) -> tuple[Array, Array]:
    """Log-likelihood ratio of each value against that of the own class, and the position between them, `(m, K)`."""
    model = additive_model(X, y, R, second=second)
    alpha, beta = split_by_signal(model)
    sigma = shrink(model.sigma, SHRINKAGE) + CLASS_AVOIDANCE * alpha.T @ alpha / len(alpha)
    weight = np.linalg.solve(sigma, beta.T)
    size = beta @ weight
    offset = (model.alpha.mean(axis=0) + alpha) @ weight + 0.5 * np.diag(size)
    score = new @ weight.astype(new.dtype) - offset[labels].astype(new.dtype)
    ratio = score - score[np.arange(len(labels)), labels][:, None]
    distance = np.diag(size)[:, None] + np.diag(size) - 2.0 * size
    position = ratio / np.maximum(distance, 1e-9)[labels] + 0.5
    return np.asarray(ratio), np.asarray(position)


def _assign(ratio: Array, position: Array, y: IntArray, most: float, *, even: bool) -> Array:
    """Weights of the values, `(n, K)`: posterior under biases that give each class its number of conflicting examples.

    With `even` every other value gets the same part of it. The share of conflicting examples is read off the positions,
    at most `most`, and is the same in all classes; only examples that lie far enough from their own value can move.
    """
    n, K = ratio.shape
    others = ratio.copy()
    others[np.arange(n), y] = -np.inf
    share = min(float(np.mean(position[np.arange(n), others.argmax(axis=1)] > SHARE_POSITION)), most)
    expected = share * np.bincount(y, minlength=K) / (K - 1)
    R = np.eye(K, dtype=ratio.dtype)[y]
    far = (position > MIN_POSITION) & (R == 0)
    rows = np.flatnonzero(far.any(axis=1))
    own, members = y[rows], R[rows].T.astype(np.float64)
    evidence = np.where(far[rows], TEMPERATURE * ratio[rows].astype(np.float64), -1e3)
    evidence[np.arange(len(rows)), own] = 0.0
    bias, off = np.zeros((K, K)), 1.0 - np.eye(K)
    posterior = softmax(evidence)
    for _ in range(BIAS_STEPS if len(rows) else 0):
        weight = (members @ posterior) * off
        if not even:
            weight = np.broadcast_to(weight.sum(axis=1, keepdims=True) / (K - 1), (K, K))
        missing = np.log(np.maximum(expected, 1e-6)[:, None] / np.maximum(weight, 1e-6))
        bias = np.clip(bias + BIAS_RATE * np.clip(missing, -3.0, 3.0), -BIAS_LIMIT, BIAS_LIMIT) * off
        posterior = softmax(evidence + bias[own])
    R[rows] = posterior
    return R
