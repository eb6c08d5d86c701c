"""How the processes of a run act as one; the defaults are those of a single process, and need no accelerate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from aifs_peft.latent.state import AIFSState


def _same(x: Tensor) -> Tensor:
    return x


def _call(function: Callable[[], Any]) -> Any:
    return function()


def _nothing(state: AIFSState) -> None:
    del state


@dataclass(frozen=True)
class Processes:
    """What a training method and its loop need of the other processes.

    Attributes:
        rank: of this process.
        world_size: number of processes.
        gather: rows of all processes, as many on each: `(n, ...)` to `(world_size * n, ...)`.
        gather_rows: rows of all processes on the CPU, each may hold another number: `(n_rank, ...)` to `(sum, ...)`.
        reduce_sum: the sum of a tensor over all processes.
        on_main: `on_main(f)` runs `f` on one process and gives its result, or raises its error, on all of them.
        share_state: makes the main process's state that of all.

    Example:
        >>> Processes().on_main(lambda: 3)
        3
    """

    rank: int = 0
    world_size: int = 1
    gather: Callable[[Tensor], Tensor] = _same
    gather_rows: Callable[[Tensor], Tensor] = Tensor.cpu
    reduce_sum: Callable[[Tensor], Tensor] = _same
    on_main: Callable[[Callable[[], Any]], Any] = _call
    share_state: Callable[[AIFSState], None] = _nothing
