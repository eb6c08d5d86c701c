"""Balanced sampling: over classes (no group labels), and over true groups (an oracle).

Formula: the mean cross-entropy, on epochs of n draws in which every cell has an equal share; in expectation, each
example is weighted by n / (cells * n_cell). Both are folklore; the second is the reweighting oracle of Sagawa et al.
2020 (Distributionally Robust Neural Networks for Group Shifts) and of Idrissi et al. 2022 (Simple Data Balancing
Achieves Competitive Worst-Group-Accuracy), by sampling rather than by weights.

Supervision: `erm-balanced` labels only; `reweight-oracle` the true group of every training example, which makes it an
oracle. No validation groups.

Cannot do: balancing over classes does not touch a shortcut that is as strong in every class; neither can balance a
cell that has no example, nor one that is so small that `max_repeats` (20 draws per example and epoch on average, a
default of this library) caps its share. A head that can fit the training set exactly forgets the weights.

Extra cost: none. No numbers of their own.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.true_groups import GROUP, read_groups
from aifs_peft.methods.context import EpochContext, Sampling, Setup
from aifs_peft.methods.registry import register


class _Balanced(Method):
    def check(self, setup: Setup) -> None:
        """See `Method.check`; without balanced batches nothing of the method is left."""
        super().check(setup)
        if not self.settings.balance_groups:
            raise InvalidConfigError(
                f"method {self.name!r} is nothing but balanced batches; leave balance_groups=True, or use method 'erm'"
            )


@register
class BalancedERM(_Balanced):
    """ERM on batches that are balanced over classes.

    Example:
        >>> import torch
        >>> from aifs_peft.methods import MethodSettings, get
        >>> get("erm-balanced")(MethodSettings()).sampling(torch.tensor([0, 0, 1]), None).cells
        tensor([0, 0, 1])
    """

    name: ClassVar[str] = "erm-balanced"
    title: ClassVar[str] = "ERM, class-balanced"
    paper: ClassVar[str] = "folklore; as a baseline Idrissi et al. 2022, Simple Data Balancing (CLeaR)"

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling:
        """See `Method.sampling`: balanced over labels."""
        del context
        return Sampling(cells=labels)


@register
class ReweightOracle(_Balanced):
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

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: refuse a column that cannot be balanced over."""
        assert context.labels is not None  # noqa: S101 - every trainer gives them
        read_groups(context.columns, len(context.labels))

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling:
        """See `Method.sampling`: balanced over true groups."""
        return Sampling(cells=read_groups(context.columns, len(labels)))
