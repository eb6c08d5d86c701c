"""A head refitted on examples whose group is known: last-layer refitting with two directions to lean on.

Refitting a last layer on a few balanced examples (Kirichenko et al., 2023) turns a head away from a shortcut, but a few
dozen examples fix few of the weights. Here plain training's head and the attribute's direction, which rest on all
examples, may be used almost without a penalty; the known examples say how much of each, and correct the rest.
"""

from __future__ import annotations

import numpy as np

from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.config import DEFAULT_CONFIG, HeadConfig
from aifs_peft.discovery.linear_heads.logistic import LinearHead, fit_logistic


def refit_head(
    X: Array,
    y: IntArray,
    known: IntArray,
    plain: LinearHead,
    offsets: Array,
    *,
    weights: Array | None = None,
    config: HeadConfig = DEFAULT_CONFIG.heads,
) -> LinearHead:
    """Logistic regression on the known examples, every cell of label and value weighing the same.

    Args:
        X: Reduced latents, shape `(n, k)`.
        y: Labels in `0..K-1`, shape `(n,)`.
        known: Attribute values, -1 where unknown, shape `(n,)`.
        plain: A head that was fitted to all examples.
        offsets: Of the attribute in the first coordinates, mean zero, shape `(K, j)`, `j <= k`.
        weights: Of the examples within their cell; all one if `None`.
        config: Penalty of the weights, and how much less the two directions are penalised.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 2000); a = np.where(rng.random(2000) < 0.95, y, 1 - y)
        >>> X = rng.normal(size=(2000, 4)); X[:, 0] += 4 * a; X[:, 1] += 2 * y
        >>> known = np.full(2000, -1)
        >>> for c in range(4):
        ...     rows = np.flatnonzero(2 * y + a == c)[:10]
        ...     known[rows] = a[rows]
        >>> plain = fit_logistic(X, y, 2, l2=0.1)
        >>> head = refit_head(X, y, known, plain, np.array([[-2.0, 0.0], [2.0, 0.0]]))
        >>> hits = [h.logits(X).argmax(axis=1)[a != y] == y[a != y] for h in (plain, head)]
        >>> bool(hits[1].mean() > hits[0].mean() + 0.2)
        True
    """
    rows = np.flatnonzero(known >= 0)
    directions = np.vstack(
        [plain.weight[1:] - plain.weight[:1], np.pad(offsets[1:], ((0, 0), (0, X.shape[1] - offsets.shape[1])))]
    )
    # Unit spread over all examples, then larger: a column that is ten times as large is penalised a hundredth.
    spread = (X @ directions.T.astype(X.dtype)).std(axis=0).astype(np.float64)
    directions = directions * (config.refit_trust / np.maximum(spread, 1e-9))[:, None]
    part = X[rows].astype(np.float64)
    _, cell = np.unique(y[rows] * (int(known.max()) + 1) + known[rows], return_inverse=True)
    each = np.ones(len(rows)) if weights is None else weights[rows]
    each = each / np.bincount(cell, each)[cell]
    K, k = plain.weight.shape
    head = fit_logistic(np.hstack([part, part @ directions.T]), y[rows], K, l2=config.refit_l2, weights=each)
    return LinearHead(head.weight[:, :k] + head.weight[:, k:] @ directions, head.bias)
