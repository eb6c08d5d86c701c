"""The last layer, for methods that retrain it alone after training: only linear heads have one and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent.heads import linear_parameters


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
