"""The column of true group labels that the oracles read, and the check that it can be worked with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aifs_peft.errors import InvalidInputError

GROUP = "group"


def read_groups(columns: Mapping[str, Tensor], size: int, what: str = "training", smallest: int = 1) -> Tensor:
    """The column `group`, checked: a cell number (class x attribute) for each example.

    Args:
        columns: by name, with `group` among them.
        size: number of examples, n.
        what: which set, for the messages.
        smallest: how many examples each group that occurs must have.

    Returns:
        `(n,)` int64, on the CPU.

    Raises:
        InvalidInputError: for another shape, numbers that are negative or no integers, fewer than two groups, or a
            group that is too small.

    Example:
        >>> read_groups({"group": torch.tensor([0, 3, 1])}, 3)
        tensor([0, 3, 1])
    """
    groups = columns[GROUP].cpu()
    if groups.shape != (size,) or groups.is_floating_point():
        raise InvalidInputError(
            f"column {GROUP!r} of the {what} set must hold one integer per example, shape ({size},); got "
            f"{groups.dtype}, shape {tuple(groups.shape)}. Overlapping attributes do not fit one column: give each "
            "combination a number"
        )
    groups = groups.long()
    present, sizes = torch.unique(groups, return_counts=True)
    missing = int(sizes[present < 0].sum())
    if missing or len(present) < 2:
        raise InvalidInputError(
            f"column {GROUP!r} of the {what} set must hold at least two different numbers, none below 0; got "
            f"{present.tolist()}, {missing} of {size} examples below 0. Leave examples of unknown group out"
        )
    if int(sizes.min()) < smallest:
        raise InvalidInputError(
            f"group {int(present[sizes.argmin()])} of the {what} set has {int(sizes.min())} example(s), at least "
            f"{smallest} are needed; add some, or merge it with another group"
        )
    return groups
