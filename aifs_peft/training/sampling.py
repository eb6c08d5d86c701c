"""The order of examples: a function of seed, epoch and inferred groups, so that a resumed run repeats it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from aifs_peft.errors import InvalidInputError
from aifs_peft.training.rng import private_generator


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


class EpochSampler(Sampler[int]):
    """A permutation per epoch or, once groups are known, draws balanced over the cells (label, inferred group).

    Not a `RandomSampler`, so accelerate leaves it in place and shards the batches made of it; it draws nothing
    from the global generators.

    Args:
        labels: `(n,)` int64.
        groups: called at the start of each epoch; gives `(n,)` int64, or an empty tensor while nothing is known.
        seed: of the order.
        max_repeats: see `balanced_counts`.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1])
        >>> sampler = EpochSampler(labels, lambda: torch.zeros(0), seed=0)
        >>> sorted(sampler)
        [0, 1, 2, 3]
    """

    def __init__(self, labels: Tensor, groups: Callable[[], Tensor], seed: int, max_repeats: float = 20.0) -> None:
        self.labels, self.groups, self.seed, self.max_repeats = labels, groups, seed, max_repeats
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; called by the training loop."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[int]:
        generator = private_generator(self.seed, self.epoch)
        groups = self.groups().cpu()
        if groups.numel() == 0:
            yield from torch.randperm(len(self), generator=generator).tolist()
            return
        if len(groups) != len(self):
            raise InvalidInputError(
                f"the adapter holds inferred groups of {len(groups)} examples, the training set has {len(self)}; "
                "resume with the training set the run was started with"
            )
        yield from self._balanced(groups, generator)

    def _balanced(self, groups: Tensor, generator: torch.Generator) -> list[int]:
        code = self.labels * (int(groups.max()) + 1) + groups
        cells = [(code == value).nonzero().squeeze(1) for value in code.unique()]
        counts = balanced_counts([len(cell) for cell in cells], len(self), self.max_repeats)
        drawn = []
        for cell, count in zip(cells, counts, strict=True):
            # Whole passes over the cell, then a random part: no example twice before all others once.
            passes = [cell[torch.randperm(len(cell), generator=generator)] for _ in range(-(-count // len(cell)))]
            drawn.append(torch.cat(passes)[:count] if passes else cell[:0])
        order = torch.cat(drawn)
        return order[torch.randperm(len(order), generator=generator)].tolist()
