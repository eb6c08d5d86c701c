"""Plain training on batches that are balanced over classes.

Formula: the mean cross-entropy, on epochs of n draws in which every class has an equal share; in expectation, each
example is weighted by n / (K * n_y). Folklore; as a baseline in Idrissi et al. 2022 (Simple Data Balancing Achieves
Competitive Worst-Group-Accuracy), by sampling rather than by weights.

Supervision: labels only. No validation groups.

Cannot do: it does not touch a shortcut that is as strong in every class; it cannot balance a class that is so small
that `max_repeats` (20 draws per example and epoch on average, a default of this library) caps its share. A head that
can fit the training set exactly forgets the weights.

Extra cost: none. No numbers of its own.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from aifs_peft.methods.base import Method
from aifs_peft.methods.common.balanced_batches import require_balancing
from aifs_peft.methods.context import EpochContext, Sampling, Setup
from aifs_peft.methods.registry import register


@register
class BalancedERM(Method):
    """ERM on batches that are balanced over classes.

    Example:
        >>> import torch
        >>> from aifs_peft.methods import MethodSettings, get
        >>> make("erm-balanced").sampling(torch.tensor([0, 0, 1]), None).cells
        tensor([0, 0, 1])
    """

    name: ClassVar[str] = "erm-balanced"
    title: ClassVar[str] = "ERM, class-balanced"
    paper: ClassVar[str] = "folklore; as a baseline Idrissi et al. 2022, Simple Data Balancing (CLeaR)"

    def check(self, setup: Setup) -> None:
        """See `Method.check`; without balanced batches nothing of the method is left."""
        super().check(setup)
        require_balancing(self.settings, self.name)

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling:
        """See `Method.sampling`: balanced over labels."""
        del context
        return Sampling(cells=labels)
