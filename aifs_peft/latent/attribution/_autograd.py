"""Attribution by autograd in chunks: what Integrated Gradients and gradient x input share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_count
from aifs_peft.errors import HeadError
from aifs_peft.latent._support import Head, check_latents, evaluating, no_autocast, run_head, work_dtype
from aifs_peft.latent.attribution._chunks import Chunk, attribute_in_chunks
from aifs_peft.latent.attribution.targets import (
    Attribution,
    baseline_rows,
    check_baseline,
    check_tolerance,
    class_weight_matrix,
)

Target = Callable[[Tensor, Tensor], Tensor]
"""`(points (n, dim), class weights (n, classes))` to `F` `(n,)`."""
Explain = Callable[[Target, Tensor, Tensor, Tensor, int], Tensor]
"""`(F, points, baselines, class weights, rows per call)` to scores `(n, dim)`."""


def attribute_by_autograd(
    head: Head,
    z: Tensor,
    explain: Explain,
    *,
    baseline: Tensor | None,
    top_k: int | None,
    class_weights: Tensor | str | None,
    chunk_size: int,
    tolerance: float | None,
) -> Attribution:
    """Scores `(batch, dim)` of `explain` in chunks, with the head in evaluation mode and autograd on."""
    check_latents(z)
    check_tolerance(tolerance)
    check_baseline(baseline, z)
    check_count("chunk_size", chunk_size)

    def target(points: Tensor, weights: Tensor) -> Tensor:
        value = (weights * F.log_softmax(run_head(head, points), dim=1)).sum(dim=1)
        if points.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
            raise HeadError("the head's logits do not depend on z through autograd; remove detach() or no_grad from it")
        return value

    def work(rows: slice, size: int) -> Chunk:
        point = z[rows].detach().to(work_dtype(z)).clone()
        base = baseline_rows(baseline, point, rows)
        return _one_chunk(head, target, explain, point, base, top_k, class_weights, size)

    # Outside inference mode and with gradients on, so that evaluation loops may attribute, too.
    with torch.inference_mode(False), no_autocast(z.device), evaluating(head):
        return attribute_in_chunks(z, chunk_size, work, tolerance)


def _one_chunk(
    head: Head,
    target: Target,
    explain: Explain,
    point: Tensor,
    base: Tensor,
    top_k: int | None,
    class_weights: Tensor | str | None,
    limit: int,
) -> Chunk:
    """Scores `(n, dim)`, and the change of the target from baseline to point `(n,)`."""
    with torch.no_grad():
        weights = class_weight_matrix(run_head(head, point), top_k, class_weights).to(point.dtype)
        change = target(point, weights) - target(base, weights)
    with torch.enable_grad():
        score = explain(target, point, base, weights, limit)
    return Chunk(score.detach(), change)
