"""What a head's last linear layer reads: the embedding in which classes can be told apart by their centroids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft.errors import HeadError
from aifs_peft.tuner.heads import linear_layers


def last_linear(head: nn.Module) -> nn.Linear:
    """The linear layer that gives the logits.

    Raises:
        HeadError: if the head has none.

    Example:
        >>> last_linear(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))).in_features
        8
    """
    layers = linear_layers(head)
    if not layers:
        raise HeadError(f"a {type(head).__name__} has no linear layer; use a linear head or one that ends with one")
    return layers[-1][1]


def embed(head: nn.Module, z: Tensor) -> Tensor:
    """Input of the head's last linear layer, with its graph: `z` itself for a linear head.

    Args:
        head: latents to logits.
        z: `(batch, dim)`.

    Returns:
        `(batch, width)`.

    Example:
        >>> z = torch.zeros(5, 3)
        >>> embed(nn.Linear(3, 2), z) is z, embed(nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)), z).shape
        (True, torch.Size([5, 8]))
    """
    last = last_linear(head)
    if last is head:
        return z
    seen: list[Tensor] = []

    def note(_module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0])

    handle = last.register_forward_pre_hook(note)
    try:
        head(z)
    finally:
        handle.remove()
    return seen[-1].flatten(1)


@torch.no_grad()
def embed_all(head: nn.Module, z: Tensor, device: torch.device, chunk: int = 4096) -> Tensor:
    """Embeddings of many latents in evaluation mode, `(n, width)` float32 on the CPU.

    Args:
        head: latents to logits; its modes are put back.
        z: `(n, dim)`.
        device: where the head lives.
        chunk: latents at a time.
    """
    with evaluating(head):
        return torch.cat([embed(head, part.to(device)).float().cpu() for part in z.split(chunk)])


@contextmanager
def evaluating(head: nn.Module) -> Iterator[None]:
    """Run a block with a head in evaluation mode, then put the mode of each of its modules back.

    Example:
        >>> head = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))
        >>> with evaluating(head):
        ...     head.training, head[0].training
        (False, False)
        >>> head[0].training
        True
    """
    modes = {module: module.training for module in head.modules()}
    head.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
