"""Many classes: a rough partition sharpened by an attribute discriminant that does not look at its own examples.

The trimmed discriminant mixes the attribute with the class: half of the examples that it calls conflicting are
aligned ones that resemble another class. Fitting the additive model to its partition and assigning anew separates the
two, but a free mixture drifts to styles within classes. Three things hold it: an example is assigned by a model
fitted without it, the class offsets are added to the covariance so that resembling another class is no evidence, and
no cell `(y, a)` takes many more examples than an attribute that is independent of the class among conflicting examples
would put there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.additive import additive_model, split_by_signal
from aifs_peft.discovery.mixture import shrink

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

ROUNDS = 8
# The result is the mean over the last rounds: examples that come and go get a weight between 0 and 1.
AVERAGED = 5
FOLDS = 3
SHRINKAGE = 0.05
# How often `alpha alpha' / K` is added to the covariance.
CLASS_AVOIDANCE = 10.0
# A cell holds at most this multiple of its expected count.
CELL_CAP = 2.0
# A conflicting example lies at least this far from its own value (0) towards another one (1).
MIN_POSITION = 0.6


def refine_attribute(
    X: Array, y: IntArray, attribute: IntArray, n_classes: int, *, rng: np.random.Generator, rounds: int = ROUNDS
) -> Array:
    """Sharpen a partition of more than two attribute values.

    Costs `O(n k^2)` once and `O(n k K)` per round.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        attribute: Attribute value of each example to start from, shape `(n,)`; its conflicting share is kept as the
            expected one.
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
    fold = rng.permutation(n) % FOLDS
    share = float(np.mean(attribute != y))
    parts = [np.flatnonzero(fold == j) for j in range(FOLDS)]
    seconds = [(X[rows].T @ X[rows]).astype(np.float64) for rows in parts]
    total = np.sum(seconds, axis=0)
    eye = np.eye(n_classes, dtype=X.dtype)
    R = eye[attribute]
    history: list[Array] = []
    for _ in range(rounds):
        ratio, position = np.empty((n, n_classes), dtype=X.dtype), np.empty((n, n_classes), dtype=X.dtype)
        for rows, second in zip(parts, seconds, strict=True):
            seen = np.ones(n, dtype=bool)
            seen[rows] = False
            model = (X[seen], y[seen], R[seen], total - second)
            ratio[rows], position[rows] = _evidence(*model, X[rows], y[rows])
        R = eye[_assign(ratio, position, y, share)]
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


def _assign(ratio: Array, position: Array, y: IntArray, share: float) -> IntArray:
    """The best other value where the position allows it, in each cell the most evident ones up to its cap."""
    rows, K = np.arange(len(y)), ratio.shape[1]
    others = ratio.copy()
    others[rows, y] = -np.inf
    best = others.argmax(axis=1)
    evidence = others[rows, best]
    attribute = y.copy()
    expected = share * np.bincount(y, minlength=K) / (K - 1)
    for c in range(K):
        cap = max(round(CELL_CAP * float(expected[c])), 1)
        for value in range(K):
            cell = np.flatnonzero((y == c) & (best == value) & (position[rows, best] > MIN_POSITION))
            attribute[cell[np.argsort(-evidence[cell], kind="stable")[:cap]]] = value
    return attribute
