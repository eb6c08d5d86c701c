"""The last linear layer of a head: found, read, refused where it is not alone, written."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import HeadError, InvalidConfigError
from aifs_peft.latent._support import evaluating, run_head
from aifs_peft.latent.heads import linear_layers, linear_parameters


def last_linear(head: object) -> nn.Linear:
    """The last linear layer of a head in the order of definition.

    Args:
        head: a linear layer, or a block that ends with one.

    Returns:
        The layer itself.

    Raises:
        HeadError: if there is none.

    Example:
        >>> last_linear(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))).in_features
        8
    """
    layers = linear_layers(head) if isinstance(head, nn.Module) else []
    if not layers:
        raise HeadError(
            f"the head is a {type(head).__name__} without a linear layer, and this method works on the features that "
            'enter the last one; build the adapter with AIFSConfig(head="linear" or "mlp")'
        )
    return layers[-1][1]


def last_features(head: object, z: Tensor) -> Tensor:
    """What enters the last linear layer of a head: the latents themselves where the head is that layer.

    The head is in evaluation mode meanwhile, so its dropout neither disturbs the features nor draws random numbers.

    Args:
        head: latents `(batch, dim)` to logits.
        z: `(batch, dim)`, with a graph or without.

    Returns:
        `(batch, width)` with its graph, float32 or wider.

    Raises:
        HeadError: if the head has no linear layer, or feeds the last one something else than one row per example.

    Example:
        >>> import torch
        >>> head = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> last_features(head, torch.zeros(5, 4)).shape
        torch.Size([5, 8])
    """
    layer = last_linear(head)
    if layer is head:
        return z
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        del module
        seen.append(args[0])

    handle = layer.register_forward_pre_hook(note)
    try:
        with evaluating(head):
            run_head(head, z)  # type: ignore[arg-type]  # last_linear made sure that it is a module
    finally:
        handle.remove()
    if len(seen) != 1 or seen[0].dim() != 2 or len(seen[0]) != len(z):
        shapes = [tuple(features.shape) for features in seen]
        raise HeadError(
            f"the last linear layer of this {type(head).__name__} is fed {shapes} for {len(z)} examples; one row per "
            'example, once, is needed: build the adapter with AIFSConfig(head="linear" or "mlp")'
        )
    return seen[0]


@torch.no_grad()
def embed_all(head: nn.Module, z: Tensor, device: torch.device, chunk: int = 4096) -> Tensor:
    """`last_features` of many latents without a graph, `(n, width)` float32 on the CPU.

    Args:
        head: latents to logits.
        z: `(n, dim)`.
        device: where the head lives.
        chunk: latents at a time.

    Returns:
        `(n, width)`.

    Example:
        >>> import torch
        >>> head = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> embed_all(head, torch.zeros(5, 4), torch.device("cpu"), chunk=2).shape
        torch.Size([5, 8])
    """
    return torch.cat([last_features(head, part.to(device)).float().cpu() for part in z.split(chunk)])


def require_linear(head: nn.Module, method: str) -> tuple[Tensor, Tensor | None]:
    """The parameters of a linear head, or a refusal.

    Args:
        head: latents to logits.
        method: who asks, for the message.

    Returns:
        Weight `(K, d)` and bias `(K,)` or None, the parameters themselves.

    Raises:
        InvalidConfigError: if the head is not linear.

    Example:
        >>> weight, bias = require_linear(nn.Linear(3, 2, bias=False), "dfr-oracle")
        >>> weight.shape, bias
        (torch.Size([2, 3]), None)
    """
    found = linear_parameters(head)
    if found is None:
        raise InvalidConfigError(
            f"method {method!r} retrains the last layer on latents and needs a linear head, got {type(head).__name__}; "
            'build the adapter with AIFSConfig(head="linear"), or a model whose classifier is one nn.Linear'
        )
    return found


@torch.no_grad()
def set_linear(head: nn.Module, weight: Tensor, bias: Tensor, method: str) -> None:
    """Write new values into a linear head, in its own precision and device.

    Args:
        head: changed in place.
        weight: `(K, d)`.
        bias: `(K,)`; left out where the head has none, so it must be zero then.
        method: who asks, for the message.

    Raises:
        InvalidConfigError: if the head is not linear.

    Example:
        >>> head = nn.Linear(2, 2)
        >>> set_linear(head, torch.eye(2), torch.zeros(2), "afr")
        >>> head(torch.tensor([[1.0, 2.0]])).tolist()
        [[1.0, 2.0]]
    """
    old_weight, old_bias = require_linear(head, method)
    old_weight.copy_(weight)
    if old_bias is not None:
        old_bias.copy_(bias)
