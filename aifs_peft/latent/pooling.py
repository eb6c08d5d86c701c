"""From what a base model feeds its head to one latent per example."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aifs_peft.errors import HeadError


def pool_latent(x: Tensor, pool: str = "auto") -> Tensor:
    """The latent `z (batch, dim)` in what a model feeds its head.

    Args:
        x: `(batch, dim)`, `(batch, tokens, dim)` or `(batch, channels, height, width)`.
        pool: `"auto"` (2-D as it is, first token of 3-D, spatial mean of 4-D), `"cls"`, `"mean"` or `"last"`.

    Returns:
        `(batch, dim)` (channels for 4-D).

    Raises:
        HeadError: for another number of axes.

    Example:
        >>> import torch
        >>> pool_latent(torch.arange(6.0).reshape(1, 2, 3), "mean")
        tensor([[1.5000, 2.5000, 3.5000]])
    """
    if x.dim() == 2:
        return x
    if x.dim() == 4:
        return x.flatten(2).mean(-1)
    if x.dim() != 3:
        raise HeadError(f"the head was fed shape {tuple(x.shape)}; a latent needs 2, 3 or 4 axes, batch first.")
    if pool == "mean":
        return x.mean(1)
    return x[:, -1] if pool == "last" else x[:, 0]


def mean_of_positions(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean over tokens or pixels of what a block inside an encoder gives, in float32 at least.

    Args:
        x: `(batch, dim)`, `(batch, tokens, dim)` or `(batch, channels, height, width)`.
        mask: `(batch, tokens)`, 1 for real tokens; read where `x` has as many tokens.

    Returns:
        `(batch, dim)` (channels for 4-D).

    Raises:
        HeadError: for another number of axes.

    Example:
        >>> import torch
        >>> x = torch.arange(6.0).reshape(1, 2, 3)
        >>> mean_of_positions(x).tolist(), mean_of_positions(x, torch.tensor([[0, 1]])).tolist()
        ([[1.5, 2.5, 3.5]], [[3.0, 4.0, 5.0]])
    """
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if x.dim() != 3 or mask is None or mask.shape != x.shape[:2]:
        return pool_latent(x, "mean")
    weights = (mask > 0).to(x.dtype).unsqueeze(-1)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1.0)


class PooledHead(nn.Module):
    """A head with its pooling, put into the base model by a merge when the base does not pool by itself.

    Args:
        head: `(batch, dim)` to `(batch, classes)`.
        pool: see `pool_latent`.
    """

    def __init__(self, head: nn.Module, pool: str) -> None:
        super().__init__()
        self.head, self.pool = head, pool

    def forward(self, x: Tensor) -> Tensor:
        """Logits of whatever the base model feeds its head."""
        logits: Tensor = self.head(pool_latent(x, self.pool))
        return logits
