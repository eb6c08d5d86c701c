"""The processes that hold the latents together: sums, rows and results that all of them get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from aifs_peft.discovery.arrays import Array

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """How many processes there are and which this one is; the defaults are those of a process on its own.

    With several, every method is a collective call: all of them make it, in the same order.

    Args:
        count: Number of processes.
        rank: Of this one.
    """

    count: int = 1
    rank: int = 0

    def total(self, values: Array) -> Array:
        """The sum over all processes, float64."""
        values = np.asarray(values, dtype=np.float64)
        if self.count == 1:
            return values
        import torch
        import torch.distributed as dist

        tensor = torch.as_tensor(values).to(_device())
        dist.all_reduce(tensor)
        return np.asarray(tensor.cpu().numpy())

    def largest(self, value: float) -> float:
        """The largest of the processes' values."""
        return float(max(self.gather(value)))

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, in their order; anything that can be pickled."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def gather_rows(self, rows: Array) -> Array:
        """The rows of all processes, one after the other."""
        return rows if self.count == 1 else np.concatenate(self.gather(rows))

    def first(self, work: Callable[[], Result]) -> Result:
        """The result of `work` on the first process, which alone does it; an error is raised on all of them."""
        if self.count == 1:
            return work()
        import torch.distributed as dist

        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = work()
            except Exception as error:  # noqa: BLE001 - raised again below, on every process
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        result: Result = outcome[0]
        return result


def all_processes() -> Processes:
    """Those of `torch.distributed`, if a process group was started (`torchrun`, `accelerate launch`); else this one."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return Processes()
    return Processes(dist.get_world_size(), dist.get_rank())


def _device() -> Any:
    """Where tensors must lie to be summed: NCCL takes those of an accelerator only."""
    import torch
    import torch.distributed as dist

    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
