"""The parts of an adapted model that a training loop works with."""

from __future__ import annotations

from peft import PeftModel
from torch import Tensor, nn

from aifs_peft.errors import HeadError
from aifs_peft.tuner import AIFSLayer, find_aifs_layer


def require_peft(model: object) -> PeftModel:
    """A PEFT model as one.

    Args:
        model: of any kind.

    Raises:
        HeadError: if it is of another.
    """
    if not isinstance(model, PeftModel):
        raise HeadError(
            f"an adapter is trained, got a bare {type(model).__name__}; wrap it: get_peft_model(model, AIFSConfig())"
        )
    return model


def require_adapter(model: object) -> AIFSLayer:
    """The AIFS layer of a PEFT model.

    Args:
        model: of any kind.

    Raises:
        HeadError: if it is no PEFT model, or has no such layer.
    """
    return find_aifs_layer(require_peft(model))


class SequenceHead(nn.Module):
    """A head that wants a token axis, on latents `(batch, dim)`.

    Args:
        head: maps `(batch, 1, dim)` to `(batch, classes)`.

    Example:
        >>> import torch
        >>> SequenceHead(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, z: Tensor) -> Tensor:
        """Logits `(batch, classes)`."""
        logits: Tensor = self.head(z.unsqueeze(1))
        return logits


def head_on_latents(layer: AIFSLayer) -> nn.Module:
    """The trained head as a module on latents; a plain `nn.Linear` stays one, for its closed forms."""
    return SequenceHead(layer.head) if layer.aifs_spec[layer.adapter].sequence else layer.head


def num_labels_of(layer: AIFSLayer) -> int:
    """Number of classes of the trained head."""
    return layer.aifs_spec[layer.adapter].num_labels


def gives_tokens(model: nn.Module) -> bool:
    """Whether the encoder is one of transformers', whose output can hold its hidden states."""
    config = getattr(model, "config", None)
    depth = [getattr(part, "num_hidden_layers", None) for part in (config, getattr(config, "vision_config", None))]
    return hasattr(config, "output_hidden_states") and any(value is not None for value in depth)
