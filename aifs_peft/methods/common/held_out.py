"""A part of the training set that a method keeps from its own training, to look at later."""

from __future__ import annotations

import torch
from torch import Tensor

from aifs_peft.errors import InvalidInputError


def stratified_rows(labels: Tensor, share: float, seed: int, fewest: int = 1) -> Tensor:
    """A random share of each class, at least `fewest` examples and never all of them.

    scikit-learn's `StratifiedShuffleSplit` rounds over the whole set instead: it gives a class of two examples none
    or refuses it, while both parts of every class are needed here.

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
    for label in torch.unique(labels):
        rows = (labels == label).nonzero().squeeze(1)
        count = min(max(round(share * len(rows)), fewest), len(rows) - 1)
        chosen[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return chosen


def require_class_sizes(labels: Tensor, smallest: int, method: str) -> None:
    """Refuse a training set with a class that is too small to be split.

    Args:
        labels: `(n,)` int64.
        smallest: how many examples every class that occurs must have.
        method: who splits, for the message.

    Raises:
        InvalidInputError: naming the class.

    Example:
        >>> require_class_sizes(torch.tensor([0, 0, 1]), 2, "afr")
        Traceback (most recent call last):
        aifs_peft.errors.InvalidInputError: afr splits every class into a part to train on and a part to hold out, and \
class 1 has 1 training example(s); at least 2 are needed: add examples or leave the class out
    """
    found, sizes = torch.unique(labels, return_counts=True)
    small = sizes < smallest
    if bool(small.any()):
        raise InvalidInputError(
            f"{method} splits every class into a part to train on and a part to hold out, and class "
            f"{int(found[small][0])} has {int(sizes[small][0])} training example(s); at least {smallest} are needed: "
            "add examples or leave the class out"
        )
