"""Steps 2 and 3: held-out margins of a simple head, and the candidates they propose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aifs_peft.discovery.linear_heads.logistic import fit_logistic

Array = NDArray[np.floating]
IntArray = NDArray[np.integer]

FOLDS = 5
# Strong: on unit-variance coordinates, so that the head follows the easiest features.
L2 = 0.1


def held_out_margins(
    X: Array, y: IntArray, n_classes: int, *, rng: np.random.Generator, folds: int = FOLDS, l2: float = L2
) -> tuple[Array, IntArray]:
    """Cross-validated `logit_y - max_{c != y} logit_c` and the class of that maximum.

    Args:
        X: Reduced latents of unit variance, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds.
        folds: Number of folds.
        l2: Penalty of the logistic regression.

    Returns:
        Margins `(n,)` and rivals `(n,)`.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(200) % 2; X = rng.normal(size=(200, 2)); X[:, 0] += 5 * y
        >>> X[0] = [5.0, 0.0]  # labelled 0, looks like 1
        >>> margin, rival = held_out_margins(X - X.mean(axis=0), y, 2, rng=rng)
        >>> int(margin.argmin()), int(rival[0])
        (0, 1)
    """
    n = len(y)
    fold = rng.permutation(n) % folds
    margin = np.empty(n)
    rival = np.empty(n, dtype=np.int64)
    for j in range(folds):
        test = fold == j
        logits = fit_logistic(X[~test], y[~test], n_classes, l2=l2, tol=1e-3).logits(X[test])
        rows = np.arange(len(logits))
        own = logits[rows, y[test]].copy()
        logits[rows, y[test]] = -np.inf
        rival[test] = logits.argmax(axis=1)
        margin[test] = own - logits[rows, rival[test]]
    return margin, rival


def propose(margin: Array, rival: IntArray, y: IntArray, n_classes: int, share: float) -> IntArray:
    """Attribute `rival` for the `share` of each class with the smallest margin, the label for the rest: `(n,)`."""
    attribute = y.copy()
    for c in range(n_classes):
        rows = np.flatnonzero(y == c)
        count = min(round(share * len(rows)), len(rows) - 1)
        if count > 0:
            chosen = rows[np.argpartition(margin[rows], count - 1)[:count]]
            attribute[chosen] = rival[chosen]
    return attribute
