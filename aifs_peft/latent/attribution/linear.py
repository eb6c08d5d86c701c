"""Integrated Gradients of a linear head, without autograd.

Source: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", equation 1, for
`F(z) = sum_k w_k log p(y_k|z)` and logits that are linear in `z`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_count
from aifs_peft.latent._support import check_latents, check_shape, no_autocast, work_dtype
from aifs_peft.latent.attribution._chunks import Chunk, attribute_in_chunks
from aifs_peft.latent.attribution.targets import (
    Attribution,
    baseline_rows,
    check_baseline,
    check_tolerance,
    class_weight_matrix,
)


def integrated_gradients_linear(
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor,
    *,
    baseline: Tensor | None = None,
    top_k: int | None = 1,
    class_weights: Tensor | str | None = None,
    steps: int = 32,
    chunk_size: int = 4096,
    tolerance: float | None = None,
) -> Attribution:
    """Integrated Gradients of a linear head, without autograd and without a path through the latent space.

    Logits move on a straight line when latents do, so the path average of `dF/dz` is
    `sum_k w_k W_k - (sum_k w_k) * mean_t softmax(logits(t)) @ W`. Only the mean of the softmax needs
    quadrature, over `(steps, classes)` numbers for each example.

    Args:
        weight: `W`, `(classes, dim)`.
        bias: `(classes,)` or None.
        z: latents `(batch, dim)`.
        baseline: `(dim,)` or `(batch, dim)`; zeros when None.
        top_k: number of leading classes in `F`, None for all.
        class_weights: as for `integrated_gradients`.
        steps: points on the path.
        chunk_size: examples times steps held in memory at once (at least one example); halved when memory runs out.
        tolerance: the largest completeness error to accept, None for any.

    Returns:
        The attribution, equal to that of `integrated_gradients` on the same head up to rounding.

    Raises:
        InvalidInputError: when a shape, `class_weights` or `tolerance` is not valid.
        InvalidConfigError: when `top_k`, `steps` or `chunk_size` is not a positive integer.
        NonFiniteError: when an attribution is NaN or infinite.
        CompletenessError: when the completeness error is above `tolerance`.

    Example:
        >>> import torch
        >>> weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> attribution = integrated_gradients_linear(weight, None, torch.tensor([[2.0, 5.0]]))
        >>> attribution.scores  # log 2 - log(1 + exp(-4)); the second dimension plays no part
        tensor([[0.6750, 0.0000]])
    """
    check_latents(z)
    check_tolerance(tolerance)
    check_count("chunk_size", chunk_size)
    classes = weight.shape[0] if isinstance(weight, Tensor) and weight.ndim == 2 else 1
    check_shape(weight, (classes, z.shape[1]), "weight", "classes by latent dimensions")
    if bias is not None:
        check_shape(bias, (classes,), "bias", "one value per class")
    dtype = work_dtype(z, weight)
    nodes, parts = _gauss_legendre(check_count("steps", steps))
    check_baseline(baseline, z)
    heads, offset = weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)

    def work(rows: slice, _: int) -> Chunk:
        point = z[rows].detach().to(dtype)
        base = baseline_rows(baseline, point, rows)
        end, start = (F.linear(at, heads, offset) for at in (point, base))
        weights = class_weight_matrix(end, top_k, class_weights)
        average = _path_softmax(start, end, nodes, parts)
        total = weights.sum(dim=1, keepdim=True)
        gain = F.log_softmax(end, dim=1) - F.log_softmax(start, dim=1)
        scores = (weights - total * average) @ heads
        return Chunk(scores.mul_(point - base), (weights * gain).sum(dim=1))

    with torch.no_grad(), no_autocast(z.device):
        return attribute_in_chunks(z, max(1, chunk_size // steps), work, tolerance)


def _gauss_legendre(steps: int) -> tuple[list[float], list[float]]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (0.5 * (nodes + 1)).tolist(), (0.5 * weights).tolist()


def _path_softmax(start: Tensor, end: Tensor, nodes: list[float], parts: list[float]) -> Tensor:
    """Mean of `softmax` `(batch, classes)` on the segment from logits `start` to `end`."""
    at = torch.tensor(nodes, dtype=start.dtype, device=start.device).view(-1, 1, 1)
    share = torch.tensor(parts, dtype=start.dtype, device=start.device).view(-1, 1, 1)
    path = start + at * (end - start)
    return (share * path.softmax(dim=2)).sum(dim=0)
