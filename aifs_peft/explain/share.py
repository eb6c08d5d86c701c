"""How much of a decision runs along the spurious directions, and how much along everything else.

The decision is the lead of the predicted class over the runner-up, in logits, and how far it is from that of a latent
in the middle between the classes. By Integrated Gradients it is the sum of two parts, the one along the directions and
the rest; for a linear head both are exact and need no path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aifs_peft.latent._support import Head, check_latents, check_shape, evaluating, run_head
from aifs_peft.latent.heads import linear_parameters

STEPS = 32


@dataclass(frozen=True)
class Split:
    """The lead of the predicted class over the runner-up, in two parts.

    Attributes:
        along: the part along the spurious directions, `(n,)`, in logits.
        rest: the part along everything else, `(n,)`.
    """

    along: Tensor
    rest: Tensor


def shares(along: Any, rest: Any) -> NDArray[np.float64]:
    """`|along| / (|along| + |rest|)`, in [0, 1]; 0 where neither part moves the decision.

    Args:
        along: parts along the directions, `(n,)`.
        rest: the other parts, `(n,)`.

    Example:
        >>> shares([3.0, 0.0], [-1.0, 0.0]).tolist()
        [0.75, 0.0]
    """
    parts = np.abs(np.asarray(along, dtype=np.float64)), np.abs(np.asarray(rest, dtype=np.float64))
    out = np.zeros_like(parts[0])
    np.divide(parts[0], parts[0] + parts[1], out=out, where=parts[0] + parts[1] > 0)
    return out


def split_decision(head: Head, z: Tensor, centre: Tensor, basis: Tensor, steps: int = STEPS) -> Split:
    """Split each decision into the part along some directions and the rest.

    Args:
        head: latents `(batch, dim)` to logits `(batch, classes)`, at least two.
        z: latents, `(n, dim)`.
        centre: where decisions are counted from, `(dim,)`.
        basis: orthonormal directions, `(dim, r)`.
        steps: points on the path from the centre to the latent, for a head that is not linear.

    Returns:
        The two parts; they add up to the lead at `z` less the lead at `centre`.

    Raises:
        InvalidInputError: when a shape does not fit.

    Example:
        >>> head = torch.nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 1.0]]))
        >>> split = split_decision(head, torch.ones(1, 2), torch.zeros(2), torch.tensor([[1.0], [0.0]]))
        >>> split.along.tolist(), split.rest.tolist()
        ([3.0], [1.0])
    """
    check_latents(z)
    check_shape(centre, (z.shape[1],), "centre", "one latent")
    check_shape(basis, (z.shape[1], basis.shape[1] if basis.ndim == 2 else 0), "basis", "one direction per column")
    linear = linear_parameters(head)
    with torch.no_grad(), evaluating(head):
        leading = run_head(head, z).topk(2, dim=1).indices
    move = z - centre.to(z.device, z.dtype)
    if linear is not None:
        weight = linear[0].detach().to(z.device, z.dtype)
        slope = weight[leading[:, 0]] - weight[leading[:, 1]]
    else:
        slope = _mean_slope(head, z, z - move, leading, steps)
    basis = basis.to(z.device, z.dtype)
    along = ((slope @ basis) * (move @ basis)).sum(dim=1)
    return Split(along, (slope * move).sum(dim=1) - along)


def mean_share(head: Head, z: Tensor, centre: Tensor, basis: Tensor) -> float:
    """What the directions contribute to all decisions together: `sum |along| / sum (|along| + |rest|)`.

    Args:
        head: see `split_decision`.
        z: latents, `(n, dim)`.
        centre: `(dim,)`.
        basis: `(dim, r)`.

    Example:
        >>> mean_share(torch.nn.Linear(2, 2), torch.randn(8, 2), torch.zeros(2), torch.eye(2))
        1.0
    """
    split = split_decision(head, z, centre, basis)
    along, rest = float(split.along.abs().sum()), float(split.rest.abs().sum())
    # What is left of the rest where the directions are all there are is rounding.
    return round(along / (along + rest), 6) if along + rest > 0 else 0.0


def _mean_slope(head: Head, z: Tensor, start: Tensor, leading: Tensor, steps: int) -> Tensor:
    """The lead's gradient, averaged over the path from `start` to `z`, `(n, dim)`, by captum."""
    from captum.attr import IntegratedGradients  # captum imports matplotlib: only when it is used

    def lead(points: Tensor, classes: Tensor) -> Tensor:
        logits = run_head(head, points)
        of = logits.gather(1, classes)
        return of[:, 0] - of[:, 1]

    with evaluating(head):
        slope: Tensor = IntegratedGradients(lead, multiply_by_inputs=False).attribute(
            z, start, additional_forward_args=(leading,), n_steps=steps, internal_batch_size=4096
        )
    return slope.detach()
