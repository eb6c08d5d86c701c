"""Spectral decoupling: cross-entropy with a penalty on the logits themselves.

Paper: Pezeshki et al., NeurIPS 2021, Gradient Starvation: A Learning Proclivity in Neural Networks.

    loss = mean_i [ CE(logits_i, y_i) + strength / 2 * ||logits_i||^2 ]

Once a strong feature explains the labels, cross-entropy leaves hardly any gradient for the others; the penalty bounds
the margin, so that the strong feature's weight stops growing and the weaker ones are still learnt. It stands in the
place of weight decay: train with `weight_decay=0`. Formula and advice are as remembered, not checked against the
paper's text.

Supervision: none. (The paper is remembered to have tuned its strengths on validation groups; that is not done here.)

What it cannot do: nothing tells it which feature is spurious, so it spreads the weight over all that predict the
label; where the shortcut predicts the labels of the training set better than the rest, it stays in use.

Extra cost: none.

Where the default comes from: `strength` 0.1 is this library's. With two classes and logits `(-m/2, m/2)` the margin of
an example that is easily fitted then settles where `sigmoid(-m) = strength * m / 2`, at about 2.1. The paper has one
logit `m` for two classes, so its `strength` is half of the one that acts alike here. The class-wise variant for
CelebA, `strength_y / 2 * (m - gamma_y)^2`, is not offered.

Measured (`benchmarks/xrm_dominoes.py`, dominoes latents, 5 % conflicting, linear head): worst group 0.11, ERM 0.28.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.context import StepContext
from aifs_peft.methods.registry import register
from aifs_peft.methods.settings import check_range


@dataclass(frozen=True)
class SpectralDecouplingOptions:
    """Its one number.

    Attributes:
        strength: of the penalty, at least 0.
    """

    strength: float = 0.1

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0)


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
    Options: ClassVar[type[Any]] = SpectralDecouplingOptions

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; adds "logit_penalty"."""
        terms = super().loss(output, labels, context)
        terms["logit_penalty"] = 0.5 * self.options.strength * output.logits.float().square().sum(1).mean()
        return terms
