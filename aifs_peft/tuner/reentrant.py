"""Reentrant activation checkpointing: where it would keep gradients from the encoder's adapter, its inputs get one.

`torch.utils.checkpoint(use_reentrant=True)` gives no gradient to what it recomputes unless one of its inputs needs one,
and the inputs of a frozen model's first layer need none: its adapter would stay as it was drawn, without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.tuner._transformers import has_input_gradients, is_reentrant

NO_WAY = (
    "this model recomputes its layers with use_reentrant=True, which gives no gradient to an encoder's adapter whose "
    "inputs need none, and {name} has no input embeddings that could need one; enable checkpointing with "
    'use_reentrant=False: model.activation_checkpointing_enable({{"use_reentrant": False}})'
)


NO_WAY_FROM_BLOCKS = (
    'latents="multi" reads blocks that this model recomputes with use_reentrant=True, so that no gradient would come '
    "from there to the encoder's adapter; enable checkpointing with use_reentrant=False: "
    'model.activation_checkpointing_enable({"use_reentrant": False})'
)


def refuse_reentrant(model: nn.Module) -> None:
    """Refuse what keeps gradients from coming out of blocks whose outputs are read inside the encoder.

    Args:
        model: the base model with its adapters, in the modes of training.

    Raises:
        InvalidConfigError: if a layer is checkpointed in the reentrant way.
    """
    if any(module.training and is_reentrant(module) for module in model.modules()):
        raise InvalidConfigError(NO_WAY_FROM_BLOCKS)


def let_gradients_through(model: nn.Module) -> None:
    """Let the input embeddings need gradients where layers in training mode are checkpointed in the reentrant way.

    What transformers does for its own adapters, and PEFT for a model that was checkpointed before it got one.

    Args:
        model: the base model with its adapters, in the modes of training.

    Raises:
        InvalidConfigError: if the model has no input embeddings.
    """
    if not any(module.training and is_reentrant(module) for module in model.modules()):
        return
    for owner in _owners(model):
        if not has_input_gradients(owner):
            owner.enable_input_require_grads()
        if not has_input_gradients(owner):
            raise InvalidConfigError(NO_WAY.format(name=type(owner).__name__))


def _owners(model: nn.Module) -> Iterator[Any]:
    """The outermost modules of transformers with a layer that is checkpointed in the reentrant way."""
    if hasattr(model, "enable_input_require_grads"):
        if any(is_reentrant(module) for module in model.modules()):
            yield model
        return
    if is_reentrant(model):
        raise InvalidConfigError(NO_WAY.format(name=type(model).__name__))
    for child in model.children():
        yield from _owners(child)
