"""Just train twice (JTT): examples that a weak first model gets wrong are drawn more often.

Paper: Liu, Haghgoo, Chen, Raghunathan, Koh, Sagawa, Liang and Finn 2021, Just Train Twice: Improving Group Robustness
without Training Group Information (ICML), arXiv 2107.09044.

Formula: train a reference by plain training for T epochs; its error set is `E = {i : reference(x_i) != y_i}`. Train the
model from the start on examples drawn in proportion to

    w_i = lambda_up if i in E, else 1

Supervision: labels only. The paper chooses T and lambda_up by the worst group of a validation set with groups; its
results without these are 7 to 33 points lower. This library never does so by itself.

Differs from the paper: the reference is a linear head on the latents of the untuned encoder, not a fine-tuned network.
An epoch keeps n draws instead of growing by the repeated examples. So the paper's T and lambda_up do not carry over.

Cannot: tell a conflicting example from a mislabelled or a difficult one; do anything where the reference makes no
mistake (the error set is empty and this is plain training). With two classes the error set is also what EIIL infers.

Extra cost: one pass of the encoder over the training set before training, and a linear head trained for T epochs on its
latents; nothing per step.

Defaults: this library's. `lambda_up = 20` makes up for one conflicting example in twenty. `epochs = 20`, with Adam at
1e-3 on batches of 128, suits a few thousand examples: after fewer epochs the linear head gets easy examples wrong as
well, and a larger training set needs fewer. The number was chosen on dominoes latents with their groups known (worst
group 0.71 with 20 epochs, 0.22 with 5, plain training 0.26; two draws). Look at the logged `error_set_share`. Where the
encoder is tuned and classes are unequal, the reference's bias starts at their log shares and not at zero: otherwise its
mistakes are examples of the frequent class, and a tuned encoder came to say that class alone; on a frozen one the start
at zero is the better by 7 points of the worst group (tweets, three draws). The
authors train both of their networks with strong weight decay on Waterbirds (learning rate 1e-5, decay 1, T = 60), so
that the first one still errs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from aifs_peft._checks import check_count, check_number
from aifs_peft.methods.base import Method, Phase
from aifs_peft.methods.common.reference_head import train_reference
from aifs_peft.methods.context import EpochContext, Latents, Sampling, TrainingPlan
from aifs_peft.methods.registry import register

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
        check_number("lambda_up", self.lambda_up, 1.0)
        check_count("epochs", self.epochs, 1)
        check_number("learning_rate", self.learning_rate, 0.0, above=True)
        check_count("batch_size", self.batch_size, 1)
        check_number("weight_decay", self.weight_decay, 0.0)


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
    differs: ClassVar[str] = (
        "the reference is a linear head on the latents of the untuned encoder, not a fine-tuned network"
    )
    cost: ClassVar[str] = "one encoder pass and a linear head on its latents before training"
    Options: ClassVar[type[Any]] = JTTOptions
    collects_latents: ClassVar[Phase] = "initial"
    learns_first: ClassVar[tuple[str, ...]] = ("weights",)
    draws: ClassVar[Literal["never", "balanced", "always"]] = "always"

    def idle(self, plan: TrainingPlan) -> str | None:
        """See `Method.idle`: mistakes that are not drawn more often than others change nothing."""
        del plan
        if self.options.lambda_up == 1:
            return "lambda_up is 1, so the reference's mistakes are drawn as often as the rest; raise it"
        if self.settings.max_repeats <= 1:
            return "max_repeats is 1, so no mistake of the reference is drawn more often than the rest; raise it"
        return None

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
            at_shares=context.encoder_trains,
        )  # fmt: skip
        with torch.no_grad():
            predicted: Tensor = head(latents.z.float()).argmax(1)
        return predicted != latents.labels

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """See `Method.sampling`: in proportion to the weights; a permutation when they are equal."""
        del labels
        weights = context.state.weights.cpu()
        return None if bool((weights == 1.0).all()) else Sampling(weights=weights)
