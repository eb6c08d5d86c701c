"""Spectral decoupling: cross-entropy with a penalty on the logits themselves.

Paper: Pezeshki, Kaba, Bengio, Courville, Precup and Lajoie 2021, Gradient Starvation: A Learning Proclivity in Neural
Networks (NeurIPS), arXiv 2011.09468.

Formula:

    loss = mean_i [ CE(logits_i, y_i) + strength / 2 * ||logits_i||^2 ]

Once a strong feature explains the labels, cross-entropy leaves hardly any gradient for the others. The penalty bounds
the margin, so that the strong feature's weight stops growing and the weaker ones are still learned. It takes the place
of weight decay: train with `weight_decay=0`.

Supervision: labels only.

Differs from the paper: K softmax logits instead of one logit for two classes; one strength for all classes, from the
first step. With logits `(-m/2, m/2)` the paper's strength is half of the one that acts alike here. Its class-wise
variant for CelebA, `strength_y / 2 * (m - gamma_y)^2`, is not offered; for Colored MNIST its code switches the penalty
on after 450 steps.

Cannot: tell which feature is spurious. It spreads the weight over all that predict the label; where the shortcut
predicts the labels of the training set better than the rest, it stays in use.

Extra cost: none.

Defaults: `strength = 0.1` is this library's; the margin of an easily fitted example then settles where `sigmoid(-m) =
strength * m / 2`, at about 2.1. The authors' scripts take 2e-5 for Colored MNIST and 0.1 for CelebA, both without
weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from aifs_peft._checks import check_number
from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.context import StepContext, TrainingPlan
from aifs_peft.methods.registry import register


@dataclass(frozen=True)
class SpectralDecouplingOptions:
    """Its one number.

    Attributes:
        strength: of the penalty, at least 0.
    """

    strength: float = 0.1

    def __post_init__(self) -> None:
        check_number("strength", self.strength, 0.0)


@register
class SpectralDecoupling(Method):
    """Cross-entropy and an L2 penalty on the logits; see the module's text.

    Example:
        >>> from aifs_peft.methods import get
        >>> get("spectral-decoupling").cost
        'none'
    """

    name: ClassVar[str] = "spectral-decoupling"
    title: ClassVar[str] = "Spectral decoupling"
    paper: ClassVar[str] = "Pezeshki et al. 2021, Gradient Starvation: A Learning Proclivity in Neural Networks"
    differs: ClassVar[str] = (
        "K softmax logits instead of one logit for two classes; one strength for all classes, from the first step"
    )
    Options: ClassVar[type[Any]] = SpectralDecouplingOptions

    def idle(self, plan: TrainingPlan) -> str | None:
        """See `Method.idle`: a penalty of weight 0 is none."""
        del plan
        return "strength is 0, so its penalty does not count; raise it" if self.options.strength == 0 else None

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; adds "logit_penalty"."""
        terms = super().loss(output, labels, context)
        terms["logit_penalty"] = 0.5 * self.options.strength * output.logits.float().square().sum(1).mean()
        return terms
