"""ElRep: nuclear and Frobenius norms of the representation as penalties.

Paper: Wen, Wang, Zhang and Lei 2025, Elastic Representation: Mitigating Spurious Correlations for Group Robustness
(AISTATS), arXiv 2502.09850.

Formula: with `F (B, d)` the features of a batch that enter the last linear layer and `sigma_j` their singular values,
`L = L_ce + theta1 / B * sum_j sigma_j + theta2 / B * sum_j sigma_j^2`: the nuclear norm, which asks for few directions,
and the squared Frobenius norm, which asks for all of them to be small.

Supervision: labels only. The paper's own configuration chooses the epoch by the worst group of the validation set,
which is group supervision and is not done here.

Differs from the paper: the features come from the forward pass that gives the logits, not from a second one. (Where the
head has hidden layers, these alone are run again, without their dropout.) With several processes the norms are those of
the whole batch; with gradient accumulation they are those of each part.

Cannot: act on a frozen encoder with a linear head. Nothing that is penalised depends on a trained parameter then, the
gradient is exactly zero, and the method is refused. On latents the penalised features are the hidden layer of an MLP
head, which is not what the paper studies.

Extra cost: singular values of a `B x d` matrix per step.

Defaults: `theta1 = 1e-3` and `theta2 = 1e-4` are those of the authors' three example commands (batches of 64 for
images, 16 for texts); the values that the paper tuned per data set are not known. The nuclear term falls like `B^-0.5`
while the rank of the features does not grow with the batch, so `theta1` belongs to a batch size: rescale it by `sqrt(B
/ 64)`. For transformer latents a start is the `theta` that makes each term 1 to 10 % of the first cross-entropy (a
recommendation of this library).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from aifs_peft._checks import check_number
from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent._support import no_autocast
from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.last_linear import last_features, last_linear
from aifs_peft.methods.common.whole_batch import whole_batch
from aifs_peft.methods.context import Setup, StepContext
from aifs_peft.methods.registry import register


@dataclass(frozen=True)
class ElRepOptions:
    """Numbers of ElRep.

    Args:
        theta1: weight of the nuclear norm, at least 0.
        theta2: weight of the squared Frobenius norm, at least 0.

    Raises:
        InvalidConfigError: for a weight out of range, or two zeros, which would be plain training.
    """

    theta1: float = 1e-3
    theta2: float = 1e-4

    def __post_init__(self) -> None:
        check_number("theta1", self.theta1, 0.0)
        check_number("theta2", self.theta2, 0.0)
        if self.theta1 == self.theta2 == 0:
            raise InvalidConfigError('theta1 and theta2 are both 0, which is plain training; use method "erm" for it')


def norm_penalties(features: Tensor) -> tuple[Tensor, Tensor]:
    """Nuclear norm and squared Frobenius norm of a batch of features, each divided by its size.

    Args:
        features: `(batch, width)`.

    Returns:
        Two scalars with their graph, float32 or wider, computed with autocast off.

    Example:
        >>> [float(norm) for norm in norm_penalties(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))]
        [3.5, 12.5]
    """
    with no_autocast(features.device):
        wide = features if features.dtype == torch.float64 else features.float()
        return torch.linalg.svdvals(wide).sum() / len(wide), wide.square().sum() / len(wide)


@register
class ElRep(Method):
    """Cross-entropy plus nuclear and Frobenius norms of the features that enter the last linear layer.

    Example:
        >>> from aifs_peft.methods import make
        >>> make("elrep", method_options={"theta1": 0.01}).options
        ElRepOptions(theta1=0.01, theta2=0.0001)
    """

    name: ClassVar[str] = "elrep"
    title: ClassVar[str] = "ElRep"
    paper: ClassVar[str] = "Wen et al. 2025, Elastic Representation: Mitigating Spurious Correlations (AISTATS)"
    differs: ClassVar[str] = "the features come from the forward pass that gives the logits, not from a second one"
    needs: ClassVar[tuple[str, ...]] = ("an encoder that is trained, or a head with a hidden layer",)
    cost: ClassVar[str] = "singular values of the batch's features per step"
    Options: ClassVar[type[Any]] = ElRepOptions
    latent_head: ClassVar[Literal["linear", "mlp"]] = "mlp"

    def check(self, setup: Setup) -> None:
        """See `Method.check`; refuses a model in which nothing before the last layer is trained."""
        super().check(setup)
        last = {id(parameter) for parameter in last_linear(setup.head).parameters()}
        before = any(p.requires_grad and id(p) not in last for p in setup.head.parameters())
        if not (before or setup.encoder_trains):
            raise InvalidConfigError(
                "ElRep penalises the features that enter the last linear layer, and with a frozen encoder and a linear "
                "head none of them depends on a trained parameter: its gradient is exactly zero, the method would be "
                "plain training. Train the encoder (AIFSConfig(encoder_adapter=LoraConfig(...))) or give the head a "
                'hidden layer (AIFSConfig(head="mlp"))'
            )

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; adds "nuclear" and "frobenius"."""
        terms = super().loss(output, labels, context)
        features = whole_batch(last_features(context.head, output.z), context)
        nuclear, frobenius = norm_penalties(features)
        terms["nuclear"] = self.options.theta1 * nuclear
        terms["frobenius"] = self.options.theta2 * frobenius
        return terms
