"""Run a model with its encoder as it was before fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from aifs_peft.tuner._peft import switched_off
from aifs_peft.tuner.layer import AIFSLayer


@contextmanager
def initial_encoder(model: nn.Module) -> Iterator[None]:
    """Run a block with the encoder's adapters switched off; AIFS layers stay as they are.

    The encoder then gives the latents that it gave before it was tuned, while the trained head still classifies them.
    `PeftModel.disable_adapter` would switch the AIFS layer off, too, and with it the latents.

    Args:
        model: the whole model, wrapped by PEFT or not.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with initial_encoder(layer):  # nothing to switch off
        ...     _ = layer
    """
    inside = {id(module) for layer in model.modules() if isinstance(layer, AIFSLayer) for module in layer.modules()}
    with switched_off(module for module in model.modules() if id(module) not in inside):
        yield
