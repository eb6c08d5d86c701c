"""Group DRO with true groups: minimise the loss of the worst group. An oracle.

Paper: Sagawa, Koh, Hashimoto and Liang 2020, Distributionally Robust Neural Networks for Group Shifts (ICLR), arXiv
1911.08731.

Formula, per step, with `L_g` the mean loss of group g in the batch:

    q_g <- q_g exp(eta (L_g + C / sqrt(n_g))), q normalised, loss = sum_g q_g L_g

on batches drawn uniformly over groups (see `methods.common.worst_group_loss`). The weights `q` lie in the adapter's
state, so that a resumed run goes on with them.

Supervision: the true group of every training example. The paper also selects by validation groups, which is left to the
trainer's selection rule here.

Differs from the paper: draws of one example per epoch are limited (`max_repeats`). So batches are uniform over groups
only as far as that allows. A group that a batch lacks keeps its weight up to normalisation, also with `adjustment`,
which the authors' code adds to absent groups as well.

Cannot: do without an example of every group; bring much in a model that fits every training example, where all training
losses vanish together, unless weight decay is strong or training stops early. Rare examples are drawn again and again
and fitted first, so that their groups lose weight.

Extra cost: none worth measuring (one mean per group and step).

Defaults: `eta = 0.01` and no adjustment, `adjustment = 0`, are those of the authors' code. Weight decay is the
trainer's; the paper's strong settings are learning rate 1e-5 with decay 1 (Waterbirds) or 0.1 (CelebA).

Measured: on dominoes latents with the default schedule the worst group is at 0.66, with `adjustment = 4` at 0.77 (three
draws); a schedule chosen by true validation groups gives 0.76 without it (five draws).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_number
from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.true_groups import GROUP, read_groups
from aifs_peft.methods.common.worst_group_loss import group_dro_loss, size_adjustment, uniform_weights
from aifs_peft.methods.context import EpochContext, Sampling, StepContext
from aifs_peft.methods.registry import register


@dataclass(frozen=True)
class GroupDROOptions:
    """Numbers of group DRO.

    Args:
        eta: step size of the group weights, above 0.
        adjustment: C of the size adjustment, at least 0; 0 is none.

    Example:
        >>> GroupDROOptions(adjustment=2.0).eta
        0.01
    """

    eta: float = 0.01
    adjustment: float = 0.0

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0.0, above=True)
        check_number("adjustment", self.adjustment, 0.0)


@register
class GroupDROOracle(Method):
    """Group DRO over the true groups; `state.memory` holds their weights.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("gdro-oracle").supervision
        'groups'
    """

    name: ClassVar[str] = "gdro-oracle"
    title: ClassVar[str] = "group DRO (oracle)"
    paper: ClassVar[str] = "Sagawa et al. 2020, Distributionally Robust Neural Networks for Group Shifts (ICLR)"
    differs: ClassVar[str] = "draws of one example per epoch are limited (`max_repeats`)"
    supervision: ClassVar[Literal["none", "hints", "groups"]] = "groups"
    needs: ClassVar[tuple[str, ...]] = ("group labels (column `group`)",)
    cost: ClassVar[str] = "none"
    Options: ClassVar[type[Any]] = GroupDROOptions
    learns_first: ClassVar[tuple[str, ...]] = ("memory",)
    draws: ClassVar[Literal["never", "balanced", "always"]] = "balanced"
    without_draws: ClassVar[str] = "set balance_groups=False, which takes them as they come"

    def columns(self) -> tuple[str, ...]:
        """See `Method.columns`."""
        return (GROUP,)

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: equal weights when training begins, the saved ones when it goes on."""
        assert context.labels is not None  # noqa: S101 - every trainer gives them
        groups = read_groups(context.columns, len(context.labels))
        num_groups = int(groups.max()) + 1
        self._adjustment = size_adjustment(groups, num_groups, self.options.adjustment)
        if context.fresh:
            context.state.update(count=False, memory=uniform_weights(groups, num_groups))
        elif len(context.state.memory) != num_groups:
            raise CheckpointMismatchError(
                f"the checkpoint holds weights of {len(context.state.memory)} groups, the training set has "
                f"{num_groups}; resume with the groups the run was started with"
            )

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """See `Method.sampling`: uniform over groups, unless `balance_groups` is off."""
        if not self.settings.balance_groups:
            return None
        return Sampling(cells=read_groups(context.columns, len(labels)))

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`: "cross_entropy" is that of the groups under their weights."""
        losses = F.cross_entropy(
            output.logits.float(), labels, label_smoothing=self.settings.label_smoothing, reduction="none"
        )
        value, weights = group_dro_loss(
            losses, context.column(GROUP), context.state.memory, context,
            eta=self.options.eta, adjustment=self._adjustment,
        )  # fmt: skip
        context.state.update(count=False, memory=weights)
        return {"cross_entropy": value}
