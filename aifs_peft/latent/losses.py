"""The loss terms on latents and logits: invariance and sensitivity.

The published objective is `L = L_ce + alpha L_inv + beta L_sens` with `L_inv = mean_b KL(C(z_b) || C(z'_b))` and
`L_sens = sign sum_j m_j mean_b |d log p(y_b|z_b) / d z_bj|`, `sign = -1`.

All are computed in float32 (float64 for float64 inputs) with autocast off.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_choice
from aifs_peft.errors import HeadError, InvalidConfigError
from aifs_peft.latent._support import (
    Head,
    check_indices,
    check_latents,
    check_shape,
    evaluating,
    no_autocast,
    run_head,
    work_dtype,
)
from aifs_peft.latent.heads import linear_parameters
from aifs_peft.latent.intervention import check_basis


def invariance_loss(clean_logits: Tensor, intervened_logits: Tensor, reduction: str = "mean") -> Tensor:
    """Divergence of the prediction after the intervention from the one before: `KL(C(z) || C(z'))`, in nats.

    Gradients flow through both arguments, as published; detach `clean_logits` to hold the clean prediction
    fixed.

    Args:
        clean_logits: `C(z)`, `(batch, classes)`.
        intervened_logits: `C(z')`, `(batch, classes)`.
        reduction: "mean" or "sum" over the batch, or "none".

    Returns:
        A scalar, or `(batch,)` for "none"; at least 0 up to rounding, 0 for equal logits.

    Raises:
        InvalidInputError: when the logits are not two floating-point matrices of one shape.
        InvalidConfigError: when `reduction` is unknown.

    Example:
        >>> import torch
        >>> invariance_loss(torch.tensor([[0.0, 0.0]]), torch.log(torch.tensor([[0.25, 0.75]])))
        tensor(0.1438)
    """
    check_choice("reduction", reduction, ("mean", "sum", "none"))
    check_latents(clean_logits, "clean_logits")
    check_latents(intervened_logits, "intervened_logits")
    check_shape(intervened_logits, tuple(clean_logits.shape), "intervened_logits", "as clean_logits")
    dtype = work_dtype(clean_logits, intervened_logits)
    with no_autocast(clean_logits.device):
        clean = F.log_softmax(clean_logits.to(dtype), dim=1)
        moved = F.log_softmax(intervened_logits.to(dtype), dim=1)
        divergence = (clean.exp() * (clean - moved)).sum(dim=1)
    if reduction == "none":
        return divergence
    return divergence.mean() if reduction == "mean" else divergence.sum()


def sensitivity_loss(gradients: Tensor, mask: Tensor, sign: int = 1, *, basis: Tensor | None = None) -> Tensor:
    """How much the label's log-probability depends on the masked dimensions: `sign sum_j m_j mean_b |g_bj|`.

    `sign = -1` is the published formula, which *rewards* reliance on high-mask dimensions when minimised;
    `sign = +1` is the published text ("penalises"). With a basis the gradients are taken along its columns.

    Args:
        gradients: `d log p(y_b|z_b) / d z_bj`, `(batch, dim)`, from `label_log_prob_gradient`.
        mask: `(dim,)`, or `(r,)` with a basis.
        sign: -1 or +1.
        basis: `(dim, r)`, columns the directions whose influence counts; None for the coordinates of `z`.

    Returns:
        A scalar of the sign of `sign`, for a mask without negative entries.

    Raises:
        InvalidInputError: when a shape does not fit.
        InvalidConfigError: when `sign` is neither -1 nor +1.

    Example:
        >>> import torch
        >>> gradients = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
        >>> sensitivity_loss(gradients, torch.tensor([1.0, 0.5]), sign=+1)
        tensor(2.5000)
    """
    if sign not in (-1, 1):
        raise InvalidConfigError(f"sign must be -1 (the published formula) or +1 (penalise reliance), got {sign!r}")
    check_latents(gradients, "gradients")
    check_shape(mask, (check_basis(gradients, basis),), "mask", "one weight per gradient dimension")
    dtype = work_dtype(gradients)
    with no_autocast(gradients.device):
        slopes = gradients.to(dtype)
        if basis is not None:
            slopes = slopes @ basis.to(slopes.device, dtype)
        # A fresh copy: a mask buffer refreshed in place between forward and backward must not break the
        # graph.
        weights = mask.to(slopes.device, dtype, copy=True)
        return sign * (weights * slopes.abs().mean(dim=0)).sum()


def label_log_prob_gradient(head: Head, z: Tensor, y: Tensor, *, create_graph: bool = True) -> Tensor:
    """The gradient of each example's log-probability of its label with respect to its latent.

    For a linear head (`linear_parameters`) the closed form `W_y - sum_k p(k|z) W_k`; otherwise autograd
    through the head alone, so a double backward never reaches the encoder. The head is in evaluation mode
    meanwhile: dropout neither disturbs the gradient nor consumes random numbers; modes are restored and no
    parameter gradient is left.

    Args:
        head: callable, latents `(batch, dim)` to logits `(batch, classes)`, examples independent.
        z: latents `(batch, dim)`; with a graph or without (a frozen encoder).
        y: labels, integers `(batch,)` in `[0, classes)`.
        create_graph: keep the graph, to train through the result: gradients then reach the head's parameters
            and, when `z` has a graph, the encoder. No graph is kept where gradients are switched off.

    Returns:
        Gradients `(batch, dim)`, float32 (float64 for float64 latents).

    Raises:
        InvalidInputError: when a shape does not fit or a label is out of range.
        HeadError: when the head does not return one row of logits per example, or detaches them from `z`.

    Example:
        >>> import torch
        >>> head = torch.nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> label_log_prob_gradient(head, torch.zeros(1, 2), torch.tensor([0]), create_graph=False)
        tensor([[ 0.5000, -0.5000]])
    """
    check_latents(z)
    keep = create_graph and torch.is_grad_enabled()
    parameters = linear_parameters(head)
    if parameters is not None:
        with torch.set_grad_enabled(keep), no_autocast(z.device):
            return _linear_gradient(*parameters, z, y)
    # The backward pass, too, would run in half precision under autocast.
    with torch.inference_mode(False), torch.enable_grad(), no_autocast(z.device), evaluating(head):
        point = z.clone() if z.is_inference() else z
        point = point.to(work_dtype(z))
        if not (keep and point.requires_grad):
            point = point.detach().requires_grad_(True)
        log_prob = F.log_softmax(run_head(head, point), dim=1)
        check_indices(y, z.shape[0], log_prob.shape[1], "y")
        total = log_prob.gather(1, y.to(z.device, torch.int64).unsqueeze(1)).sum()
        if not total.requires_grad:
            raise HeadError("the head's logits do not depend on z through autograd; remove detach() or no_grad from it")
        (gradient,) = torch.autograd.grad(total, point, create_graph=keep, materialize_grads=True)
    return gradient


def _linear_gradient(weight: Tensor, bias: Tensor | None, z: Tensor, y: Tensor) -> Tensor:
    """`W_y - softmax(z W^T + b) W` `(batch, dim)`."""
    check_shape(weight, (weight.shape[0], z.shape[1]), "weight", "classes by latent dimensions")
    check_indices(y, z.shape[0], weight.shape[0], "y")
    dtype = work_dtype(z, weight)
    rows = weight.to(dtype)
    logits = F.linear(z.to(dtype), rows, None if bias is None else bias.to(dtype))
    onehot = F.one_hot(y.to(z.device, torch.int64), weight.shape[0]).to(dtype)
    return (onehot - logits.softmax(dim=1)) @ rows
