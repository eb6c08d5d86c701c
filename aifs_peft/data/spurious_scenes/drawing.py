"""Vectorised drawing: hashed randomness, soft shapes and compositing on batches of images, NumPy only.

Randomness is a hash of (scene seed, stream, position), not a generator: every scene can be drawn alone, in any
order and in any batch, and drawn again with one factor changed and everything else, down to the grain, equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


def hashed(seeds: NDArray[np.int64], count: int, stream: int) -> NDArray[np.uint32]:
    """Well-mixed 32-bit integers per scene.

    Args:
        seeds: scene seeds, shape `(n,)`, in `0..2**32 - 1`.
        count: how many numbers per scene.
        stream: number of the stream; different streams are unrelated.

    Returns:
        uint32, shape `(n, count)`; a pure function of seed, stream and position (multiply-and-shift mixing).
    """
    # The seed is mixed by itself first: neighbouring seeds must not give shifted copies of one sequence.
    start = _mix(seeds.astype(np.uint32) ^ np.uint32((stream * 0x9E3779B9) & 0xFFFFFFFF))
    return _mix(start[:, None] + np.arange(count, dtype=np.uint32)[None, :] * np.uint32(0x85EBCA6B))


def _mix(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    x = x ^ (x >> np.uint32(16))
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def uniform(seeds: NDArray[np.int64], count: int, stream: int) -> Plane:
    """Numbers in [0, 1), float32, shape `(n, count)`; see `hashed`.

    Example:
        >>> a = uniform(np.arange(1000), 4, 0)
        >>> bool(abs(a.mean() - 0.5) < 0.02), a.shape
        (True, (1000, 4))
    """
    return (hashed(seeds, count, stream) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def grid(size: int) -> tuple[Plane, Plane]:
    """Pixel centres: x to the right and y downwards, in (-1, 1), each of shape `(1, size, size)`."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    return np.broadcast_to(line, (1, size, size)), np.broadcast_to(line[:, None], (1, size, size))


def column(values: NDArray[Any]) -> Plane:
    """One value per image, shape `(n,)`, as `(n, 1, 1)` float32."""
    return np.asarray(values, dtype=np.float32)[:, None, None]


def rotated(x: Plane, y: Plane, cx: Plane, cy: Plane, angle: Plane) -> tuple[Plane, Plane]:
    """Coordinates about a centre, turned by an angle; all `(n, 1, 1)` or `(1, size, size)`, result full size."""
    dx, dy = x - cx, y - cy
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * dx + sin * dy, cos * dy - sin * dx


def soft(distance: Plane, size: int) -> Plane:
    """Coverage in [0, 1] from a signed distance (positive inside, in grid units): an edge of two pixels."""
    return np.asarray(np.clip(distance * np.float32(size / 4) + np.float32(0.5), 0.0, 1.0), dtype=np.float32)


def smooth_field(seeds: NDArray[np.int64], size: int, cells: int, stream: int) -> Plane:
    """Cloudy texture in [-1, 1]: random values on a coarse lattice, interpolated bilinearly.

    Returns:
        float32, shape `(n, size, size)`.
    """
    coarse = uniform(seeds, (cells + 1) ** 2, stream).reshape(-1, cells + 1, cells + 1) * 2 - 1
    at = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(cells / size)
    left = np.minimum(at.astype(np.int64), cells - 1)
    weight = np.zeros((size, cells + 1), dtype=np.float32)
    weight[np.arange(size), left] = 1 - (at - left)
    weight[np.arange(size), left + 1] = at - left
    return np.asarray(weight @ coarse @ weight.T, dtype=np.float32)


def blend(canvas: Plane, mask: Plane, colour: Plane) -> None:
    """Paint a colour over a canvas, in place.

    Args:
        canvas: `(n, size, size, 3)`.
        mask: opacity in [0, 1], `(n, size, size)`.
        colour: `(n, 3)` or `(3,)`, in 0..255.
    """
    target = np.asarray(colour, dtype=np.float32)
    target = target[:, None, None, :] if target.ndim == 2 else target
    canvas += mask[..., None] * (target - canvas)


def finish(canvas: Plane, seeds: NDArray[np.int64], grain: float) -> NDArray[np.uint8]:
    """Add sensor grain and round to bytes.

    Args:
        canvas: `(n, size, size, 3)`, changed in place.
        seeds: scene seeds `(n,)`.
        grain: half width of the uniform noise per channel, in grey levels.

    Returns:
        uint8, `(n, size, size, 3)`.
    """
    n, size = canvas.shape[:2]
    noise = hashed(seeds, size * size, 99).view(np.uint8).reshape(n, size, size, 4)[..., :3]
    canvas += noise * np.float32(grain / 127.5)
    canvas += np.float32(0.5 - grain)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
