"""Batch statistics over all processes, with gradients that come out right after they are averaged.

DDP averages the gradients of the processes' losses. A loss that is a plain mean over examples needs nothing more. One
that is not (a product of group means, a norm of the feature matrix) must be computed on the whole batch. Each process
sees the values of all processes, its own with a graph whose gradient is multiplied by the number of processes; the
average is then the gradient of the whole. One process gets exactly the plain formula.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aifs_peft.errors import AIFSError
from aifs_peft.methods.context import StepContext


def whole_batch(rows: Tensor, context: StepContext) -> Tensor:
    """The rows of all processes, `(processes * batch, ...)`, this process's own with their graph.

    Args:
        rows: `(batch, ...)`, as many on every process.
        context: the batch.

    Example:
        >>> import torch
        >>> from aifs_peft.methods import StepContext
        >>> from aifs_peft.latent.state import AIFSState
        >>> one = torch.zeros(2, dtype=torch.long)
        >>> context = StepContext(lambda z: z, AIFSState(1), one, one, torch.Generator(), lambda w, k: one, 0)
        >>> whole_batch(torch.tensor([1.0, 2.0]), context)
        tensor([1., 2.])
    """
    if context.world_size == 1:
        return rows
    gathered = context.gather(rows.detach()).to(rows.device)
    # Same value as `rows`, `world_size` times its gradient.
    scaled = rows * context.world_size if rows.requires_grad else rows
    own = scaled + (rows - scaled).detach()
    place = _own_place(gathered, rows, context)
    return torch.cat([gathered[: place.start], own, gathered[place.stop :]])


def _own_place(gathered: Tensor, rows: Tensor, context: StepContext) -> slice:
    start = context.rank * len(rows)
    if len(gathered) != context.world_size * len(rows):
        raise AIFSError(
            f"{len(gathered)} rows were gathered from {context.world_size} processes of {len(rows)}: every process "
            "needs as many examples per step; leave accelerate's even_batches on"
        )
    return slice(start, start + len(rows))


def group_means(values: Tensor, groups: Tensor, num_groups: int, context: StepContext) -> tuple[Tensor, Tensor]:
    """Mean of per-example values in each group of the whole batch.

    Args:
        values: `(batch,)` with their graph.
        groups: `(batch,)` int64 in `[0, num_groups)`.
        num_groups: G.
        context: the batch.

    Returns:
        Means `(G,)`, 0 where a group is absent, and counts `(G,)` float.

    Example:
        >>> import torch
        >>> from aifs_peft.methods import StepContext
        >>> from aifs_peft.latent.state import AIFSState
        >>> g = torch.tensor([0, 2, 2])
        >>> context = StepContext(lambda z: z, AIFSState(1), g, g, torch.Generator(), lambda w, k: g, 0)
        >>> group_means(torch.tensor([1.0, 2.0, 4.0]), g, 3, context)
        (tensor([1., 0., 3.]), tensor([1., 0., 2.]))
    """
    values, groups = whole_batch(values, context), whole_batch(groups, context)
    counts = torch.zeros(num_groups, dtype=values.dtype, device=values.device)
    counts = counts.index_add(0, groups, torch.ones_like(values))
    sums = torch.zeros(num_groups, dtype=values.dtype, device=values.device).index_add(0, groups, values)
    return sums / counts.clamp_min(1.0), counts
