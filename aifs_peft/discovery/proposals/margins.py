"""Proposals from held-out mistakes: a simple head follows the shortcut, so conflicting examples have small margins.

That a model's mistakes point at the examples that go against its shortcut is what JTT (Liu et al., 2021) and EIIL
(Creager et al., 2021) use, too.
"""

from __future__ import annotations

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray, random_folds
from aifs_peft.discovery.config import ProposalConfig
from aifs_peft.discovery.linear_heads.logistic import fit_logistic


def held_out_margins(
    X: Array, y: IntArray, n_classes: int, *, rng: np.random.Generator, config: ProposalConfig
) -> tuple[Array, IntArray]:
    """Cross-validated `logit_y - max_{c != y} logit_c` and the class of that maximum.

    Args:
        X: Reduced latents of unit variance, shape `(n, k)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        rng: Source of the folds.
        config: Number of folds, penalty and tolerance of the logistic regression.

    Returns:
        Margins `(n,)` and rivals `(n,)`.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(200) % 2; X = rng.normal(size=(200, 2)); X[:, 0] += 5 * y
        >>> X[0] = [5.0, 0.0]  # labelled 0, looks like 1
        >>> margin, rival = held_out_margins(X - X.mean(axis=0), y, 2, rng=rng, config=ProposalConfig())
        >>> int(margin.argmin()), int(rival[0])
        (0, 1)
    """
    n = len(y)
    fold = random_folds(n, config.margin_folds, rng)
    margin = np.empty(n)
    rival = np.empty(n, dtype=np.int64)
    for j in range(config.margin_folds):
        test = fold == j
        head = fit_logistic(X[~test], y[~test], n_classes, l2=config.margin_l2, tol=config.margin_tolerance)
        logits = head.logits(X[test])
        rows = np.arange(len(logits))
        own = logits[rows, y[test]].copy()
        logits[rows, y[test]] = -np.inf
        rival[test] = logits.argmax(axis=1)
        margin[test] = own - logits[rows, rival[test]]
    return margin, rival


def propose(margin: Array, rival: IntArray, y: IntArray, n_classes: int, share: float) -> IntArray:
    """The rival class as attribute value for the examples with the smallest margins, the own class for the rest.

    Args:
        margin: Held-out margins, shape `(n,)`.
        rival: Class of the largest other logit, shape `(n,)`.
        y: Labels in `0..n_classes-1`, shape `(n,)`.
        n_classes: `K`.
        share: Share of each class that gets its rival.

    Returns:
        Attribute values, shape `(n,)`.

    Example:
        >>> y = np.array([0, 0, 1, 1])
        >>> propose(np.array([2.0, -1.0, 3.0, 4.0]), 1 - y, y, 2, 0.5).tolist()
        [0, 1, 0, 1]
    """
    attribute = y.copy()
    for c in range(n_classes):
        rows = np.flatnonzero(y == c)
        count = min(round(share * len(rows)), len(rows) - 1)
        if count > 0:
            chosen = rows[np.argpartition(margin[rows], count - 1)[:count]]
            attribute[chosen] = rival[chosen]
    return attribute
