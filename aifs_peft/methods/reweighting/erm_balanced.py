"""Plain training on batches that are balanced over classes.

Paper: folklore; as a baseline in Idrissi, Arjovsky, Pezeshki and Lopez-Paz 2022, Simple Data Balancing Achieves
Competitive Worst-Group-Accuracy (CLeaR).

Formula: the mean cross-entropy, on epochs of n draws in which every class has the same share. In expectation an example
weighs `n / (K n_y)`.

Supervision: labels only.

Differs from the paper: draws of one example per epoch are limited (`max_repeats`). The paper resamples without a limit.

Cannot: remove a shortcut that is equally strong in every class; balance a class so small that the limit on its draws
caps its share; keep its effect in a head that fits every training example.

Extra cost: none.

Defaults: no numbers of its own. `max_repeats = 20` is this library's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

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
        >>> from aifs_peft.methods import make
        >>> make("erm-balanced").sampling(torch.tensor([0, 0, 1]), None).cells
        tensor([0, 0, 1])
    """

    name: ClassVar[str] = "erm-balanced"
    title: ClassVar[str] = "ERM, class-balanced"
    paper: ClassVar[str] = "folklore; as a baseline Idrissi et al. 2022, Simple Data Balancing (CLeaR)"
    draws: ClassVar[Literal["never", "balanced", "always"]] = "always"
    differs: ClassVar[str] = "draws of one example per epoch are limited (`max_repeats`)"

    def check(self, setup: Setup) -> None:
        """See `Method.check`; without balanced batches nothing of the method is left."""
        super().check(setup)
        require_balancing(self.settings, self.name)

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling:
        """See `Method.sampling`: balanced over labels."""
        del context
        return Sampling(cells=labels)
