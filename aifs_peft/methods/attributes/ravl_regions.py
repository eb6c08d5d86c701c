"""Parts of an input: cells of a grid of patches, spans of tokens; and which cluster each part belongs to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grid_regions(tokens: Tensor, grid: tuple[int, int], cells: int) -> tuple[Tensor, Tensor]:
    """Means of patch tokens over the cells of a coarser square grid.

    Args:
        tokens: `(batch, rows * columns, dim)`, row by row.
        grid: rows and columns.
        cells: about how many cells; the grid's own where it has fewer.

    Returns:
        Features `(batch, cells, dim)`, and `(batch, cells)` bool, all True.

    Example:
        >>> tokens = torch.arange(16.0).reshape(1, 16, 1)
        >>> grid_regions(tokens, (4, 4), 4)[0].flatten().tolist()
        [2.5, 4.5, 10.5, 12.5]
    """
    side = max(1, round(cells**0.5))
    size = (min(side, grid[0]), min(side, grid[1]))
    planes = tokens.transpose(1, 2).unflatten(2, grid)
    features = F.adaptive_avg_pool2d(planes, size).flatten(2).transpose(1, 2)
    return features, torch.ones(features.shape[:2], dtype=torch.bool, device=tokens.device)


def span_regions(tokens: Tensor, mask: Tensor | None, span: int) -> tuple[Tensor, Tensor]:
    """Means of real tokens over windows of `span` tokens, without overlap.

    Args:
        tokens: `(batch, tokens, dim)`.
        mask: `(batch, tokens)`, 1 for real tokens; None where all are.
        span: tokens per window.

    Returns:
        Features `(batch, windows, dim)`, 0 for windows without a real token, and which have one, `(batch, windows)`.

    Example:
        >>> features, present = span_regions(torch.tensor([[[1.0], [3.0], [5.0]]]), torch.tensor([[1, 1, 0]]), 2)
        >>> features.flatten().tolist(), present.tolist()
        ([2.0, 0.0], [[True, False]])
    """
    real = torch.ones(tokens.shape[:2], device=tokens.device) if mask is None else mask
    real = real.to(tokens.dtype)
    short = -tokens.shape[1] % span
    tokens, real = F.pad(tokens, (0, 0, 0, short)), F.pad(real, (0, short))
    counts = real.unflatten(1, (-1, span)).sum(2)
    sums = (tokens * real[..., None]).unflatten(1, (-1, span)).sum(2)
    return sums / counts.clamp_min(1)[..., None], counts > 0


def nearest_cluster(features: Tensor, centroids: Tensor) -> Tensor:
    """Index of the unit centroid with the largest cosine, `(...)` int64 for features `(..., dim)`.

    Example:
        >>> nearest_cluster(torch.tensor([[3.0, 1.0], [0.0, -2.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        tensor([0, 1])
    """
    return (features @ centroids.to(features.dtype).T).argmax(-1)


def follow_centroids(features: Tensor, centroids: Tensor, steps: int = 5) -> Tensor:
    """Spherical k-means from given centroids: where clusters have gone when an encoder has moved on.

    Args:
        features: unit vectors `(n, dim)`.
        centroids: unit vectors `(k, dim)`; one that no feature is nearest to stays where it is.
        steps: iterations.

    Returns:
        `(k, dim)`, in the order given.

    Example:
        >>> follow_centroids(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [-1.0, 0.0]]))
        tensor([[ 0.,  1.],
                [-1.,  0.]])
    """
    centroids = centroids.to(features.dtype)
    for _ in range(steps):
        code = nearest_cluster(features, centroids)
        sums = torch.zeros_like(centroids).index_add(0, code, features)
        there = torch.bincount(code, minlength=len(centroids)) > 0
        centroids = torch.where(there[:, None], F.normalize(sums, dim=1), centroids)
    return centroids
