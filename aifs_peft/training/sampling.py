"""The order of examples: a function of seed, epoch and the method's state, so that a resumed run repeats it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from aifs_peft.errors import InvalidInputError
from aifs_peft.methods import Sampling
from aifs_peft.methods.common.draw_rates import balanced_counts
from aifs_peft.training.rng import private_generator


def drawn_by_weight(weights: Tensor, total: int, generator: torch.Generator) -> Tensor:
    """Positions drawn in proportion to weights: whole expected draws first, the fractions by systematic sampling.

    Args:
        weights: `(n,)`, at least 0, at least one above.
        total: number of draws.
        generator: of the fractions and of the order.

    Returns:
        `(total,)` int64, shuffled.

    Raises:
        InvalidInputError: for weights that are negative, not finite, or all zero.

    Example:
        >>> drawn = drawn_by_weight(torch.tensor([2.0, 1.0, 0.0]), 6, torch.Generator().manual_seed(0))
        >>> torch.bincount(drawn, minlength=3).tolist()
        [4, 2, 0]
    """
    weights = weights.double()
    if not bool(weights.isfinite().all()) or not bool((weights >= 0).all()) or not bool(weights.sum() > 0):
        raise InvalidInputError("weights of examples must be finite, at least 0 and not all 0")
    ends = (weights / weights.sum() * total).cumsum(0)
    ends[-1] = total
    # One uniform offset: each example gets its expected number of draws, rounded up or down.
    ticks = (ends + torch.rand(1, generator=generator, dtype=torch.float64)).floor().long()
    counts = torch.diff(ticks, prepend=torch.zeros(1, dtype=torch.int64)).clamp_min(0)
    positions = torch.repeat_interleave(torch.arange(len(weights)), counts)
    return positions[torch.randperm(len(positions), generator=generator)][:total]


class Draw(int):
    """A position in the training set that knows its epoch, and how often it was drawn before in that epoch.

    An `int` to everybody else, so that batch samplers, workers and data sets need not know about it.

    Args:
        position: in the training set.
        occurrence: earlier draws of the same position in this epoch.
        epoch: epochs completed before.

    Example:
        >>> draw = Draw(7, 2, epoch=1)
        >>> draw == 7, draw.occurrence, draw.epoch
        (True, 2, 1)
    """

    occurrence: int
    epoch: int

    def __new__(cls, position: int, occurrence: int = 0, epoch: int = 0) -> Draw:  # noqa: D102 - see the class
        draw = super().__new__(cls, position)
        draw.occurrence, draw.epoch = occurrence, epoch
        return draw

    def __reduce__(self) -> tuple[type[Draw], tuple[int, int, int]]:
        return Draw, (int(self), self.occurrence, self.epoch)


def occurrences(order: Tensor) -> Tensor:
    """How often each entry has come before.

    Args:
        order: `(n,)` integers.

    Returns:
        `(n,)` int64, 0 where a value comes for the first time.

    Example:
        >>> occurrences(torch.tensor([5, 3, 5, 5, 3]))
        tensor([0, 0, 1, 2, 1])
    """
    by_value = torch.argsort(order, stable=True)
    ordered, place = order[by_value], torch.arange(len(order))
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    start = torch.cummax(torch.where(first, place, 0), dim=0).values if len(order) else place
    return torch.empty_like(place).scatter_(0, by_value, place - start)


class EpochSampler(Sampler[int]):
    """The order of an epoch: a permutation, or what the method's `sampling` says.

    Not a `RandomSampler`, so accelerate leaves it in place and shards the batches made of it; it draws nothing
    from the global generators. Iterating gives positions, each a `Draw`.

    Args:
        size: number of training examples, n; also the number of draws per epoch.
        plan: called at the start of each epoch with the number of epochs completed; see `Method.sampling`.
        seed: of the order.
        max_repeats: see `balanced_counts`.

    Example:
        >>> sorted(EpochSampler(4, lambda epoch: None, seed=0))
        [0, 1, 2, 3]
        >>> half = EpochSampler(4, lambda epoch: Sampling(weights=torch.tensor([1.0, 1.0, 0.0, 0.0])), seed=0)
        >>> sorted(half)
        [0, 0, 1, 1]
    """

    def __init__(self, size: int, plan: Callable[[int], Sampling | None], seed: int, max_repeats: float = 20.0) -> None:
        self.size, self.plan, self.seed, self.max_repeats = size, plan, seed, max_repeats
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; called by the training loop."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        order = self.order()
        for position, occurrence in zip(order.tolist(), occurrences(order).tolist(), strict=True):
            yield Draw(position, occurrence, self.epoch)

    def order(self) -> Tensor:
        """Positions of the chosen epoch's draws, `(size,)` int64.

        Raises:
            InvalidInputError: if what the method gives does not fit the training set.
        """
        generator = private_generator(self.seed, self.epoch)
        plan = self.plan(self.epoch)
        if plan is None:
            return torch.randperm(self.size, generator=generator)
        if plan.order is not None:
            return self._positions(plan.order.cpu())
        if plan.weights is not None:
            return drawn_by_weight(self._checked(plan.weights.cpu(), "weights"), self.size, generator)
        if plan.cells is not None:
            return self._balanced(self._checked(plan.cells.cpu(), "cells"), generator)
        raise InvalidInputError("the method's sampling is empty: Sampling(...) needs cells, weights or order")

    def _positions(self, order: Tensor) -> Tensor:
        self._checked(order, "order")
        if not bool(((order >= 0) & (order < self.size)).all()):
            raise InvalidInputError(
                f"the method's sampling gives positions from {int(order.min())} to {int(order.max())}, the training "
                f"set has {self.size} examples"
            )
        return order.long()

    def _checked(self, values: Tensor, what: str) -> Tensor:
        if len(values) != self.size:
            raise InvalidInputError(
                f"the method's sampling gives {what} of {len(values)} examples, the training set has {self.size}; "
                "resume with the training set the run was started with"
            )
        return values

    def _balanced(self, code: Tensor, generator: torch.Generator) -> Tensor:
        cells = [(code == value).nonzero().squeeze(1) for value in code.unique()]
        counts = balanced_counts([len(cell) for cell in cells], self.size, self.max_repeats)
        drawn = []
        for cell, count in zip(cells, counts, strict=True):
            # Whole passes over the cell, then a random part: no example twice before all others once.
            passes = [cell[torch.randperm(len(cell), generator=generator)] for _ in range(-(-count // len(cell)))]
            drawn.append(torch.cat(passes)[:count] if passes else cell[:0])
        order = torch.cat(drawn)
        return order[torch.randperm(len(order), generator=generator)]
