"""What a forward pass through a classification head leaves for the training method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Intervention = Callable[[Tensor], Tensor]
"""Latents `z (batch, dim)` to intervened latents `z'` of the same shape."""


@dataclass(frozen=True)
class LatentOutput:
    """What one forward pass left behind; with its graph where a method asked for it.

    Attributes:
        z: latents, `(batch, dim)`, float32 or wider.
        logits: logits of `z`, `(batch, classes)`.
        intervened: intervened latents, `(batch, dim)`; None when the layer was not armed or not in training mode.
        intervened_logits: logits of `intervened`; None likewise.
    """

    z: Tensor
    logits: Tensor
    intervened: Tensor | None = None
    intervened_logits: Tensor | None = None
