"""Plain training on batches that are balanced over the true groups: an oracle.

Paper: the resampling baseline of Sagawa, Koh, Hashimoto and Liang 2020, Distributionally Robust Neural Networks for
Group Shifts (ICLR); Idrissi et al. 2022, Simple Data Balancing Achieves Competitive Worst-Group-Accuracy (CLeaR).

Formula: the mean cross-entropy, on epochs of n draws in which every group has the same share. In expectation an example
weighs `n / (G n_g)`.

Supervision: the true group of every training example. It bounds what balancing with inferred groups can reach.

Differs from the paper: draws of one example per epoch are limited (`max_repeats`). The papers resample without a limit,
and choose the model by the worst validation group, which is left to the trainer's selection rule here.

Cannot: balance a group without examples, or one so small that the limit on its draws caps its share; keep its effect in
a head that fits every training example.

Extra cost: none.

Defaults: no numbers of its own. `max_repeats = 20` is this library's.
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
    differs: ClassVar[str] = "draws of one example per epoch are limited (`max_repeats`)"
    supervision: ClassVar[Literal["none", "hints", "groups"]] = "groups"
    needs: ClassVar[tuple[str, ...]] = ("group labels (column `group`)",)
    draws: ClassVar[Literal["never", "balanced", "always"]] = "always"

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
