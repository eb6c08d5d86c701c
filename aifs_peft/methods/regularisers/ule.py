"""ULE-style: a student follows the shortcut, the classifier (teacher) unlearns what the student's gradients use.

Paper: Mitchell, Martinez del Rincon and McLaughlin 2024, UnLearning from Experience to Avoid Spurious Correlations,
arXiv 2409.02792; Pattern Analysis and Applications 28(4), 2025.

Formula, on latents: `v_S = d S_y / dz`, `v_T = d T_y / dz` (for two classes of the margin), in standardised
coordinates; `L_T = L_ce + lambda2 * penalty` with the penalty

- "cosine" (default): `mean cos^2(v_S, v_T)`;
- "saliency": with `a = |v_S| / max`, `b = |v_T| / max` per example, `mean (b - lambda1 (1 - a))^2`, which asks the
  teacher to look where the student does not.

The student `S` is a linear second head, with generalised cross-entropy (`student_q = 0.7`, so that it ignores what
contradicts the shortcut; 0 for cross-entropy), no weight decay and `student_lr_scale` times the learning rate; it gets
no gradient from the penalty. The penalty is off for the first `head_start` of all steps, then grows over `ramp`. A
teacher with a hidden layer reads the same latents; where the encoder is tuned, the teacher alone tunes it and the
student reads the latents of the untuned one. No double backward crosses the encoder.

Supervision: labels only.

Differs from the paper: the losses are a reconstruction, gradients are taken at the latent, the student is linear. Known
from the abstracts is this much: two classifiers are trained in parallel on the same batches; the student is
unconstrained and follows the shortcut; the gradient of its output with respect to its input tells the teacher what to
avoid; the teacher is the one that is used. No code was found. Hence "ULE-style": every number is this library's.

Cannot: work with a linear teacher on frozen latents, where `v_T` is the same for every example (refused); help where
the student uses the real signal as well: a right angle to it can then be reached by using that signal the wrong way
round, and worst-group accuracy falls below plain training.

Extra cost: a second linear head, its gradient, and a double backward through the head per step; one encoder pass before
training, whose latents are kept when the encoder is tuned.

Defaults: this library's. `coordinates="standardised"` multiplies a gradient by the deviation of each latent dimension.
`"whitened"` takes the symmetric root of the whole covariance and does not suit a linear student: fitted to the end it
is a discriminant, `S ~ C^-1 (mu_1 - mu_0)`, and a linear teacher at a right angle to it has no difference between the
classes' means left to classify by.

Measured: on planted Gaussians whose shortcut was spread over several dimensions worst-group accuracy fell (0.30 to
0.20); with a shortcut on one dimension it rose (0.35 to 0.51). "whitened" lowered it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_choice, check_number
from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent import linear_parameters
from aifs_peft.latent._support import Head, evaluating, no_autocast, run_head, work_dtype
from aifs_peft.latent.output import LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.common.generalised_cross_entropy import generalised_cross_entropy
from aifs_peft.methods.common.initial_latents import InitialLatents
from aifs_peft.methods.context import EpochContext, Setup, StepContext
from aifs_peft.methods.registry import register
from aifs_peft.methods.settings import MethodSettings


@dataclass(frozen=True)
class ULEOptions:
    """Numbers of ULE-style unlearning; all defaults are this library's.

    Args:
        penalty: "cosine" or "saliency".
        lambda1: level asked of the teacher where the student does not look, at least 0; of "saliency" alone.
        lambda2: weight of the penalty, at least 0; {0.1, 1, 10} is the grid to try.
        student_lr_scale: learning rate of the student as a multiple of the classifier's, above 0.
        student_q: of its generalised cross-entropy, in [0, 1]; 0 is cross-entropy.
        head_start: share of all steps before the penalty begins, in [0, 0.9].
        ramp: share of all steps over which it grows to its full weight, in [0, 1].
        coordinates: "standardised" or "whitened".

    Raises:
        InvalidConfigError: for a value out of range or an unknown choice.
    """

    penalty: str = "cosine"
    lambda1: float = 1.0
    lambda2: float = 1.0
    student_lr_scale: float = 10.0
    student_q: float = 0.7
    head_start: float = 0.05
    ramp: float = 0.2
    coordinates: str = "standardised"

    def __post_init__(self) -> None:
        check_choice("penalty", self.penalty, ("cosine", "saliency"))
        check_choice("coordinates", self.coordinates, ("standardised", "whitened"))
        check_number("lambda1", self.lambda1, 0.0)
        check_number("lambda2", self.lambda2, 0.0)
        check_number("student_lr_scale", self.student_lr_scale, 0.0, above=True)
        check_number("student_q", self.student_q, 0.0, 1.0)
        check_number("head_start", self.head_start, 0.0, 0.9)
        check_number("ramp", self.ramp, 0.0, 1.0)

    def weight(self, progress: float) -> float:
        """Weight of the penalty after a share `progress` of all steps."""
        since = progress - self.head_start
        grown = min(max(since / self.ramp, 0.0), 1.0) if self.ramp else float(since >= 0)
        return self.lambda2 * grown


def output_gradient(head: Head, z: Tensor, labels: Tensor, *, create_graph: bool) -> Tensor:
    """The gradient of each example's output with respect to its latent, the head in evaluation mode.

    Args:
        head: latents `(batch, dim)` to logits.
        z: `(batch, dim)`, with a graph or without.
        labels: `(batch,)` int64.
        create_graph: keep the graph, so that the result can be trained through.

    Returns:
        `(batch, dim)`: of the margin `l_1 - l_0` for two classes, of the label's logit for more.

    Example:
        >>> head = torch.nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> output_gradient(head, torch.zeros(1, 2), torch.tensor([0]), create_graph=False)
        tensor([[-1.,  1.]])
    """
    with torch.enable_grad(), no_autocast(z.device), evaluating(head):
        point = z.to(work_dtype(z))
        if not (create_graph and point.requires_grad):
            point = point.detach().requires_grad_()
        logits = run_head(head, point)
        own = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits.gather(1, labels[:, None])
        (gradient,) = torch.autograd.grad(own.sum(), point, create_graph=create_graph, materialize_grads=True)
    return gradient


def cosine_penalty(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared cosine of two sets of gradients, in [0, 1].

    Args:
        student: `(batch, dim)`.
        teacher: `(batch, dim)`.

    Example:
        >>> cosine_penalty(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(0.5000)
    """
    return F.cosine_similarity(student, teacher, dim=1).square().mean()


def saliency_penalty(student: Tensor, teacher: Tensor, level: float) -> Tensor:
    """`mean (b - level (1 - a))^2` with `a`, `b` the absolute gradients divided by each example's largest.

    Args:
        student: `(batch, dim)`.
        teacher: `(batch, dim)`.
        level: lambda1.

    Example:
        >>> saliency_penalty(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, -3.0]]), 1.0)
        tensor(0.)
    """
    a, b = (g.abs() / g.abs().amax(1, keepdim=True).clamp_min(1e-12) for g in (student, teacher))
    return (b - level * (1 - a)).square().mean()


def coordinate_change(z: Tensor, coordinates: str) -> Tensor:
    """What a gradient in `z` is multiplied by from the right to be one in standardised or whitened latents.

    Args:
        z: `(n, dim)`.
        coordinates: "standardised" or "whitened".

    Returns:
        `(dim, dim)` float32: the deviations on the diagonal, or the symmetric root of the covariance.

    Example:
        >>> coordinate_change(torch.tensor([[2.0, 1.0], [-2.0, 1.0]]), "standardised")
        tensor([[2., 0.],
                [0., 0.]])
    """
    centred = z.double() - z.double().mean(0)
    if coordinates == "standardised":
        return torch.diag(centred.square().mean(0).sqrt()).float()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(z))
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root.float()


def refuse_one_gradient(setup: Setup) -> None:
    """Refuse a linear head on a frozen encoder, whose input gradient is the same for every example.

    Raises:
        InvalidConfigError: saying what to do instead.
    """
    if not setup.encoder_trains and linear_parameters(setup.head) is not None:
        raise InvalidConfigError(
            "ULE compares input gradients, and those of a linear head on a frozen encoder are its weights, "
            "the same for every example: the method degenerates. Give the head a hidden layer "
            '(AIFSConfig(head="mlp")) or train the encoder (AIFSConfig(encoder_adapter=LoraConfig(...)))'
        )


@register
class ULE(Method):
    """Cross-entropy plus the overlap of the classifier's input gradients with those of a student on the shortcut.

    Example:
        >>> from aifs_peft.methods import make
        >>> make("ule").auxiliary_lr_scale
        10.0
    """

    name: ClassVar[str] = "ule"
    title: ClassVar[str] = "ULE-style"
    paper: ClassVar[str] = (
        "Mitchell et al. 2024, UnLearning from Experience to Avoid Spurious Correlations (Pattern Anal. Appl. 2025)"
    )
    differs: ClassVar[str] = "the losses are a reconstruction, gradients are taken at the latent, the student is linear"
    needs: ClassVar[tuple[str, ...]] = ("an encoder that is trained, or a head with a hidden layer",)
    cost: ClassVar[str] = "a second linear head and a double backward through the head per step; one encoder pass"
    Options: ClassVar[type[Any]] = ULEOptions
    latent_head: ClassVar[Literal["linear", "mlp"]] = "mlp"
    auxiliary: ClassVar[Literal["none", "linear", "mlp"]] = "linear"

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__(settings)
        self._initial: InitialLatents | None = None
        self._change: Tensor | None = None

    @property
    def auxiliary_lr_scale(self) -> float:
        """See `Method.auxiliary_lr_scale`."""
        return float(self.options.student_lr_scale)

    def check(self, setup: Setup) -> None:
        """See `Method.check`; refuses a linear teacher on frozen latents."""
        super().check(setup)
        refuse_one_gradient(setup)

    def prepare(self, context: EpochContext) -> None:
        """See `Method.prepare`: the coordinates of the gradients, and the untuned latents where they are needed."""
        latents = InitialLatents.collect(context)
        self._change = context.on_main(lambda: coordinate_change(latents.z, self.options.coordinates))
        self._initial = latents if context.encoder_trains else None

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`; adds "student" and, after the head start, "unlearning"."""
        assert context.auxiliary is not None  # noqa: S101 - `check` made sure
        terms = super().loss(output, labels, context)
        z = output.z.detach() if self._initial is None else self._initial.rows(context.index, output.z)
        logits, q = context.auxiliary(z).float(), self.options.student_q
        terms["student"] = generalised_cross_entropy(logits, labels, q).mean() if q else F.cross_entropy(logits, labels)
        weight = self.options.weight(context.progress)
        if weight:
            terms["unlearning"] = weight * self._penalty(output.z, z, labels, context)
        return terms

    def _penalty(self, z: Tensor, student_z: Tensor, labels: Tensor, context: StepContext) -> Tensor:
        assert self._change is not None  # noqa: S101 - `prepare` ran
        assert context.auxiliary is not None  # noqa: S101
        student = output_gradient(context.auxiliary, student_z, labels, create_graph=False)
        teacher = output_gradient(context.head, z, labels, create_graph=True)
        change = self._change.to(z.device)
        student, teacher = student @ change.to(student.dtype), teacher @ change.to(teacher.dtype)
        if self.options.penalty == "cosine":
            return cosine_penalty(student, teacher)
        return saliency_penalty(student, teacher, self.options.lambda1)
