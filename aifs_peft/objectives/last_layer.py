"""The last linear layer of a head, and the features that enter it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from aifs_peft.errors import HeadError
from aifs_peft.latent._support import evaluating, run_head
from aifs_peft.tuner.heads import linear_layers


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
