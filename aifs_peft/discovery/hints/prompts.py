"""Text prompts as directions in the latent space of a CLIP model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.errors import InvalidInputError


def embed_prompts(model: Any, tokenizer: Any, prompts: Sequence[str | Sequence[str]]) -> NDArray[np.float32]:
    """Unit text embeddings of prompts, one per value of an attribute, for `discover(..., attributes={NAME: ...})`.

    The latents must be the *projected* image embeddings of the same model, which share a space with its text.

    Args:
        model: A CLIP model of transformers (`get_text_features`) or open_clip (`encode_text`).
        tokenizer: Its tokenizer or processor.
        prompts: One sentence per value, at least one, for example `["a photo of a man", "a photo of a woman"]`; or
            several per value, `[["a photo of a man", "a picture of a man"], ...]`: their mean direction is taken.

    Returns:
        Shape `(len(prompts), d)`, rows of length one.

    Raises:
        InvalidInputError: For no prompt, or a model that embeds no text.

    Example:
        >>> from importlib.resources import files
        >>> from transformers import AutoProcessor, CLIPModel
        >>> folder = str(files("aifs_peft") / "assets" / "tiny_clip")
        >>> model, processor = CLIPModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        >>> embed_prompts(model, processor, ["a dog", "a cat"]).shape
        (2, 128)
    """
    import torch

    if isinstance(prompts, str) or not len(prompts) or not all(len(given) for given in prompts):
        raise InvalidInputError(
            f"prompts={prompts!r} was given; needed is a list of sentences, one per value, or of lists of them."
        )
    ensembles = [[given] if isinstance(given, str) else list(given) for given in prompts]
    sentences = [sentence for ensemble in ensembles for sentence in ensemble]
    device = next(model.parameters()).device
    with torch.no_grad():
        if hasattr(model, "get_text_features"):
            tokens = tokenizer(text=sentences, padding=True, return_tensors="pt").to(device)
            out = model.get_text_features(**tokens)
        elif hasattr(model, "encode_text"):
            out = model.encode_text(tokenizer(sentences).to(device))
        else:
            raise InvalidInputError(
                f"{type(model).__name__} embeds no text; needed is a CLIP model with get_text_features (transformers) "
                "or encode_text (open_clip)."
            )
    features = out if isinstance(out, torch.Tensor) else out.pooler_output
    unit = torch.nn.functional.normalize(features.float(), dim=-1)
    parts = unit.split([len(ensemble) for ensemble in ensembles])
    means = torch.stack([part[0] if len(part) == 1 else part.mean(dim=0) for part in parts])
    several = torch.tensor([len(part) > 1 for part in parts], device=means.device)[:, None]
    embedded = torch.where(several, torch.nn.functional.normalize(means, dim=-1), means)
    return np.asarray(embedded.cpu().numpy(), dtype=np.float32)
