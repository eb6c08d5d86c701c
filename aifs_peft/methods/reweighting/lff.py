"""Learning from failure (LfF): the classifier learns from what a deliberately biased head gets wrong.

Paper: Nam, Cha, Ahn, Lee and Shin 2020, Learning from Failure: Training Debiased Classifier from Biased Classifier
(NeurIPS), arXiv 2007.02561.

Formula: the biased head `B` is trained with generalised cross-entropy, `(1 - p_y^q) / q`, whose gradient is that of the
cross-entropy times `p_y^q`: it follows what it can predict already. The classifier `D` is trained with the
cross-entropy weighted, per example, by the relative difficulty `l_B / (l_B + l_D)`. `l_B` and `l_D` are moving averages
of each head's cross-entropy on that example, `m <- decay m + (1 - decay) l`, started at its first loss and divided by
the largest one in the example's class.

Supervision: labels only. The published numbers are tuned on validation groups; without these they fall by 3 to 24
points (Waterbirds 78.0 to 75.0, CelebA 77.2 to 53.0, from other papers' tables).

Differs from the paper: the biased model is a linear head on the latents of the untuned encoder, not a second network.
So the classifier's own tuning cannot take the shortcut away from it. With a frozen encoder these are the current
latents. The authors' code multiplies the loss of the biased network by q, which acts as a smaller learning rate.

Cannot: help where the shortcut is not easier than the task for a linear head; tell mislabelled examples, which are
learned with full weight, from conflicting ones.

Extra cost: a second linear head per step and two numbers per training example; with a tuned encoder one pass of it
before training, and its latents in memory (float16 where there are many).

Defaults: `q = 0.7` and `decay = 0.7` are the paper's and its code's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_number
from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.generalised_cross_entropy import generalised_cross_entropy
from aifs_peft.methods.common.initial_latents import InitialLatents
from aifs_peft.methods.context import EpochContext, StepContext
from aifs_peft.methods.registry import register
from aifs_peft.methods.settings import MethodSettings

# In place of a moving average of an example that no step has seen; losses are at least 0.
UNSEEN = -1.0


@dataclass(frozen=True)
class LfFOptions:
    """Numbers of LfF.

    Args:
        q: of the generalised cross-entropy, in (0, 1]; towards 0 it is cross-entropy, at 1 the mean absolute error.
        decay: of the moving averages, in [0, 0.999]; 0 takes the current losses.

    Raises:
        InvalidConfigError: for a value out of range.
    """

    q: float = 0.7
    decay: float = 0.7

    def __post_init__(self) -> None:
        check_number("q", self.q, 0.0, 1.0, above=True)
        check_number("decay", self.decay, 0.0, 0.999)


@torch.no_grad()
def update_averages(memory: Tensor, index: Tensor, losses: Tensor, decay: float) -> None:
    """Move the averages of the examples of a batch towards their current losses, in place.

    Args:
        memory: `(heads, n)` float64, `UNSEEN` where an example has none.
        index: `(batch,)` int64; an example that occurs twice counts with its mean loss.
        losses: `(heads, batch)`, at least 0.
        decay: weight of the old average.

    Example:
        >>> memory = torch.tensor([[UNSEEN, 2.0]])
        >>> update_averages(memory, torch.tensor([0, 1]), torch.tensor([[3.0, 4.0]]), 0.5)
        >>> memory
        tensor([[3., 3.]])
    """
    examples, place, counts = index.unique(return_inverse=True, return_counts=True)
    current = torch.zeros(len(memory), len(examples), dtype=memory.dtype, device=memory.device)
    current = current.index_add(1, place, losses.to(memory.dtype)) / counts
    old = memory[:, examples]
    memory[:, examples] = torch.where(old < 0, current, decay * old + (1 - decay) * current)


@torch.no_grad()
def relative_difficulty(memory: Tensor, index: Tensor, labels: Tensor) -> Tensor:
    """`l_B / (l_B + l_D)` of the examples of a batch, each average divided by the largest one of its class.

    Args:
        memory: `(2, n)`: averages of the biased head and of the classifier.
        index: `(batch,)` int64, all of them seen.
        labels: of the whole training set, `(n,)` int64.

    Returns:
        `(batch,)` in [0, 1].

    Example:
        >>> memory = torch.tensor([[4.0, 1.0], [2.0, 2.0]])
        >>> relative_difficulty(memory, torch.tensor([0, 1]), torch.tensor([0, 0]))
        tensor([0.5000, 0.2000])
    """
    largest = torch.zeros(2, int(labels.max()) + 1, dtype=memory.dtype, device=memory.device)
    # UNSEEN is below the zeros that this starts with.
    largest.scatter_reduce_(1, labels.expand(2, -1), memory, "amax")
    # The floor is for losses that are exactly 0: such an example has weight 0, and no loss to weight either.
    tiny = torch.finfo(memory.dtype).tiny
    biased, debiased = memory[:, index] / largest[:, labels[index]].clamp_min(tiny)
    weights: Tensor = biased / (biased + debiased).clamp_min(tiny)
    return weights


@register
class LfF(Method):
    """Cross-entropy weighted by how much harder an example is for a biased head than for the classifier.

    Example:
        >>> from aifs_peft.methods import make
        >>> make("lff").options
        LfFOptions(q=0.7, decay=0.7)
    """

    name: ClassVar[str] = "lff"
    title: ClassVar[str] = "LfF"
    paper: ClassVar[str] = "Nam et al. 2020, Learning from Failure: Training Debiased Classifier (NeurIPS)"
    differs: ClassVar[str] = (
        "the biased model is a linear head on the latents of the untuned encoder, not a second network"
    )
    cost: ClassVar[str] = "a second linear head per step; when tuning, one encoder pass and its latents in memory"
    Options: ClassVar[type[Any]] = LfFOptions
    auxiliary: ClassVar[Literal["none", "linear", "mlp"]] = "linear"
    learns_first: ClassVar[tuple[str, ...]] = ("memory",)

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__(settings)
        self._labels: Tensor | None = None
        self._initial: InitialLatents | None = None

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: labels of all examples, the untuned latents, and averages where there are none."""
        assert context.labels is not None  # noqa: S101 - both training loops give them
        self._labels = context.labels.to(context.state.memory.device)
        self._initial = InitialLatents.collect(context) if context.encoder_trains else None
        if context.state.memory.shape != (2, len(context.labels)):
            context.state.update(count=False, memory=torch.full((2, len(context.labels)), UNSEEN))

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; "cross_entropy" is weighted, "biased" is the generalised loss of the biased head."""
        assert context.auxiliary is not None  # noqa: S101 - `check` made sure
        z = output.z.detach() if self._initial is None else self._initial.rows(context.index, output.z)
        biased, logits = context.auxiliary(z).float(), output.logits.float()
        weights = self._weights(biased.detach(), logits.detach(), labels, context)
        each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.settings.label_smoothing)
        return {
            "cross_entropy": (weights * each).mean(),
            "biased": generalised_cross_entropy(biased, labels, self.options.q).mean(),
        }

    def _weights(self, biased: Tensor, logits: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        assert self._labels is not None  # noqa: S101 - `prepare` ran
        memory = context.state.memory
        losses = torch.stack([F.cross_entropy(x, labels, reduction="none") for x in (biased, logits)], dim=1)
        # All processes enter the losses of the whole batch, so that their averages stay equal.
        gathered, index = context.gather(losses).to(memory.device), context.gather(context.index).to(memory.device)
        update_averages(memory, index, gathered.T, self.options.decay)
        weights = relative_difficulty(memory, context.index.to(memory.device), self._labels.to(memory.device))
        return weights.to(logits.device, logits.dtype)

    def finish(self, context: EpochContext) -> dict[str, float]:
        """See `Method.finish`: the averages are no use to the trained adapter."""
        context.state.update(count=False, memory=torch.zeros(0))
        return {}
