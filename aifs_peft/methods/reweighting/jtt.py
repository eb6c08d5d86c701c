"""Just train twice (JTT): the mistakes of a weak reference model are drawn more often.

Paper: Liu, Haghgoo, Chen, Raghunathan, Koh, Sagawa, Liang and Finn 2021, Just Train Twice: Improving Group Robustness
without Training Group Information (ICML).

Formula: after T epochs of ERM, E = {i : reference(x_i) != y_i}; the model is then trained from the start on examples
drawn in proportion to

    w_i = lambda_up if i in E, else 1

Supervision: labels only. The paper chooses T and lambda_up by the worst group of a validation set with groups, which
matters: published results without it are 7 to 33 points lower. This library never does so by itself.

Cannot do: tell a conflicting example from one with a wrong label, or from one that is just difficult; the error set is
empty, and this is ERM, when the reference fits everything. With lambda_up = 1 it is ERM exactly. On a binary task the
error set is also what EIIL infers.

Extra cost: one pass of the encoder over the training set before training, and a linear head trained for T epochs on
its latents; nothing per step.

Where the numbers come from. The procedure is the paper's as remembered, not checked against its text; T = 60 on
Waterbirds is in the official read-me. The adaptation is this library's: the reference is a linear head on the latents
of the encoder before tuning, not a fine-tuned copy of it, and an epoch keeps n draws instead of growing by the repeated
examples. So the paper's T and lambda_up do not carry over. `lambda_up = 20` makes up for one conflicting example in
twenty. `epochs = 20`, with Adam at 1e-3 on batches of 128, is for a few thousand examples: earlier, a linear head has
not learned the easy ones either and the error set is mostly these. That was seen on dominoes latents with their groups
at hand (worst group 0.71 with 20 epochs, 0.22 with 5, 0.26 for ERM; two draws), so it is a choice in hindsight there;
a larger training set needs fewer epochs. `error_set_share` is logged to judge it by.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from aifs_peft.methods.base import Method, Phase
from aifs_peft.methods.common.reference_head import train_reference
from aifs_peft.methods.context import EpochContext, Latents, Sampling
from aifs_peft.methods.registry import register
from aifs_peft.methods.settings import check_range

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JTTOptions:
    """Numbers of JTT.

    Args:
        lambda_up: how many times as often an error of the reference is drawn, at least 1.
        epochs: of the reference, T, at least 1.
        learning_rate: of the reference, on latents of unit variance, above 0.
        batch_size: of the reference, at least 1.
        weight_decay: of the reference, at least 0.

    Example:
        >>> JTTOptions(lambda_up=6).epochs
        20
    """

    lambda_up: float = 20.0
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 128
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_range("lambda_up", self.lambda_up, 1.0)
        check_range("epochs", self.epochs, 1)
        check_range("learning_rate", self.learning_rate, 0.0, above=True)
        check_range("batch_size", self.batch_size, 1)
        check_range("weight_decay", self.weight_decay, 0.0)


@register
class JTT(Method):
    """ERM with the reference's mistakes drawn `lambda_up` times as often; `state.weights` holds how often.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("jtt").collects_latents
        'initial'
    """

    name: ClassVar[str] = "jtt"
    title: ClassVar[str] = "JTT"
    paper: ClassVar[str] = "Liu et al. 2021, Just Train Twice (ICML)"
    cost: ClassVar[str] = "one encoder pass and a linear head on its latents before training"
    Options: ClassVar[type[Any]] = JTTOptions
    collects_latents: ClassVar[Phase] = "initial"
    learns_first: ClassVar[tuple[str, ...]] = ("weights",)

    def start(self, latents: Latents, context: EpochContext) -> dict[str, float]:
        """See `Method.start`: train the reference, weight its mistakes."""
        wrong = context.on_main(lambda: self._errors(latents, context))
        context.state.update(count=False, weights=1.0 + (self.options.lambda_up - 1.0) * wrong.double())
        if not bool(wrong.any()):
            logger.warning(
                "the reference makes no mistake: this is plain training; give it fewer epochs or more weight decay"
            )
        return {"error_set_share": float(wrong.float().mean())}

    def _errors(self, latents: Latents, context: EpochContext) -> Tensor:
        """Which examples the reference gets wrong, `(n,)` bool."""
        options = self.options
        head = train_reference(
            latents.z, latents.labels, context.num_labels, epochs=options.epochs, seed=context.seed,
            learning_rate=options.learning_rate, batch_size=options.batch_size, weight_decay=options.weight_decay,
        )  # fmt: skip
        with torch.no_grad():
            return head(latents.z.float()).argmax(1) != latents.labels

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """See `Method.sampling`: in proportion to the weights; a permutation when they are equal."""
        del labels
        weights = context.state.weights.cpu()
        return None if bool((weights == 1.0).all()) else Sampling(weights=weights)
