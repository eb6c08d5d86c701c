"""The loss of a head that is meant to keep to what it finds easy: generalised cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def generalised_cross_entropy(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """`(1 - p_y^q) / q` of each example (Zhang and Sabuncu 2018).

    Args:
        logits: `(batch, classes)`.
        labels: `(batch,)` int64.
        q: in (0, 1].

    Returns:
        `(batch,)` in [0, 1 / q].

    Example:
        >>> generalised_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), 1.0)
        tensor([0.5000])
    """
    log_p = F.log_softmax(logits.float(), dim=1).gather(1, labels[:, None]).squeeze(1)
    return -torch.expm1(q * log_p) / q
