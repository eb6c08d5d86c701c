"""The inferred partition of the training set, and the draws that are made from it: only values that occur.

A head may have classes that the training set lacks, and a class may occur that no example has as attribute value (all
its examples were assigned to others'). Nothing is known of such a value: an example moved to it would stop half-way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aifs_peft.methods.common.draw_rates import draw_rates


def cells_of(labels: Tensor, groups: Tensor) -> Tensor:
    """One number per label and attribute value.

    Args:
        labels: `(n,)` int64.
        groups: attribute values `(n,)` int64.

    Returns:
        `(n,)` int64.

    Example:
        >>> cells_of(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]))
        tensor([0, 2, 4])
    """
    return labels * (int(groups.max()) + 1) + groups


@dataclass(frozen=True)
class Partition:
    """Labels and inferred attribute values of the training set.

    Attributes:
        classes: labels that occur, sorted, `(k,)` int64, on the CPU.
        values: attribute values that occur, sorted, `(v,)` int64, on the CPU.
        rates: expected draws of each example per epoch, `(n,)`, on the CPU; None for a plain permutation.
    """

    classes: Tensor
    values: Tensor
    rates: Tensor | None

    @classmethod
    def of(cls, labels: Tensor, groups: Tensor, max_repeats: float | None) -> Partition:
        """The partition by labels and attribute values.

        Args:
            labels: of the training set, `(n,)` int64.
            groups: attribute values, `(n,)` int64.
            max_repeats: of batches that are balanced over the cells; None for batches that are not.

        Example:
            >>> part = Partition.of(torch.tensor([0, 0, 0, 2]), torch.tensor([0, 0, 0, 2]), max_repeats=20)
            >>> part.classes.tolist(), part.values.tolist(), part.rates
            ([0, 2], [0, 2], tensor([0.6667, 0.6667, 0.6667, 2.0000]))
        """
        labels, groups = labels.cpu(), groups.cpu()
        rates = None if max_repeats is None else draw_rates(cells_of(labels, groups), max_repeats)
        return cls(torch.unique(labels), torch.unique(groups), rates)

    def other_values(self, groups: Tensor, uniform: Tensor) -> Tensor:
        """Another attribute value for each example, all that occur alike; its own where there is no other.

        Args:
            groups: own values, `(batch,)` int64, among those that occur.
            uniform: numbers in [0, 1], `(batch,)`.

        Returns:
            `(batch,)` int64.

        Example:
            >>> part = Partition.of(torch.tensor([0, 2, 3]), torch.tensor([0, 2, 3]), None)
            >>> part.other_values(torch.tensor([0, 2, 3, 3]), torch.tensor([0.1, 0.1, 0.1, 0.9]))
            tensor([2, 3, 0, 2])
        """
        values = self.values.to(groups.device)
        others = len(values) - 1
        if not others:
            return groups
        shift = 1 + (uniform.to(groups.device) * others).long().clamp_(max=others - 1)
        return values[(torch.searchsorted(values, groups) + shift) % len(values)]

    def cells(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """A class and an attribute value, drawn apart and evenly among those that occur.

        Args:
            uniform: numbers in [0, 1], `(batch, 2)`.

        Returns:
            Labels and attribute values, `(batch,)` int64 each.

        Example:
            >>> part = Partition.of(torch.tensor([0, 2]), torch.tensor([0, 0]), None)
            >>> [drawn.tolist() for drawn in part.cells(torch.tensor([[0.2, 0.9], [0.9, 0.2]]))]
            [[0, 2], [0, 0]]
        """
        drawn = []
        for known, number in zip((self.classes, self.values), uniform.unbind(1), strict=True):
            place = (number * len(known)).long().clamp_(max=len(known) - 1)
            drawn.append(known.to(place.device)[place])
        return drawn[0], drawn[1]
