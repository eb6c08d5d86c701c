"""Recall@K of retrieval, per group of queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aifs_peft.errors import InvalidInputError


def recall_at_k(
    scores: ArrayLike,
    relevant: ArrayLike,
    k: Sequence[int] = (1, 5, 10),
    groups: ArrayLike | None = None,
    group_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Share of queries with something relevant among the first `k`: on average, per group, and of the worst group.

    Args:
        scores: of each query and each entry of the gallery, `(queries, gallery)`; higher is nearer. Of equal scores the
            earlier entry comes first.
        relevant: whether the entry is right for the query, the same shape, boolean. A query without any cannot succeed;
            leave it out.
        k: how many entries count.
        groups: of each query, integers from 0; None for no groups.
        group_names: of the groups; None for their numbers.

    Returns:
        For each `k`: `recall@k`, and with groups `worst_group_recall@k` and `group_recall@k`, a dictionary by name. `n`
        and `group_n` count the queries. A group without queries is in neither.

    Raises:
        InvalidInputError: for shapes that do not fit, scores that are not finite, or a query without a relevant entry.

    Example:
        >>> scores = [[0.9, 0.1], [0.8, 0.7], [0.2, 0.6]]
        >>> found = recall_at_k(scores, [[1, 0], [0, 1], [0, 1]], k=(1, 2), groups=[0, 1, 0], group_names=["a", "b"])
        >>> round(found["recall@1"], 3), found["group_recall@1"], found["worst_group_recall@2"]
        (0.667, {'a': 1.0, 'b': 0.0}, 1.0)
    """
    table, right = np.asarray(scores, dtype=np.float64), np.asarray(relevant).astype(bool)
    if table.ndim != 2 or right.shape != table.shape or not table.size:
        raise InvalidInputError(
            f"scores has shape {table.shape} and relevant {right.shape}; needed is (queries, gallery) for both."
        )
    if not np.isfinite(table).all():
        raise InvalidInputError("scores holds values that are not finite; look at the model that gave them.")
    if not right.any(axis=1).all():
        rows = np.flatnonzero(~right.any(axis=1))
        raise InvalidInputError(
            f"{len(rows)} queries have no relevant entry (the first is row {rows[0]}); leave them out."
        )
    order = np.argsort(-table, axis=1, kind="stable")
    first = np.take_along_axis(right, order, axis=1).argmax(axis=1)
    cells = None if groups is None else _cells(np.asarray(groups), len(table), group_names)
    out: dict[str, Any] = {"n": len(table)}
    if cells is not None:
        out["group_n"] = {name: int(mask.sum()) for name, mask in cells.items()}
    for count in k:
        hit = first < count
        out[f"recall@{count}"] = float(hit.mean())
        if cells is not None:
            per_group = {name: float(hit[mask].mean()) for name, mask in cells.items()}
            out[f"group_recall@{count}"] = per_group
            out[f"worst_group_recall@{count}"] = min(per_group.values())
    return out


def _cells(groups: NDArray[Any], n: int, names: Sequence[str] | None) -> dict[str, NDArray[np.bool_]]:
    if groups.shape != (n,) or groups.dtype.kind not in "iu" or groups.min() < 0:
        raise InvalidInputError(
            f"groups must be {n} integers from 0, one per query; got {groups.dtype} {groups.shape}."
        )
    if names is not None and groups.max() >= len(names):
        raise InvalidInputError(f"groups holds {groups.max()}, and group_names has {len(names)} names.")
    return {str(g) if names is None else names[g]: groups == g for g in np.unique(groups).tolist()}
