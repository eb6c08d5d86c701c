"""A part of the training set that a method keeps from its own training, to look at later."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_rows(labels: Tensor, share: float, seed: int, fewest: int = 1) -> Tensor:
    """A random share of each class, at least `fewest` examples and never all of them.

    Args:
        labels: `(n,)` int64.
        share: in (0, 1).
        seed: of the choice.
        fewest: of each class that has more.

    Returns:
        `(n,)` bool, a function of the arguments alone.

    Example:
        >>> rows = stratified_rows(torch.tensor([0] * 10 + [1] * 5), 0.2, seed=0)
        >>> int(rows[:10].sum()), int(rows[10:].sum())
        (2, 1)
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        count = min(max(round(share * len(rows)), fewest), len(rows) - 1)
        chosen[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return chosen
