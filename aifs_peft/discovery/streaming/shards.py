"""Latents of which every process holds a part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from aifs_peft._checks import to_numpy
from aifs_peft.discovery.arrays import Array, IntArray
from aifs_peft.discovery.streaming.processes import all_processes
from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.discovery.streaming.source import LatentSource
from aifs_peft.errors import InvalidInputError


class ShardedLatents(LatentSource):
    """The rows of this process; those of all processes together, in the order of their ranks, are the latents.

    Every process of `torch.distributed` makes one of its own rows and calls `discover` or `AIFSClassifier.fit` with it
    and with its own labels. Each goes through its own rows; what travels is sums of `k x k` numbers, the rows that the
    search is made on, and at the end the label and the inferred value of every example. All get the same result, which
    covers the rows of all. Without a process group it is the rows of the one process.

    Args:
        Z: Latents of this process, whatever `discover` takes.

    Raises:
        InvalidInputError: On all processes, where one of them has rows of another width than the first.

    Example:
        >>> from aifs_peft.discovery import discover
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> discover(ShardedLatents(Z), y, random_state=0).found
        True
    """

    def __init__(self, Z: Any) -> None:
        self._own = as_source(Z)
        self.processes = all_processes()
        sizes = [(0, 0), *self.processes.gather(self._own.shape)]
        widths = sorted({width for _, width in sizes[1:]})
        if len(widths) > 1:
            raise InvalidInputError(
                f"The processes hold latents of widths {', '.join(map(str, widths))}; needed is one width on all."
            )
        ends = np.cumsum([rows for rows, _ in sizes])
        self._sizes = [rows for rows, _ in sizes[1:]]
        self._start = int(ends[self.processes.rank])
        self.shape = (int(ends[-1]), widths[0])
        self.dtype = np.result_type(*self.processes.gather(self._own.dtype))

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """See `LatentSource`."""
        for part, block in self._own.blocks():
            yield slice(part.start + self._start, part.stop + self._start), np.asarray(block, dtype=self.dtype)

    def picked(self, rows: IntArray) -> Iterator[tuple[slice, Array]]:
        """See `LatentSource`."""
        low, high = np.searchsorted(rows, [self._start, self._start + len(self._own)])
        for part, block in self._own.picked(rows[low:high] - self._start):
            yield slice(part.start + low, part.stop + low), np.asarray(block, dtype=self.dtype)

    def gather(self, values: Any) -> Any:
        """See `LatentSource`."""
        if values is None or self.processes.count == 1:
            return values
        if isinstance(values, Mapping) or hasattr(values, "columns"):
            return {name: self.gather(values[name]) for name in values.keys()}  # noqa: SIM118 - a DataFrame has columns
        parts = self.processes.gather(np.asarray(to_numpy(values)))
        lengths = [len(part) for part in parts]
        if lengths != self._sizes:
            raise InvalidInputError(
                f"The processes hold {self._sizes} latents, and {lengths} labels, weights or hints for them; needed is "
                "one for each, given by the process that holds the latent."
            )
        return np.concatenate(parts)
