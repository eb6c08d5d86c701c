"""XRM and group DRO: groups from two classifiers that flip each other's labels, then group DRO over them.

Paper: Pezeshki et al. 2024, Discovering Environments with XRM (ICML); group DRO: Sagawa et al. 2020.

Formula: before training, XRM's twins (`methods.common.twins`) run on the latents of the untuned encoder. An example
gets the bit "one of the twins mispredicts it"; its group is `g = 2 y + bit`. Training minimises group DRO's loss over
these groups (`methods.common.worst_group_loss`), with batches balanced over them.

Supervision: labels only, in training and in the choice of the twins (largest share of flipped labels).

Differs from the paper: linear twins on standardised latents, with learning rates scaled to their width. The second
phase is not tuned by the worst inferred group of the validation set; `Twins.mistakes` gives these groups for any set,
and the trainer's own selection rules stay as they are. The other differences of the first phase are told with the
twins.

Cannot: find what two classifiers, each trained on half of the data, do not disagree about; tell label noise from a
shortcut (the bit marks both). Where the twins make no mistake there is one group per class and nothing else to balance,
which is logged as a warning. With a tuned encoder the groups are still those of the untuned one.

Extra cost: one encoder pass and the twins before training; in a step one mean per group.

Defaults: `eta = 0.01` is the middle of the 10^U(-3,-1) that the paper draws from. For the twins see their file.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_number
from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.twins import TwinOptions, fit_twins
from aifs_peft.methods.common.worst_group_loss import group_dro_loss, uniform_weights
from aifs_peft.methods.context import EpochContext, Latents, Sampling, StepContext
from aifs_peft.methods.registry import register
from aifs_peft.methods.settings import read_options

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class XRMOptions:
    """Numbers of XRM and group DRO.

    Attributes:
        eta: step size of the group weights, at least 0.
        twins: keyword arguments of `methods.common.twins.TwinOptions`.
    """

    eta: float = 0.01
    twins: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0.0)
        read_options(TwinOptions, self.twins, "xrm-gdro, twins")


@register
class XRMGroupDRO(Method):
    """Group DRO over the groups that XRM infers; see the module's text.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("xrm-gdro").supervision
        'none'
    """

    name: ClassVar[str] = "xrm-gdro"
    title: ClassVar[str] = "XRM + group DRO"
    paper: ClassVar[str] = (
        "Pezeshki et al. 2024, Discovering Environments with XRM; Sagawa et al. 2020, Distributionally Robust Neural "
        "Networks for Group Shifts"
    )
    differs: ClassVar[str] = "linear twins on standardised latents, with learning rates scaled to their width"
    cost: ClassVar[str] = "one encoder pass and pairs of linear classifiers before training"
    Options: ClassVar[type[Any]] = XRMOptions
    learns_first: ClassVar[tuple[str, ...]] = ("groups", "memory")
    draws: ClassVar[Literal["never", "balanced", "always"]] = "balanced"
    without_draws: ClassVar[str] = "set balance_groups=False, which takes them as they come"

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: before the first step, infer every example's bit; group weights start equal."""
        if not context.fresh:
            if len(context.state.memory) != 2 * context.num_labels or not context.state.groups.numel():
                raise CheckpointMismatchError(
                    f"the checkpoint holds {len(context.state.memory)} group weights and "
                    f"{len(context.state.groups)} environment bits, so it is not one of method 'xrm-gdro' with "
                    f"{context.num_labels} classes; resume with the method the run was started with"
                )
            return
        assert context.encode_untuned is not None  # noqa: S101 - every trainer gives it
        latents = context.encode_untuned()
        bits = context.on_main(lambda: self._infer(latents, context))
        weights = uniform_weights(2 * latents.labels + bits, 2 * context.num_labels)
        context.state.update(count=False, groups=bits, memory=weights)

    def _infer(self, latents: Latents, context: EpochContext) -> Tensor:
        options = TwinOptions(**self.options.twins)
        twins = fit_twins(latents.z, latents.labels, context.num_labels, options, context.seed)
        bits = twins.mistakes(latents.z, latents.labels)
        if bool(bits.any()):
            logger.info("XRM: %.1f%% of the labels flipped, %d mistakes", 100 * twins.flip_rate, int(bits.sum()))
        else:
            logger.warning("XRM's twins make no mistake: the groups are the classes, group DRO balances nothing else")
        return bits

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """See `Method.sampling`: balanced over class x bit, unless `balance_groups` is off."""
        if not self.settings.balance_groups:
            return None
        return Sampling(cells=2 * labels + context.state.groups.cpu())

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; "cross_entropy" is weighted over groups, whose weights move with every call."""
        state = context.state
        bits = context.groups
        assert bits is not None  # noqa: S101 - `prepare` filled the state
        losses = F.cross_entropy(
            output.logits.float(), labels, label_smoothing=self.settings.label_smoothing, reduction="none"
        )
        loss, weights = group_dro_loss(
            losses, 2 * labels + bits.to(labels.device), state.memory, context, eta=self.options.eta
        )
        state.update(count=False, memory=weights)
        return {"cross_entropy": loss}
