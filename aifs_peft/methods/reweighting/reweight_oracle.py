"""Plain training on batches that are balanced over the true groups: an oracle.

Formula: the mean cross-entropy, on epochs of n draws in which every group has an equal share; in expectation, each
example is weighted by n / (groups * n_g). The reweighting oracle of Sagawa et al. 2020 (Distributionally Robust Neural
Networks for Group Shifts) and of Idrissi et al. 2022 (Simple Data Balancing Achieves Competitive
Worst-Group-Accuracy), by sampling rather than by weights.

Supervision: the true group of every training example, which makes it an oracle. No validation groups.

Cannot do: it cannot balance a group that has no example, nor one that is so small that `max_repeats` (20 draws per
example and epoch on average, a default of this library) caps its share. A head that can fit the training set exactly
forgets the weights.

Extra cost: none. No numbers of its own.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from aifs_peft.methods.base import Method
from aifs_peft.methods.common.balanced_batches import require_balancing
from aifs_peft.methods.common.true_groups import GROUP, read_groups
from aifs_peft.methods.context import EpochContext, Sampling, Setup
from aifs_peft.methods.registry import register


@register
class ReweightOracle(Method):
    """ERM on batches that are balanced over the true groups.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("reweight-oracle").needs
        ('group labels (column `group`)',)
    """

    name: ClassVar[str] = "reweight-oracle"
    title: ClassVar[str] = "group reweighting (oracle)"
    paper: ClassVar[str] = "Sagawa et al. 2020, Distributionally Robust Neural Networks for Group Shifts (ICLR)"
    supervision: ClassVar[Literal["none", "hints", "groups"]] = "groups"
    needs: ClassVar[tuple[str, ...]] = ("group labels (column `group`)",)

    def columns(self) -> tuple[str, ...]:
        """See `Method.columns`."""
        return (GROUP,)

    def check(self, setup: Setup) -> None:
        """See `Method.check`; without balanced batches nothing of the method is left."""
        super().check(setup)
        require_balancing(self.settings, self.name)

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: refuse a column that cannot be balanced over."""
        assert context.labels is not None  # noqa: S101 - every trainer gives them
        read_groups(context.columns, len(context.labels))

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling:
        """See `Method.sampling`: balanced over true groups."""
        return Sampling(cells=read_groups(context.columns, len(labels)))
