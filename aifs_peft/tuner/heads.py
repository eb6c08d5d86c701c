"""Heads that AIFS trains: a copy of the base model's head, a fresh linear layer, or a small MLP.

Every head here maps latents `z (batch, dim)` to logits `(batch, classes)`; blocks that were written for whole
sequences (RoBERTa's) are wrapped so that they do, too.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aifs_peft.errors import HeadError
from aifs_peft.latent._support import evaluating
from aifs_peft.latent.heads import MLPHead, head_sizes, linear_layers


@dataclass(frozen=True)
class HeadSpec:
    """How one adapter reads its latent.

    Attributes:
        pool: rule by which it is pooled, see `pool_latent`.
        copied: whether its head is a copy of the base model's.
        sequence: whether its head wants a token axis.
        num_labels: number of classes.
    """

    pool: str
    copied: bool
    sequence: bool
    num_labels: int


def is_quantised(head: nn.Module) -> bool:
    """Whether any weight of the head is stored as integers (bitsandbytes, GPTQ)."""
    return any(not p.is_floating_point() for p in head.parameters())


def takes_sequence(head: nn.Module) -> bool:
    """Whether a block head pools by itself: `(batch, tokens, dim)` in, `(batch, classes)` out, as RoBERTa's does.

    Tried out on one token of zeros, in eval mode, so nothing is drawn or trained.
    """
    if isinstance(head, nn.Linear | nn.Sequential):
        return False
    weight = linear_layers(head)[0][1].weight
    token = torch.zeros(1, 1, head_sizes(head)[0], dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad(), evaluating(head):
            out = head(token)
    except (RuntimeError, ValueError, IndexError):  # a head that normalises over the batch takes no token axis
        return False
    return isinstance(out, Tensor) and out.dim() == 2


def _replace_last_linear(head: nn.Module, num_labels: int) -> nn.Module:
    """The head with a fresh last layer of `num_labels` outputs."""
    name, last = linear_layers(head)[-1]
    fresh = nn.Linear(last.in_features, num_labels, bias=last.bias is not None, device=last.weight.device)
    if not name:
        return fresh
    parent, _, child = name.rpartition(".")
    setattr(head.get_submodule(parent), child, fresh)
    return head


def build_head(
    base: nn.Module, kind: str, num_labels: int, hidden: int | None = None, dim: int | None = None
) -> nn.Module:
    """The trainable head for one adapter, in float32 where the base model is in half precision.

    Devices are passed to the constructors, not moved to afterwards: under PEFT's `low_cpu_mem_usage` new parameters
    are on the meta device until the checkpoint is loaded, and meta tensors cannot be moved.

    Args:
        base: the base model's head.
        kind: `"copy"` (structure and weights of `base`; a last layer with another number of classes starts
            fresh; a quantised linear layer becomes a fresh one in full precision), `"linear"` or `"mlp"`.
        num_labels: number of classes.
        hidden: width of the hidden layer of `"mlp"`; None takes the latent's width.
        dim: width of the latent, which a copy cannot change; None takes that of `base`.

    Returns:
        A module, on the device of `base`.

    Raises:
        HeadError: for a copy of a quantised block, whose inner layers cannot be copied in full precision.

    Example:
        >>> build_head(nn.Linear(4, 3), "copy", num_labels=2)
        Linear(in_features=4, out_features=2, bias=True)
    """
    width, classes = head_sizes(base)
    dim = dim or width
    device = next(base.parameters()).device
    if kind == "linear":
        return nn.Linear(dim, num_labels, device=device)
    if kind == "mlp":
        # Tanh: under ReLU the gradient that the sensitivity loss differentiates would be piecewise constant.
        return MLPHead(dim, num_labels, (hidden or dim,), "tanh").to(device)
    if is_quantised(base):
        if not isinstance(base, nn.Linear):
            raise HeadError(
                f"the head is a quantised {type(base).__name__}, which cannot be copied for training; use "
                'AIFSConfig(head="linear" or "mlp"), or keep the head out of the quantisation '
                "(BitsAndBytesConfig(llm_int8_skip_modules=[...]))."
            )
        return nn.Linear(dim, num_labels, bias=base.bias is not None, device=device)
    head = copy.deepcopy(base)
    if classes != num_labels:
        head = _replace_last_linear(head, num_labels)
    for parameter in head.parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
    return head.requires_grad_(requires_grad=True)
