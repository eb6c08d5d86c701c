"""Attributes that discovery alone does not find: planted ones, and dominoes whose digits lie close together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from discovery_dominoes import Split, shared
from numpy.typing import NDArray


def planted_draws(seed: int, *, d: int, contrast: float, core: float) -> Callable[[int, float], Split]:
    """Draws `(n, aligned share)` of Gaussian latents with falling variances along random axes.

    Contrasts are in standard deviations; all draws share the axes and go on with one generator.
    """
    rng = np.random.default_rng(seed)
    spread = np.arange(1, d + 1) ** -0.5
    class_axis, attribute_axis = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]

    def draw(n: int, aligned: float) -> Split:
        y = rng.integers(0, 2, n)
        a = np.where(rng.random(n) < aligned, y, 1 - y)
        X = rng.normal(size=(n, d)) + core * (y[:, None] - 0.5) * class_axis
        X += contrast * (a[:, None] - 0.5) * attribute_axis
        return (X * spread) @ rotation, y, a

    return draw


def dominoes_pairs(name: str) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Latents of each picture with either digit, `(n, 2, d)`, and its class."""
    with np.load(shared() / "data" / "dominoes_latents" / f"{name}.npz") as file:
        return file["z"].astype(np.float32), file["y"].astype(np.int64)


def moved_together(z: NDArray[np.floating], a: NDArray[np.int64], scale: float) -> NDArray[np.floating]:
    """Of each pair the latent of digit `a`, moved towards the mean of the two."""
    middle = z.mean(axis=1)
    return np.asarray(middle + scale * (z[np.arange(len(a)), a] - middle))


def every_domino(scale: float) -> Split:
    """The test set: each picture with both digits."""
    z, y = dominoes_pairs("test")
    a = np.repeat([0, 1], len(y))
    return moved_together(np.concatenate([z, z]), a, scale), np.r_[y, y], a
