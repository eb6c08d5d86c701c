"""ULE by saliency, ULE-style: the classifier (teacher) is to look where a student of its own kind does not.

Paper: Mitchell, Martinez del Rincon and McLaughlin 2024, UnLearning from Experience to Avoid Spurious Correlations,
arXiv 2409.02792; Pattern Analysis and Applications 28(4), 2025.

Formula: with the saliency `g(z) = |d max_k s_k / dz|`, divided by its largest entry in each example,

    L_S = L_ce(S)
    L_T = L_ce(T) + lambda2 * mean (lambda1 (1 - g_S) - g_T)^2

Both are trained in parallel on the same batches, from the first step and with the same learning rate. The student
`S` has the teacher's kind of head and no gradient from the penalty; the teacher `T` is the one that is used. Where the
encoder is tuned, the teacher alone tunes it and the student reads the latents of the untuned one.

Supervision: labels only.

Differs from the paper: the loss could not be checked against the text, the gradient is taken at the latent instead of
the image. So text and tables have one, and no double backward crosses the encoder. Both read one encoder. The
abstracts give the two networks, what each is for, and that the gradient of the student's output with respect to its
input is used. No code was found. Hence "ULE-style". `ule` is this library's own variant, with a weaker student, a head
start and gradients compared by their cosine.

Cannot: work with a linear teacher on frozen latents, whose gradient is the same for every example (refused); help where
the student uses the real signal as well. Saliency has no sign and is compared entry by entry: a rotation of the latents
changes what is unlearned.

Extra cost: a second head, its gradient, and a double backward through the head per step; one encoder pass before
training where the encoder is tuned.

Defaults: `lambda1 = 1` and `lambda2 = 1` are this library's; the paper's are not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_number
from aifs_peft.latent._support import Head, evaluating, no_autocast, run_head, work_dtype
from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.initial_latents import InitialLatents
from aifs_peft.methods.context import EpochContext, Setup, StepContext, TrainingPlan
from aifs_peft.methods.registry import register
from aifs_peft.methods.regularisers.ule import refuse_one_gradient, saliency_penalty
from aifs_peft.methods.settings import MethodSettings


@dataclass(frozen=True)
class ULESaliencyOptions:
    """Numbers of ULE by saliency; the defaults are this library's.

    Args:
        lambda1: saliency asked of the teacher where the student has none, at least 0.
        lambda2: weight of the penalty, at least 0; {0.1, 1, 10} is the grid to try.

    Raises:
        InvalidConfigError: for a value out of range.
    """

    lambda1: float = 1.0
    lambda2: float = 1.0

    def __post_init__(self) -> None:
        check_number("lambda1", self.lambda1, 0.0)
        check_number("lambda2", self.lambda2, 0.0)


def largest_output_gradient(head: Head, z: Tensor, *, create_graph: bool) -> Tensor:
    """The gradient of each example's largest logit with respect to its latent, the head in evaluation mode.

    Args:
        head: latents `(batch, dim)` to logits.
        z: `(batch, dim)`, with a graph or without.
        create_graph: keep the graph, so that the result can be trained through.

    Returns:
        `(batch, dim)`.

    Example:
        >>> head = torch.nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> largest_output_gradient(head, torch.tensor([[0.0, 3.0]]), create_graph=False)
        tensor([[0., 1.]])
    """
    with torch.enable_grad(), no_autocast(z.device), evaluating(head):
        point = z.to(work_dtype(z))
        if not (create_graph and point.requires_grad):
            point = point.detach().requires_grad_()
        largest = run_head(head, point).amax(1).sum()
        (gradient,) = torch.autograd.grad(largest, point, create_graph=create_graph, materialize_grads=True)
    return gradient


@register
class ULESaliency(Method):
    """Cross-entropy, and input gradients that are to be large where a student's are small.

    Example:
        >>> from aifs_peft.methods import make
        >>> make("ule-saliency").auxiliary
        'mlp'
    """

    name: ClassVar[str] = "ule-saliency"
    title: ClassVar[str] = "ULE by saliency, ULE-style"
    paper: ClassVar[str] = (
        "Mitchell et al. 2024, UnLearning from Experience to Avoid Spurious Correlations (Pattern Anal. Appl. 2025)"
    )
    differs: ClassVar[str] = (
        "the loss could not be checked against the text, the gradient is taken at the latent instead of the image"
    )
    needs: ClassVar[tuple[str, ...]] = ("an encoder that is trained, or a head with a hidden layer",)
    cost: ClassVar[str] = "a second head and a double backward through the head per step; one encoder pass when tuning"
    Options: ClassVar[type[Any]] = ULESaliencyOptions
    latent_head: ClassVar[Literal["linear", "mlp"]] = "mlp"
    auxiliary: ClassVar[Literal["none", "linear", "mlp"]] = "mlp"

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__(settings)
        self._initial: InitialLatents | None = None

    def check(self, setup: Setup) -> None:
        """See `Method.check`; refuses a linear teacher on frozen latents."""
        super().check(setup)
        refuse_one_gradient(setup)

    def idle(self, plan: TrainingPlan) -> str | None:
        """See `Method.idle`: a penalty of weight 0 is none."""
        del plan
        return "lambda2 is 0, so its penalty does not count; raise it" if self.options.lambda2 == 0 else None

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: the untuned latents where they are needed."""
        self._initial = InitialLatents.collect(context) if context.encoder_trains else None

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; adds "student" and "unlearning"."""
        assert context.auxiliary is not None  # noqa: S101 - `check` made sure
        terms = super().loss(output, labels, context)
        z = output.z.detach() if self._initial is None else self._initial.rows(context.index, output.z)
        terms["student"] = F.cross_entropy(context.auxiliary(z).float(), labels)
        student = largest_output_gradient(context.auxiliary, z, create_graph=False)
        teacher = largest_output_gradient(context.head, output.z, create_graph=True)
        penalty = saliency_penalty(student, teacher, self.options.lambda1)
        terms["unlearning"] = self.options.lambda2 * penalty
        return terms
