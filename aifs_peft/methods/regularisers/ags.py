"""AGS: weights that support a class most, counted by how sure the classifier is, are made smaller in every step.

Paper: Dwivedi, Kalagond, Patel and Kurmi 2026, Regulating Internal Alignment Flows for Robust Learning Under Spurious
Correlations (ICLR). Alignment-gated suppression.

Formula: for an example `x` of class `k` and each feature `j` that enters the last linear layer, the alignment energy

    e_jk(x) = - p_k(x) W_jk phi_j(x)

is the more negative the more the feature supports the class. Its mean over the examples of the class in a batch enters
a moving average, `E_jk <- beta E_jk + (1 - beta) mean e_jk`. After `warmup_epochs`, in each step, between the forward
and the backward pass, with `s_jk` = 1 for the `percentile` % of features with the lowest `E_jk` in class `k`:

    W_jk <- (1 - alpha s_jk) (1 - overall alpha) W_jk

The loss is plain cross-entropy.

Supervision: labels only.

Differs from the paper: built from reports on the paper, whose formulas and defaults are these. No code was read. The
paper tunes a whole ResNet-50 and its features come out of a ReLU; latents here may be signed. With accumulated batches
the weights shrink once per optimizer step.

Cannot: tell a shortcut from the class: it holds back whatever supports a class most, and where that is the class itself
it costs accuracy. A shortcut that is spread over many features is hardly touched, and a rotation of the features
changes what is. A batch without examples of a class leaves its averages to fade together, which changes no order.

Extra cost: a product of the size of the batch's features per step, and one number per feature and class.

Defaults: `percentile = 20`, `beta = 0.75`, `alpha = 0.05`, `warmup_epochs = 5` and `overall = 0.05` are the paper's; it
tries alpha from 0.005 to 0.15 and percentiles from 10 to 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_count, check_number
from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.last_linear import last_features, last_linear
from aifs_peft.methods.context import EpochContext, Sampling, Setup, StepContext, TrainingPlan
from aifs_peft.methods.registry import register
from aifs_peft.methods.settings import MethodSettings


@dataclass(frozen=True)
class AGSOptions:
    """Numbers of AGS; the defaults are the paper's.

    Args:
        percentile: share of the features whose weights are made smaller, per class, in percent, in [0, 100].
        beta: weight of the old average, in [0, 0.9999]; 0 takes the current batch alone.
        alpha: by how much weights shrink in each step, in [0, 1].
        warmup_epochs: epochs before the first weight shrinks, at least 0.
        overall: by how much all weights shrink, as a share of alpha, in [0, 1].

    Raises:
        InvalidConfigError: for a value out of range.
    """

    percentile: float = 20.0
    beta: float = 0.75
    alpha: float = 0.05
    warmup_epochs: int = 5
    overall: float = 0.05

    def __post_init__(self) -> None:
        check_number("percentile", self.percentile, 0.0, 100.0)
        check_number("beta", self.beta, 0.0, 0.9999)
        check_number("alpha", self.alpha, 0.0, 1.0)
        check_count("warmup_epochs", self.warmup_epochs, 0)
        check_number("overall", self.overall, 0.0, 1.0)


@torch.no_grad()
def alignment_sums(features: Tensor, weight: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the alignment energies of a batch's examples in each class, and the number of examples.

    Args:
        features: what enters the last linear layer, `(batch, width)`.
        weight: its weight, `(K, width)`.
        logits: `(batch, K)`.
        labels: `(batch,)` int64.

    Returns:
        `(K, width)` and `(K,)`, float64.

    Example:
        >>> sums, counts = alignment_sums(torch.tensor([[2.0]]), torch.tensor([[3.0], [1.0]]), torch.zeros(1, 2),
        ...     torch.tensor([0]))
        >>> sums.tolist(), counts.tolist()
        ([[-3.0], [-0.0]], [1.0, 0.0])
    """
    own = F.one_hot(labels, len(weight)).double()
    sure = own * logits.double().softmax(1)
    return -weight.double() * (sure.T @ features.double()), own.sum(0)


@torch.no_grad()
def strongest_support(energy: Tensor, percentile: float) -> Tensor:
    """The features that support each class most: those whose energy is below the percentile of the class.

    Args:
        energy: `(K, width)`.
        percentile: in [0, 100].

    Returns:
        `(K, width)` bool.

    Example:
        >>> strongest_support(torch.tensor([[-3.0, 0.0, 1.0], [0.0, 2.0, -1.0]]), 40.0).tolist()
        [[True, False, False], [False, False, True]]
    """
    return energy < torch.quantile(energy, percentile / 100.0, dim=1, keepdim=True)


@register
class AGS(Method):
    """Cross-entropy, with the weights that support a class most made smaller in every step.

    Example:
        >>> from aifs_peft.methods import make
        >>> make("ags").options.alpha
        0.05
    """

    name: ClassVar[str] = "ags"
    title: ClassVar[str] = "AGS"
    paper: ClassVar[str] = (
        "Dwivedi et al. 2026, Regulating Internal Alignment Flows for Robust Learning Under Spurious Correlations "
        "(ICLR)"
    )
    differs: ClassVar[str] = "built from reports on the paper, whose formulas and defaults are these"
    cost: ClassVar[str] = "one product of the size of the batch's features per step"
    Options: ClassVar[type[Any]] = AGSOptions
    learns_first: ClassVar[tuple[str, ...]] = ("memory",)

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__(settings)
        self._epochs_done = 0
        self._shrunk_at = -1

    def check(self, setup: Setup) -> None:
        """See `Method.check`; the head must have a linear layer."""
        super().check(setup)
        last_linear(setup.head)

    def idle(self, plan: TrainingPlan) -> str | None:
        """See `Method.idle`: without a step after the warm-up, or with nothing to shrink."""
        if self.options.alpha == 0:
            return "alpha is 0, so no weight is made smaller; raise it"
        if self.options.warmup_epochs * plan.steps_per_epoch >= plan.steps:
            return (
                f"its warm-up of {self.options.warmup_epochs} epochs is the whole training; train for more epochs or "
                "lower warmup_epochs"
            )
        return None

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: averages where there are none."""
        shape = tuple(last_linear(context.head).weight.shape)
        if context.state.memory.shape != shape:
            context.state.update(count=False, memory=torch.zeros(shape))
        self._shrunk_at = -1

    def sampling(self, labels: Tensor, context: EpochContext) -> Sampling | None:
        """See `Method.sampling`: a plain permutation; how many epochs are done is noted."""
        del labels
        self._epochs_done = context.epoch
        return None

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`: plain cross-entropy; the averages move, and after the warm-up the weights shrink."""
        terms = super().loss(output, labels, context)
        layer, memory = last_linear(context.head), context.state.memory
        with torch.no_grad():
            features = last_features(context.head, output.z.detach())
        sums, counts = alignment_sums(features, layer.weight.detach(), output.logits.detach(), labels)
        # Of all processes, so that their averages and weights stay equal.
        sums, counts = (context.gather(part[None]).sum(0).to(memory.device) for part in (sums, counts))
        memory.mul_(self.options.beta).add_((1 - self.options.beta) * sums / (counts + 1e-8)[:, None])
        if self._epochs_done >= self.options.warmup_epochs and context.step != self._shrunk_at:
            self._shrunk_at = context.step
            factor = 1 - self.options.alpha * strongest_support(memory, self.options.percentile).double()
            factor *= 1 - self.options.overall * self.options.alpha
            # Between the passes, as published: the backward pass reads the smaller weights. `data`, since autograd
            # refuses a weight that was changed under its eyes.
            layer.weight.data.mul_(factor.to(layer.weight.device, layer.weight.dtype))
        return terms

    def finish(self, context: EpochContext) -> dict[str, float]:
        """See `Method.finish`: the averages are no use to the trained adapter."""
        context.state.update(count=False, memory=torch.zeros(0))
        return {}
