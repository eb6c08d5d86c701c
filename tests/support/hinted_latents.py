"""Latents with an attribute too weak to be found without a hint, and hints of it."""

import numpy as np


def weak(seed=0, *, n=3000, d=32, rho=0.95, contrast=2.5, core=1.5):
    """An attribute below the gate of discovery, its direction orthogonal to the class's."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < rho, y, 1 - y)
    axes = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
    Z = rng.normal(size=(n, d)) + core * (y[:, None] - 0.5) * axes[0] + contrast * (a[:, None] - 0.5) * axes[1]
    return Z, y, a, axes


def ten_per_cell(y, a, seed=0):
    rng = np.random.default_rng(seed)
    known = np.full(len(y), -1)
    for cell in range(4):
        rows = rng.permutation(np.flatnonzero(2 * y + a == cell))[:10]
        known[rows] = a[rows]
    return known


def by_source(result, source):
    return next(c for c in result.candidates_ if c.source == source)


def two_attributes(contrasts, seed=0, n=3000, d=48):
    """Two attributes beside a class contrast of 2, each equal to the label for 95 %."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a, b = (np.where(rng.random(n) < 0.95, y, 1 - y) for _ in contrasts)
    Z = rng.normal(size=(n, d))
    Z[:, :3] += np.stack([2.0 * y, contrasts[0] * a, contrasts[1] * b], axis=1)
    return Z, y, a, b
