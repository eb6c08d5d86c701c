"""The encoder as it was before it was tuned, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from aifs_peft.tuner.layer import AIFSLayer


@contextmanager
def untuned(model: nn.Module) -> Iterator[None]:
    """Run a block with the encoder's adapters (and its trained copies of modules) off; AIFS layers stay as they are.

    `PeftModel.disable_adapter` would switch the AIFS layer off, too, and with it the latents.

    Args:
        model: the whole model.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with untuned(layer):  # nothing to switch off
        ...     _ = layer
    """
    layers = [module for module in model.modules() if isinstance(module, AIFSLayer)]
    inside = {id(module) for layer in layers for module in layer.modules()}
    wrappers = [
        module
        for module in model.modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) and id(module) not in inside
    ]
    before = [wrapper._disable_adapters for wrapper in wrappers]
    try:
        # The flag alone: `enable_adapters` would also switch gradients, and with them what the optimizer holds.
        for wrapper in wrappers:
            wrapper._disable_adapters = True
        yield
    finally:
        for wrapper, disabled in zip(wrappers, before, strict=True):
            wrapper._disable_adapters = disabled
