"""Attribution by autograd in chunks: what Integrated Gradients and gradient x input share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from aifs_peft._checks import check_count
from aifs_peft.errors import HeadError
from aifs_peft.latent._support import Head, check_latents, evaluating, no_autocast, run_head, work_dtype
from aifs_peft.latent.attribution.targets import (
    Attribution,
    baseline_rows,
    check_tolerance,
    class_weight_matrix,
    summarise,
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
    check_count("chunk_size", chunk_size)

    def target(points: Tensor, weights: Tensor) -> Tensor:
        value = (weights * F.log_softmax(run_head(head, points), dim=1)).sum(dim=1)
        if points.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
            raise HeadError("the head's logits do not depend on z through autograd; remove detach() or no_grad from it")
        return value

    scores: list[Tensor] = []
    changes: list[Tensor] = []
    # Outside inference mode and with gradients on, so that evaluation loops may attribute, too.
    with torch.inference_mode(False), no_autocast(z.device), evaluating(head):
        points = z.detach().to(work_dtype(z)).clone()
        bases = baseline_rows(baseline, points, points.dtype)
        done, limit = 0, chunk_size
        while done < len(points):
            point, base = points[done : done + limit], bases[done : done + limit]
            try:
                score, change = _one_chunk(head, target, explain, point, base, top_k, class_weights, limit)
            except torch.OutOfMemoryError:
                if limit == 1:
                    raise
                limit = max(1, min(limit, len(points)) // 2)
                continue
            scores.append(score)
            changes.append(change)
            done += len(point)
    return summarise(torch.cat(scores), torch.cat(changes), tolerance)


def _one_chunk(
    head: Head,
    target: Target,
    explain: Explain,
    point: Tensor,
    base: Tensor,
    top_k: int | None,
    class_weights: Tensor | str | None,
    limit: int,
) -> tuple[Tensor, Tensor]:
    """Scores `(n, dim)` and the change of the target from baseline to point `(n,)`."""
    with torch.no_grad():
        weights = class_weight_matrix(run_head(head, point), top_k, class_weights).to(point.dtype)
        change = target(point, weights) - target(base, weights)
    with torch.enable_grad():
        score = explain(target, point, base, weights, limit)
    return score.detach(), change
