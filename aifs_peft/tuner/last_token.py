"""Decoders (Llama, Qwen, GPT-2, ...) classify every token, and their prediction is that of the last one.

The latent is then what the head is fed for that token: the rightmost that is no padding, on whichever side the padding
is. The base model picks it after its head, by `input_ids`; here it is picked before, by the same rule, so that one
latent per example is intervened on. The head still gives one row of logits per token, all of them alike, from which
the base model takes one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.modeling_layers import GenericForSequenceClassification

from aifs_peft.errors import HeadError
from aifs_peft.tuner.calls import argument
from aifs_peft.tuner.trial import reads_last_token

OTHER_POOLING = (
    "this {model} takes the logits of the last token that is no padding, so its latent is what that token has; leave "
    'AIFSConfig(pool=...) at "auto"; got {pool!r}.'
)
_OTHER_BATCH = (
    "the head was fed {fed} and the decoder's input_ids have the shape {ids}, so its last tokens are unknown; run the "
    "whole model on one batch."
)


def picks_last_token(model: nn.Module, head: str) -> bool:
    """Whether a model's logits are those that its head gives for the last token that is no padding.

    Tried out where a trial works; else read off the class, which quantised models keep.

    Args:
        model: the base model.
        head: full name of its head.
    """
    if not hasattr(model, getattr(model, "base_model_prefix", "") or "-"):
        return False
    tried = reads_last_token(model, head)
    generic = GenericForSequenceClassification
    return tried if tried is not None else isinstance(model, generic) and type(model).forward is generic.forward


class LastToken:
    """Notes the tokens of each batch and says which one is classified.

    Args:
        model: the decoder, whose configuration names the padding token.
    """

    def __init__(self, model: Any) -> None:
        self.config = model.config
        self.ids: Tensor | None = None
        inner = getattr(model, model.base_model_prefix)
        self._handle: RemovableHandle = inner.register_forward_pre_hook(_Note(self), with_kwargs=True)

    def detach(self) -> None:
        """Listen no more."""
        self._handle.remove()

    def pick(self, x: Tensor) -> Tensor:
        """What the head is fed for the token that is classified, `(batch, dim)`.

        Args:
            x: for all tokens, `(batch, tokens, dim)`.

        Raises:
            HeadError: for another batch than the decoder has run on.
        """
        rows = torch.arange(len(x), device=x.device)
        pad = self.config.get_text_config().pad_token_id
        if self.ids is None or pad is None:  # embeddings were given, or nothing is padding
            return x[:, -1]
        if self.ids.shape != x.shape[:2]:
            raise HeadError(_OTHER_BATCH.format(fed=tuple(x.shape), ids=tuple(self.ids.shape)))
        return x[rows, last_real_token(self.ids != pad).to(x.device)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "ids": None}


class _Note:
    """Forward pre-hook of the decoder; a class, so that it is copied with the model."""

    def __init__(self, reader: LastToken) -> None:
        self.reader = reader

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = argument(module, args, kwargs, "input_ids")
        self.reader.ids = ids if isinstance(ids, Tensor) else None


def last_real_token(real: Tensor) -> Tensor:
    """Positions `(batch,)` of the rightmost true entries of `(batch, tokens)`.

    Example:
        >>> last_real_token(torch.tensor([[True, True, False], [False, True, True]])).tolist()
        [1, 2]
    """
    return (torch.arange(real.shape[1], device=real.device) * real).argmax(1)
