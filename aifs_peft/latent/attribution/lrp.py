"""Layer-wise relevance propagation (LRP) through sequential heads, with the epsilon rule.

Source: Bach et al. 2015, "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
Relevance Propagation", equations 58 and 60; activations pass relevance through unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aifs_peft._checks import check_count, check_number
from aifs_peft.errors import HeadError
from aifs_peft.latent._support import Head, check_latents, no_autocast, work_dtype
from aifs_peft.latent.attribution._chunks import Chunk, attribute_in_chunks
from aifs_peft.latent.attribution.targets import Attribution, check_tolerance, class_weight_matrix
from aifs_peft.latent.heads import leaf_layers

# Element-wise and zero at zero: relevance that is on a unit after them was on it before.
_PASS_THROUGH = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Identity, nn.Dropout)


def lrp(
    head: Head,
    z: Tensor,
    *,
    top_k: int | None = 1,
    class_weights: Tensor | str | None = None,
    epsilon: float = 1e-6,
    chunk_size: int = 4096,
    tolerance: float | None = None,
) -> Attribution:
    """Relevance of each latent dimension for the logits of the leading classes, by the epsilon rule.

    Starts with relevance `w_k * logit_k` on the leading classes; a linear layer `a_j = sum_i x_i W_ji + b_j`
    hands `R_i = sum_j x_i W_ji R_j / (a_j + epsilon sign(a_j))` down. Biases keep their share; it is computed
    too, so `completeness_error` measures only what `epsilon` absorbs (and rounding). Unlike the gradient
    methods it explains logits, not log-probabilities, and it needs no autograd.

    Args:
        head: an `nn.Linear`, or an `nn.Sequential` (an `MLPHead`) of linear, ReLU, LeakyReLU, ELU, GELU,
            SiLU, Tanh, Dropout and Identity layers, nested or not; dropout is inactive here.
        z: latents `(batch, dim)`.
        top_k: number of leading classes, None for all.
        class_weights: as in `class_weight_matrix`.
        epsilon: stabiliser, above 0, in units of a pre-activation; larger values suppress weak evidence.
        chunk_size: examples processed at once, halved when memory runs out; the result does not depend on it.
        tolerance: the largest completeness error to accept, None for any.

    Returns:
        The attribution; scores `(batch, dim)` in units of a logit.

    Raises:
        HeadError: when the head holds another kind of layer, a forward hook, or cannot be taken apart.
        InvalidInputError: when a shape or `tolerance` does not fit.
        InvalidConfigError: when `epsilon`, `top_k` or `chunk_size` is not valid.
        NonFiniteError: when a relevance is NaN or infinite.
        CompletenessError: when the completeness error is above `tolerance`.

    Example:
        >>> import torch
        >>> head = torch.nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
        >>> lrp(head, torch.tensor([[3.0, 1.0]])).scores
        tensor([[3.0000, 2.0000]])
    """
    check_latents(z)
    check_tolerance(tolerance)
    check_count("chunk_size", chunk_size)
    epsilon = check_number("epsilon", epsilon, 0.0, above=True)
    layers = _layers(head)
    dtype = work_dtype(z)

    def work(rows: slice, _: int) -> Chunk:
        return Chunk(*_propagate(layers, z[rows].detach().to(dtype), top_k, class_weights, epsilon))

    with torch.no_grad(), no_autocast(z.device):
        return attribute_in_chunks(z, chunk_size, work, tolerance)


def _layers(head: Head) -> list[nn.Module]:
    """The head's layers in order, each of a kind that LRP has a rule for."""
    layers = leaf_layers(head)
    if layers is None:
        raise HeadError(
            "lrp needs a head that it can take apart, an nn.Linear or an nn.Sequential without forward "
            f"hooks, got {type(head).__name__}; use method='ig' for any other head"
        )
    for layer in layers:
        if type(layer) is not nn.Linear and not isinstance(layer, _PASS_THROUGH):
            names = ", ".join(kind.__name__ for kind in _PASS_THROUGH)
            raise HeadError(
                f"lrp has no rule for a {type(layer).__name__} layer; it knows Linear, {names}. "
                "Use method='ig' for this head"
            )
    return layers


def _propagate(
    layers: list[nn.Module],
    x: Tensor,
    top_k: int | None,
    class_weights: Tensor | str | None,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Relevance `(batch, dim)`, the quantity explained `(batch,)` and the biases' share of it `(batch,)`."""
    inputs: list[Tensor] = []
    for layer in layers:
        inputs.append(x)
        if isinstance(layer, nn.Linear):
            bias = None if layer.bias is None else layer.bias.to(x.dtype)
            x = F.linear(x, layer.weight.to(x.dtype), bias)
        elif not isinstance(layer, nn.Dropout):
            x = layer(x)
    relevance = class_weight_matrix(x, top_k, class_weights) * x
    total, absorbed = relevance.sum(dim=1), torch.zeros_like(x[:, 0])
    for layer, before in zip(reversed(layers), reversed(inputs), strict=True):
        if not isinstance(layer, nn.Linear):
            continue
        weight = layer.weight.to(x.dtype)
        bias = torch.zeros_like(weight[:, 0]) if layer.bias is None else layer.bias.to(x.dtype)
        output = F.linear(before, weight, bias)
        # sign(0) is 0: a unit without activation has no relevance to hand down, but must not divide by zero.
        stabiliser = torch.full_like(output, epsilon)
        share = relevance / (output + torch.where(output < 0, -stabiliser, stabiliser))
        absorbed = absorbed + (share * bias).sum(dim=1)
        relevance = before * (share @ weight)
    return relevance, total, absorbed
