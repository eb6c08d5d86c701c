"""Attribution of many latents chunk by chunk: beside latents and scores, memory holds one chunk, halved if it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aifs_peft.errors import NonFiniteError
from aifs_peft.latent.attribution.targets import Attribution, summarise


@dataclass(frozen=True)
class Chunk:
    """What one chunk of `n` latents gives.

    Attributes:
        scores: `(n, dim)`.
        change: `(n,)`, what they should add up to.
        explained: `(n,)`, what accounts for the change beside the scores; None for nothing.
    """

    scores: Tensor
    change: Tensor
    explained: Tensor | None = None


def attribute_in_chunks(
    z: Tensor, size: int, work: Callable[[slice, int], Chunk], tolerance: float | None
) -> Attribution:
    """Scores of all latents, from those of chunks.

    Args:
        z: latents `(batch, dim)`.
        size: latents in one chunk, at least 1; halved each time a chunk does not fit into memory.
        work: gives a chunk's scores from its rows and from the present size.
        tolerance: the largest completeness error to accept, None for any.

    Returns:
        The attribution.

    Raises:
        NonFiniteError: when a score or the change is NaN or infinite.
        CompletenessError: when the completeness error is above `tolerance`.
    """
    scores: Tensor | None = None
    residual, change = z.new_empty(0), z.new_empty(0)
    done = 0
    while done < len(z):
        rows = slice(done, min(done + size, len(z)))
        try:
            chunk = work(rows, size)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not _out_of_memory(error):
                raise
            size = max(1, min(size, len(z)) // 2)
            continue
        if not bool(torch.isfinite(chunk.scores).all()) or not bool(torch.isfinite(chunk.change).all()):
            raise NonFiniteError(
                "an attribution is NaN or infinite; the latents or the head overflow: check them with torch.isfinite"
            )
        if scores is None:
            scores = chunk.scores.new_empty((len(z), chunk.scores.shape[1]))
            residual, change = chunk.change.new_empty(len(z)), chunk.change.new_empty(len(z))
        scores[rows], change[rows] = chunk.scores, chunk.change
        residual[rows] = chunk.scores.sum(dim=1) - chunk.change
        if chunk.explained is not None:
            residual[rows] += chunk.explained
        done = rows.stop
    assert scores is not None  # noqa: S101 - there is at least one latent
    return summarise(scores, residual, change, tolerance)


def _out_of_memory(error: Exception) -> bool:
    """Whether a device, or the machine, had no memory left; of the machine torch says so in words alone."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    from accelerate.utils.memory import should_reduce_batch_size

    return bool(should_reduce_batch_size(error))
