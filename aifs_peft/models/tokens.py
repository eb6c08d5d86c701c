"""From an encoder's last hidden states to token features in the space of its latent.

Between hidden states and latent lie, by architecture, a final norm (ViT, SigLIP), a dense layer (BERT, DistilBERT) or
nothing (CLIP's classifier, RoBERTa), and a choice or mean of tokens. Which of them it is, is not read off class names:
each candidate is tried on a batch whose latents are known, and the one that gives them is taken, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.tuner.layer import AIFSLayer

# Dense layers between tokens and latent, with the activation that follows.
_DENSE: dict[str, Callable[[Tensor], Tensor]] = {
    "pooler.dense": torch.tanh,
    "classifier.dense": torch.tanh,
    "pre_classifier": torch.relu,
}
_MOST_SPECIAL_TOKENS = 16


@dataclass(frozen=True)
class TokenMap:
    """Token features in the space of the latent, without class, register or start tokens.

    Attributes:
        name: of the module between hidden states and latent; empty when there is none.
        transform: hidden states `(batch, tokens, width)` to features `(batch, tokens, dim)`.
        prefix: tokens at the start that belong to no part of the input.
        grid: rows and columns of an image's patches; None for a sequence.
    """

    name: str
    transform: Callable[[Tensor], Tensor]
    prefix: int
    grid: tuple[int, int] | None

    def __call__(self, hidden: Tensor) -> Tensor:
        """Features `(batch, tokens - prefix, dim)`, at least float32."""
        features = self.transform(hidden[:, self.prefix :])
        return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features

    def mask(self, attention_mask: Tensor | None) -> Tensor | None:
        """The mask of the same tokens, `(batch, tokens - prefix)`."""
        return None if attention_mask is None else attention_mask[:, self.prefix :]


def resolve_tokens(
    model: nn.Module, hidden: Tensor, z: Tensor, *, attention_mask: Tensor | None = None, pixels: Tensor | None = None
) -> TokenMap:
    """Find how tokens become the latent, by trying.

    Args:
        model: with its configuration.
        hidden: last hidden states of a batch in evaluation mode, `(batch, tokens, width)`.
        z: latents of the same forward pass, `(batch, dim)`.
        attention_mask: `(batch, tokens)` of a text; None where all tokens are real.
        pixels: `(batch, channels, height, width)` of an image batch; None for texts.

    Returns:
        The map.

    Raises:
        InvalidConfigError: if no candidate gives the latents, or the tokens of an image form no grid.
    """
    grid, prefix = _layout(model, hidden, pixels)
    weights = torch.ones(hidden.shape[:2], device=hidden.device) if attention_mask is None else attention_mask
    errors: list[tuple[float, str, Callable[[Tensor], Tensor]]] = []
    tolerance = 1e-2 if hidden.dtype == torch.float32 and z.dtype == torch.float32 else 5e-2
    with torch.no_grad():
        for name, transform in _candidates(model, hidden.shape[2]):
            features = transform(hidden).float()
            if features.shape[2] == z.shape[1]:
                errors += [(_distance(pooled, z), name, transform) for pooled in _pooled(features, weights, prefix)]
    best = min(errors, key=lambda entry: entry[0], default=None)
    if best is None or not best[0] <= tolerance:
        found = "of another width" if best is None else f"off by {best[0]:.2g} (relative)"
        raise InvalidConfigError(
            f"the latents of this {type(model).__name__} are no norm or dense layer of one token or of a mean "
            f"of tokens (the closest is {found}), so its parts have no features in the space of the latents; use a "
            "ViT, CLIP, SigLIP, BERT, RoBERTa or DistilBERT classifier, or a method that does not read tokens"
        )
    return TokenMap(best[1], best[2], prefix, grid)


def _layout(model: nn.Module, hidden: Tensor, pixels: Tensor | None) -> tuple[tuple[int, int] | None, int]:
    """Grid of patches and number of tokens before them."""
    tokens = hidden.shape[1]
    if pixels is None:
        return None, 1 if tokens > 1 else 0
    config = getattr(model, "config", None)
    patch = getattr(getattr(config, "vision_config", config), "patch_size", None)
    if patch is not None:
        high, wide = (patch, patch) if isinstance(patch, int) else patch
        grid = (pixels.shape[2] // high, pixels.shape[3] // wide)
        special = tokens - grid[0] * grid[1]
        if 0 <= special <= _MOST_SPECIAL_TOKENS:
            return grid, special
    side = round(tokens**0.5)
    if side * side != tokens:
        raise InvalidConfigError(
            f"{tokens} tokens of images of {tuple(pixels.shape[2:])} pixels form no grid of patches (patch size "
            f"{patch}); use a vision transformer with square patches"
        )
    return (side, side), 0


def _candidates(model: nn.Module, width: int) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Nothing, each norm outside the numbered layers, each known dense layer with its activation."""
    yield "", lambda hidden: hidden
    inside = {id(m) for layer in model.modules() if isinstance(layer, AIFSLayer) for m in layer.modules()}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        numbered = any(part.isdigit() for part in name.split("."))
        is_norm = "norm" in type(module).__name__.lower() and isinstance(weight, Tensor) and weight.shape == (width,)
        if is_norm and not numbered and id(module) not in inside:
            yield name, module
        for ending, activation in _DENSE.items():
            if name.endswith(ending) and id(module) not in inside:
                yield name, lambda hidden, m=module, a=activation: a(m(hidden))  # type: ignore[misc]


def _pooled(features: Tensor, weights: Tensor, prefix: int) -> Iterator[Tensor]:
    """One token, or a mean of them: what an architecture makes of its tokens."""
    yield features[:, 0]
    yield features[:, -1]
    yield features.mean(1)
    yield features[:, prefix:].mean(1)
    real = weights[:, :, None].to(features.dtype)
    yield (features * real).sum(1) / real.sum(1).clamp_min(1)


def _distance(pooled: Tensor, z: Tensor) -> float:
    return float((pooled - z).abs().max() / z.abs().max().clamp_min(1e-12))
