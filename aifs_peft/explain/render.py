"""Highlights as pictures and as HTML: a heat over the patches, marks under the words."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

HEAT = (255, 96, 32)
LEVELS = 4
"""Strengths of a mark; a word below half of the first level has none."""
_STRONGEST = 0.8
# Of a mark: text of either colour must stay readable on it, on a light page and on a dark one.
_STRONGEST_MARK = 0.44


def overlay(picture: NDArray[np.uint8], patches: Any, size: int) -> Image.Image:
    """A picture in grey with its positive patches in colour, the strongest one strongest.

    Args:
        picture: `(height, width, 3)`.
        patches: `(rows, columns)`, signed; what is negative is not shown.
        size: pixels of the longer side.

    Example:
        >>> overlay(np.zeros((8, 8, 3), dtype=np.uint8), [[0.0, 1.0], [0.0, 0.0]], 16).getpixel((15, 0))[0] > 100
        True
    """
    from PIL import Image

    scale = size / max(picture.shape[:2])
    shape = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    shown = np.asarray(Image.fromarray(picture).resize(shape, Image.Resampling.BICUBIC), dtype=np.float64)
    grey = np.repeat(shown @ np.array([[0.299], [0.587], [0.114]]), 3, axis=2) * 0.75 + 32
    heat = np.clip(np.asarray(patches, dtype=np.float32), 0, None)
    heat = heat / heat.max() if heat.size and heat.max() > 0 else np.zeros((1, 1), dtype=np.float32)
    weight = np.asarray(Image.fromarray(heat).resize(shape, Image.Resampling.BILINEAR), dtype=np.float64)
    weight = _STRONGEST * np.clip(weight, 0, 1)[:, :, None]
    mixed = grey * (1 - weight) + np.array(HEAT, dtype=np.float64) * weight
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def levels(scores: Sequence[float]) -> list[int]:
    """Strength of each word's mark, from 0 (none) to 4: its positive score beside the largest.

    Example:
        >>> levels([0.0, 2.0, 1.0, -3.0])
        [0, 4, 2, 0]
    """
    largest = max((score for score in scores if score > 0), default=0.0)
    return [round(LEVELS * max(score, 0.0) / largest) if largest else 0 for score in scores]


def marked_html(words: Sequence[tuple[str, float]]) -> str:
    """Words as escaped HTML, those with a positive score marked.

    Args:
        words: text and score of each piece; put together they are the text.

    Example:
        >>> marked_html([("a", 0.0), (" ", 0.0), ("<b>", 1.0)])
        'a <mark style="background:rgb(255 96 32 / 44%);color:inherit">&lt;b&gt;</mark>'
    """
    out = []
    for (text, _), level in zip(words, levels([score for _, score in words]), strict=True):
        escaped = html.escape(text)
        share = round(100 * _STRONGEST_MARK * level / LEVELS)
        style = f"background:rgb({' '.join(map(str, HEAT))} / {share}%);color:inherit"
        out.append(f'<mark style="{style}">{escaped}</mark>' if level else escaped)
    return "".join(out)


def data_uri(picture: Image.Image) -> str:
    """A picture as text that stands in a page."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
