"""How often examples are drawn when cells of unequal size are to count the same."""

from __future__ import annotations

import torch
from torch import Tensor

from aifs_peft.errors import InvalidInputError


def balanced_counts(sizes: list[int], total: int, max_repeats: float) -> list[int]:
    """How many draws each cell gets: equal shares, but no example more than `max_repeats` times on average.

    Args:
        sizes: number of examples per cell, each at least 1.
        total: number of draws.
        max_repeats: at least 1.

    Returns:
        One number per cell; they add up to `total`.

    Raises:
        InvalidInputError: for an empty cell or `max_repeats` below 1.

    Example:
        >>> balanced_counts([90, 10], 100, 20), balanced_counts([98, 2], 100, 20)
        ([50, 50], [60, 40])
    """
    if not sizes or min(sizes) < 1 or not max_repeats >= 1:
        raise InvalidInputError(f"cells must hold examples and max_repeats be >= 1, got {sizes} and {max_repeats}")
    limits = [max_repeats * size for size in sizes]
    share = [0.0] * len(sizes)
    open_cells, left = set(range(len(sizes))), float(total)
    # Water filling: cells that reach their limit leave the rest to the others.
    while open_cells:
        level = left / len(open_cells)
        full = {cell for cell in open_cells if limits[cell] <= level}
        if not full:
            for cell in open_cells:
                share[cell] = level
            break
        for cell in full:
            share[cell] = limits[cell]
            left -= limits[cell]
        open_cells -= full
    counts = [int(value) for value in share]
    by_remainder = sorted(range(len(sizes)), key=lambda cell: (counts[cell] - share[cell], cell))
    for cell in by_remainder[: total - sum(counts)]:
        counts[cell] += 1
    return counts


def draw_rates(cells: Tensor, max_repeats: float) -> Tensor:
    """Expected draws per epoch of each example when as many are drawn as there are and cells are balanced.

    Args:
        cells: `(n,)` int64.
        max_repeats: see `balanced_counts`.

    Returns:
        `(n,)` float32, mean one.

    Example:
        >>> draw_rates(torch.tensor([0, 0, 0, 1]), 20)
        tensor([0.6667, 0.6667, 0.6667, 2.0000])
    """
    _, code, sizes = cells.unique(return_inverse=True, return_counts=True)
    counts = torch.tensor(balanced_counts(sizes.tolist(), len(cells), max_repeats))
    rates: Tensor = (counts / sizes)[code]
    return rates
