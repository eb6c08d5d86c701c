"""Encoders for `LatentClassifier`: loading, the width of their embedding, and a small one for tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aifs_peft._hub import expecting_answers
from aifs_peft.errors import HeadError, ModelNotFoundError
from aifs_peft.latent._support import evaluating
from aifs_peft.tuner.last_token import last_real_token


class TabularEncoder(nn.Module):
    """A standardising two-layer encoder for plain feature vectors.

    Args:
        num_features: width of the input.
        dim: width of the latent.
        mean: `(num_features,)`, subtracted; None is zero.
        std: `(num_features,)`, divided by; None is one.

    Example:
        >>> TabularEncoder(3, 8)(torch.zeros(2, 3)).shape
        torch.Size([2, 8])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_features: int, dim: int = 64, mean: Tensor | None = None, std: Tensor | None = None) -> None:
        super().__init__()
        self.num_features, self.dim = num_features, dim
        self.register_buffer("mean", torch.zeros(num_features) if mean is None else mean.detach().float().clone())
        self.register_buffer("std", torch.ones(num_features) if std is None else std.detach().float().clone())
        self.fc1 = nn.Linear(num_features, dim)
        self.fc2 = nn.Linear(dim, dim)

    def forward(self, features: Tensor) -> Tensor:
        """Latents `(batch, dim)` of features `(batch, num_features)`."""
        x = (features.to(self.fc1.weight.dtype) - self.mean) / self.std
        return torch.tanh(self.fc2(torch.tanh(self.fc1(x))))


def library_of(encoder: nn.Module) -> str:
    """`"transformers"`, `"open_clip"` or `"torch"`, by the module that defines the class."""
    origin = type(encoder).__module__.partition(".")[0]
    if hasattr(encoder, "encode_image") and origin == "open_clip":
        return "open_clip"
    return "transformers" if origin == "transformers" else "torch"


def base_of(model: Any) -> Any:
    """The model inside a `PeftModel`, or the model itself.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> base_of(layer) is layer
        True
    """
    inner = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


def embedding_of(out: Any, encoder: nn.Module) -> Tensor:
    """The embedding in whatever an encoder returns."""
    if isinstance(out, Tensor):
        return out
    embeds: Tensor | None = getattr(out, "image_embeds", None)
    if embeds is not None:
        return embeds
    pooled: Tensor | None = getattr(out, "pooler_output", None)
    hidden: Tensor | None = getattr(out, "last_hidden_state", None)
    # ViT's and BERT's dense poolers are random in many checkpoints; their first token is not.
    dense = hasattr(getattr(encoder, "pooler", None), "dense")
    if pooled is not None and not (dense and hidden is not None):
        return pooled.flatten(1)
    if hidden is None:
        raise HeadError(f"{type(encoder).__name__} returns neither a pooled output nor hidden states; got {type(out)}.")
    return hidden[:, 0]


def is_decoder(encoder: nn.Module) -> bool:
    """Whether each token sees only those before it, so that the last one alone has seen the whole text.

    Example:
        >>> from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel
        >>> sizes = dict(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> is_decoder(LlamaModel(LlamaConfig(**sizes))), is_decoder(BertModel(BertConfig(**sizes)))
        (True, False)
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    kind = type(getattr(encoder, "config", None))
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING


def last_token_of(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The hidden state of each text's last token that is no padding, `(batch, dim)`.

    Args:
        hidden: `(batch, tokens, dim)`.
        mask: `(batch, tokens)`, 1 for real tokens, padding on either side; None where all are.

    Example:
        >>> hidden = torch.arange(6.0).reshape(2, 3, 1)
        >>> last_token_of(hidden, torch.tensor([[1, 1, 0], [0, 1, 1]])).tolist()
        [[1.0], [5.0]]
    """
    if mask is None:
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden), device=hidden.device), last_real_token(mask > 0)]


def embedding_width(encoder: nn.Module) -> int:
    """Width of the embedding, found by trying where no attribute says it."""
    if isinstance(encoder, TabularEncoder):
        return encoder.dim
    width = getattr(getattr(encoder, "visual", None), "output_dim", None)
    if isinstance(width, int):
        return width
    config = getattr(encoder, "config", None)
    has_projection = hasattr(encoder, "visual_projection")
    width = getattr(config, "projection_dim", None) if has_projection else getattr(config, "hidden_size", None)
    if isinstance(width, int):
        return width
    vision = getattr(config, "vision_config", config)
    size, channels = getattr(vision, "image_size", None), getattr(vision, "num_channels", 3)
    if not isinstance(size, int):
        raise HeadError(
            f"the width of {type(encoder).__name__}'s embedding is unknown; pass LatentClassifier(encoder, dim=...)."
        )
    reference = next(encoder.parameters())
    with torch.no_grad(), evaluating(encoder):
        image = torch.zeros(1, channels, size, size, device=reference.device, dtype=reference.dtype)
        features = getattr(encoder, "get_image_features", None) or encoder
        return int(embedding_of(features(pixel_values=image), encoder).shape[-1])


def load_transformers(name: str, revision: str | None, kwargs: dict[str, Any]) -> nn.Module:
    """Load an encoder of transformers; of a CLIP, the image tower with its projection.

    Raises:
        ModelNotFoundError: if there is no such model.
    """
    from transformers import AutoConfig

    try:
        with expecting_answers():
            config = AutoConfig.from_pretrained(name, revision=revision)
    except OSError as error:
        raise ModelNotFoundError(
            f"no model {name!r}: it is no folder with a config.json, and the Hub did not give it ({error})."
        ) from error
    encoder: nn.Module = encoder_class(config).from_pretrained(name, revision=revision, **kwargs)
    return encoder


def encoder_class(config: Any) -> Any:
    """The class of transformers that encodes: of a CLIP, the image tower with its projection.

    Its text tower would be loaded for nothing, and the LoRA parameters there would stay without gradient.
    """
    from transformers import AutoModel, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection if config.model_type in ("clip", "clip_vision_model") else AutoModel
