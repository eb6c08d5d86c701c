"""RSC (representation self-challenging): training without the latent dimensions a prediction relies on most.

Paper: Huang, Wang, Xing and Huang 2020, Self-Challenging Improves Cross-Domain Generalization (ECCV), arXiv 2007.02454.

Formula, per batch: `g = d C(z)_y / dz`, the gradient of the true class's logit; `z'` is `z` with its `p d` dimensions
of largest `g` set to 0. Only the share `b` of the batch with the largest fall of confidence, `p_y(z) - p_y(z')`, is
muted, the rest keeps `z`; the loss is the cross-entropy of `C` on that mixture, and the clean logits get no loss.

Supervision: labels only.

Differs from the paper: entries of the pooled latent are muted, not channels or positions of a feature map. DomainBed's
implementation does the same. Exactly `max(1, round(p d))` entries are muted rather than all above a percentile;
gradients are taken with the head in evaluation mode; with several processes the share `b` is of the whole batch.

Cannot: remove a shortcut that is spread over many dimensions (it is thinned); tell a shortcut from the real signal,
whose dimensions are muted as readily once they dominate. A muted entry is 0, which means "absent" only for latents that
are centred or come out of a ReLU. With a linear head `g` is the class's weight vector, the same for all its examples.

Extra cost: a gradient of the head and two more passes of the head per step.

Defaults: `feature_share = batch_share = 1/3`, as in DomainBed, which draws both from U(0, 0.5) when they are tuned.

Measured: on planted Gaussians the default share lowered worst-group accuracy (0.62 to 0.47); a share that mutes one
coordinate in sixteen evened out the weights and left it unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_number
from aifs_peft.latent._support import Head, evaluating, no_autocast, run_head
from aifs_peft.latent.output import Intervention, LatentOutput
from aifs_peft.methods.base import Method
from aifs_peft.methods.context import StepContext
from aifs_peft.methods.registry import register


@dataclass(frozen=True)
class RSCOptions:
    """Numbers of RSC.

    Args:
        feature_share: share `p` of the latent dimensions that is muted, in (0, 0.9].
        batch_share: share `b` of the batch in which they are muted, in (0, 1].

    Raises:
        InvalidConfigError: for a share out of range.
    """

    feature_share: float = 1 / 3
    batch_share: float = 1 / 3

    def __post_init__(self) -> None:
        check_number("feature_share", self.feature_share, 0.0, 0.9, above=True)
        check_number("batch_share", self.batch_share, 0.0, 1.0, above=True)


def dominant_features(head: Head, z: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The latent dimensions with the largest gradient of the true class's logit, and what muting them costs.

    Args:
        head: latents `(batch, dim)` to logits; in evaluation mode meanwhile.
        z: `(batch, dim)`.
        labels: `(batch,)` int64.
        share: of the dimensions, in (0, 1].

    Returns:
        A mask `(batch, dim)` bool with `max(1, round(share * dim))` true entries per row, and the fall of the true
        class's probability `(batch,)` when these are set to 0; both without a graph.

    Example:
        >>> head = torch.nn.Linear(3, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, -3.0]]))
        >>> mask, fall = dominant_features(head, torch.ones(1, 3), torch.tensor([1]), 1 / 3)
        >>> mask.tolist(), bool(fall > 0)
        ([[True, False, False]], True)
    """
    muted = max(1, round(share * z.shape[1]))
    with torch.enable_grad(), no_autocast(z.device), evaluating(head):
        point = z.detach().requires_grad_()
        logits = run_head(head, point)
        (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), point)
    mask = torch.zeros_like(gradient, dtype=torch.bool).scatter_(1, gradient.topk(muted, dim=1).indices, value=True)
    with torch.no_grad(), evaluating(head):
        after = run_head(head, z.detach() * ~mask)
        confidence = [x.softmax(1).gather(1, labels[:, None]).squeeze(1) for x in (logits, after)]
    return mask, confidence[0] - confidence[1]


@register
class RSC(Method):
    """Cross-entropy on latents whose dominant dimensions are muted in part of the batch.

    Example:
        >>> from aifs_peft.methods import make
        >>> round(make("rsc").options.feature_share, 3)
        0.333
    """

    name: ClassVar[str] = "rsc"
    title: ClassVar[str] = "RSC"
    paper: ClassVar[str] = "Huang et al. 2020, Self-Challenging Improves Cross-Domain Generalization (ECCV)"
    differs: ClassVar[str] = "entries of the pooled latent are muted, not channels or positions of a feature map"
    cost: ClassVar[str] = "a gradient of the head and two more head passes per step"
    Options: ClassVar[type[Any]] = RSCOptions

    def intervention(self, context: StepContext) -> Intervention | None:
        """See `Method.intervention`: mutes each example's dominant dimensions where that hurts most."""

        def apply(z: Tensor) -> Tensor:
            mask, fall = dominant_features(context.head, z, context.labels, self.options.feature_share)
            gathered = context.gather(fall)
            chosen = max(1, round(self.options.batch_share * len(gathered)))
            challenged = fall >= gathered.topk(chosen).values[-1]
            return z * ~(mask & challenged[:, None])

        return apply

    def loss(self, output: LatentOutput, labels: Tensor, context: StepContext) -> dict[str, Tensor]:
        """See `Method.loss`: the cross-entropy of the challenged latents alone."""
        del context
        assert output.intervened_logits is not None  # noqa: S101 - `intervention` is never None
        logits = output.intervened_logits.float()
        return {"cross_entropy": F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)}
