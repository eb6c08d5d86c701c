"""A reference head: a linear classifier trained for a few epochs on stored latents, outside the training itself.

Methods look at its mistakes or its confidence to guess which examples conflict with a shortcut, so it is meant to be
weak: few epochs, no tuning. Everything here is a function of its arguments; no global generator is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aifs_peft._checks import check_count, check_number
from aifs_peft.errors import NonFiniteError

# A dimension whose standard deviation is below this share of the largest one is noise of the float format.
_RELATIVE_SCALE_TOLERANCE = 1e-6


def train_reference(
    z: Tensor,
    y: Tensor,
    num_labels: int,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    weight_decay: float = 0.0,
    seed: int = 0,
    at_shares: bool = False,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> nn.Linear:
    """Train a linear head from zero by minibatch Adam on standardised latents.

    The latents are centred and scaled to unit variance by dimension, so that a learning rate means the same for every
    encoder; the scales are folded into the head, which works on latents as they are given.

    Args:
        z: latents `(n, dim)`, finite.
        y: labels `(n,)` int64 in `[0, num_labels)`.
        num_labels: number of classes, K.
        epochs: passes over the data, at least 1.
        learning_rate: of Adam, above 0.
        batch_size: at least 1.
        weight_decay: L2 penalty of Adam on the weights, at least 0.
        seed: of the order of the examples; the weights start at zero.
        at_shares: the bias starts at the log shares of the classes, where one is 1.5 times as frequent as another or
            more, and not at zero: a few hundred steps of Adam are too few for it to get there, and nearly all mistakes
            are then examples of the frequent class.
        loss: logits `(batch, K)` and labels `(batch,)` to a scalar.

    Returns:
        A frozen `nn.Linear(dim, K)` in float32, on the device of `z`.

    Raises:
        InvalidConfigError: for a number out of its range.
        NonFiniteError: if the weights are not finite in the end.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y = torch.arange(200) % 2
        >>> z = torch.randn(200, 3, generator=generator); z[:, 0] += 4 * y
        >>> head = train_reference(z, y, 2, epochs=20, learning_rate=0.01)
        >>> bool((head(z).argmax(1) == y).float().mean() > 0.9)
        True
    """
    check_count("epochs", epochs, 1)
    check_number("learning_rate", learning_rate, 0.0, above=True)
    check_count("batch_size", batch_size, 1)
    check_number("weight_decay", weight_decay, 0.0)
    z, y = z.detach().float(), y.detach()
    centre, scale = _standardisation(z)
    head: nn.Linear = nn.utils.skip_init(nn.Linear, z.shape[1], num_labels, device=z.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    if at_shares:
        with torch.no_grad():
            head.bias.copy_(_log_shares(y, num_labels))
    groups: list[dict[str, Any]] = [{"params": [head.weight], "weight_decay": weight_decay}, {"params": [head.bias]}]
    optimizer = torch.optim.Adam(groups, lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.randperm(len(z), generator=generator).split(batch_size):
                batch = rows.to(z.device)
                value = loss(head((z[batch] - centre) / scale), y[batch])
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
    with torch.no_grad():
        head.weight.div_(scale)
        head.bias.sub_(head.weight @ centre)
    if not bool(head.weight.isfinite().all() and head.bias.isfinite().all()):
        raise NonFiniteError(
            f"the reference head is not finite after {epochs} epochs; lower its learning rate ({learning_rate}), and "
            "check the latents"
        )
    return head.requires_grad_(requires_grad=False).eval()


def _log_shares(y: Tensor, num_labels: int) -> Tensor:
    """Log share of each class relative to equal ones, `(K,)`, one example added to each; 0 for classes alike."""
    from aifs_peft.discovery.config import DEFAULT_CONFIG

    counts = torch.bincount(y, minlength=num_labels).double() + 1.0
    if counts.max() < DEFAULT_CONFIG.inputs.unequal * counts.min():
        return torch.zeros_like(counts)
    return (counts * num_labels / counts.sum()).log()


def _standardisation(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each dimension; a constant one is left at its scale."""
    centre = z.mean(0)
    scale = z.std(0, correction=0)
    return centre, torch.where(scale > _RELATIVE_SCALE_TOLERANCE * scale.max().clamp_min(1e-30), scale, 1.0)
