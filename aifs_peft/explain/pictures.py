"""Which patches of a picture the attribute's score reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from aifs_peft.errors import InvalidInputError

STEPS = 4
# On a planted mark of 5 % of the area, one reference gave 51 % of a map's mass to it, three 52 %, six 54 %; a path from
# the mean colour 40 to 47 %, gradient x input 16 to 21 %, and patches in grey one by one 27 to 35 %.
REFERENCES = 4
MOST_PATCHES = 14
SMALLEST_PATCH = 4


def patch_maps(
    score: Callable[[Tensor], Tensor], pixels: Tensor, references: Tensor | None = None, steps: int = STEPS
) -> Tensor:
    """What each patch of a picture adds to a score, by Integrated Gradients (captum).

    The path starts at other pictures, best ones of the same class with another attribute value, and the maps are
    averaged over them: what the pictures share then gets little, and what differs gets the score. Without such
    pictures it starts at each picture's own mean colour, which is coarser.

    Args:
        score: maps pixels `(m, channels, height, width)` to one score each, `(m,)`; for a batch of `references` times
            the pictures, picture by picture.
        pixels: pictures as the model takes them, `(n, channels, height, width)`.
        references: starts of the path, `(n, k, channels, height, width)`; None for each picture's mean colour.
        steps: points on each path.

    Returns:
        `(n, rows, columns)`, patches of at least 4 pixels, at most 14 by 14; signed. They add up to the score less the
        mean score of the references, up to the error of the quadrature.

    Raises:
        InvalidInputError: when a shape does not fit.

    Example:
        >>> pixels = torch.zeros(1, 3, 16, 16); pixels[:, :, :4, :4] = 1
        >>> maps = patch_maps(lambda p: p.mean((1, 2, 3)), pixels, torch.zeros(1, 1, 3, 16, 16))
        >>> maps.shape, bool(maps[0, 0, 0] > 0), float(maps[0, 1:].abs().sum())
        (torch.Size([1, 4, 4]), True, 0.0)
    """
    if pixels.ndim != 4 or not len(pixels):
        raise InvalidInputError(f"pixels must have shape (n, channels, height, width), got {tuple(pixels.shape)}")
    if references is None:
        references = pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels)[:, None]
    if references.ndim != 5 or len(references) != len(pixels) or references.shape[2:] != pixels.shape[1:]:
        raise InvalidInputError(
            f"references must have shape (n={len(pixels)}, k, *{tuple(pixels.shape[1:])}), got "
            f"{tuple(references.shape)}"
        )
    from captum.attr import IntegratedGradients  # captum imports matplotlib: only when it is used

    explainer, total = IntegratedGradients(score), torch.zeros_like(pixels[:, :1])
    for start in references.unbind(dim=1):
        scores = explainer.attribute(pixels, start.contiguous(), n_steps=steps, internal_batch_size=len(pixels))
        total += scores.detach().sum(dim=1, keepdim=True)
    rows, columns = (max(1, min(MOST_PATCHES, side // SMALLEST_PATCH)) for side in pixels.shape[2:])
    pooled = F.adaptive_avg_pool2d(total.float() / references.shape[1], (rows, columns))[:, 0]
    return pooled * (pixels.shape[2] * pixels.shape[3] / (rows * columns))


def as_seen(pixels: Tensor, processor: Any = None) -> NDArray[np.uint8]:
    """Pictures as the model sees them, `(n, height, width, 3)`.

    Args:
        pixels: as the model takes them, `(n, channels, height, width)`.
        processor: whose `image_mean` and `image_std` are undone; without one each picture is stretched to full range.

    Example:
        >>> as_seen(torch.zeros(1, 3, 2, 2)).shape
        (1, 2, 2, 3)
    """
    values = pixels.detach().cpu().float()
    mean, std = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
    if mean is not None and std is not None and len(mean) == values.shape[1]:
        values = values * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    else:
        low, high = values.amin(dim=(1, 2, 3), keepdim=True), values.amax(dim=(1, 2, 3), keepdim=True)
        values = (values - low) / (high - low).clamp_min(1e-6)
    if values.shape[1] != 3:
        values = values.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return np.asarray((values.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy(), dtype=np.uint8)


def choose_references(
    groups: NDArray[Any], values: NDArray[Any], rows: NDArray[Any], k: int = REFERENCES, seed: int = 0
) -> NDArray[np.int64] | None:
    """For each row, `k` others of the same group with another attribute value, drawn at random.

    Args:
        groups: of all examples, `(n,)`: labels, or predictions.
        values: their attribute values, `(n,)`.
        rows: the examples to find references for, `(m,)`.
        k: how many each.
        seed: of the draw.

    Returns:
        `(m, k)` positions; of another group where its own has none; None where all carry one value.

    Example:
        >>> choose_references(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.array([0]), k=2).tolist()
        [[1, 1]]
    """
    if len(np.unique(values)) < 2:
        return None
    rng = np.random.default_rng(seed)
    out = []
    for i in rows.tolist():
        other = values != values[i]
        pool = np.flatnonzero(other & (groups == groups[i]))
        pool = pool if len(pool) else np.flatnonzero(other)
        out.append(rng.choice(pool, k, replace=len(pool) < k))
    return np.asarray(out, dtype=np.int64)
