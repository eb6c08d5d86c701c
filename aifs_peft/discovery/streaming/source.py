"""Latents as discovery reads them: blocks of rows one after the other, and some rows by number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft._checks import to_numpy
from aifs_peft.discovery.arrays import BLOCK_ROWS, Array, IntArray
from aifs_peft.discovery.inputs import refuse_unusable, unusable_rows
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.streaming.processes import Processes


class LatentSource(ABC):
    """Latents `(n, d)` that are read block by block.

    Attributes:
        shape: `(n, d)`, the rows of all processes.
        dtype: A floating type.
        processes: Those that hold the rows together; `blocks` gives the rows of this one.

    A source of your own needs `shape`, `dtype` and `blocks`.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    processes: Processes = Processes()

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """The rows of this process in their order, each time anew: which they are, and the latents `(rows, d)`."""

    def picked(self, rows: IntArray) -> Iterator[tuple[slice, Array]]:
        """Some rows, in blocks: those of this process.

        Args:
            rows: Rising row numbers, of all processes.

        Returns:
            Positions in `rows`, and the latents `(positions, d)`; blocks are full but for the last one.
        """
        return full_blocks(
            (slice(low, high), block[rows[low:high] - part.start])
            for part, block in self.blocks()
            for low, high in [np.searchsorted(rows, [part.start, part.stop])]
            if low < high
        )

    def take(self, rows: IntArray) -> Array:
        """Some rows, of any process.

        Args:
            rows: Rising row numbers.

        Returns:
            `(len(rows), d)`, on every process.
        """
        mine = [block for _, block in self.picked(rows)]
        return self.processes.gather_rows(np.concatenate(mine) if mine else np.empty((0, self.shape[1]), self.dtype))

    def gather(self, values: Any) -> Any:
        """Values that belong to the rows of this process, as those of all: labels, weights, hints."""
        return values

    def selected(self, rows: IntArray) -> LatentSource:
        """The same latents without all other rows.

        Args:
            rows: Rising row numbers.
        """
        return _Selected(self, rows)

    def extremes(self) -> tuple[int, float]:
        """Rows of this process with NaN or infinite values, and the largest absolute value of the others; one pass."""
        return unusable_rows(block for _, block in self.blocks())


class _Selected(LatentSource):
    """Some rows of another source."""

    def __init__(self, source: LatentSource, rows: IntArray) -> None:
        self._source, self._kept = source, rows
        self.shape, self.dtype = (len(rows), source.shape[1]), source.dtype
        self.processes = source.processes

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        return self._source.picked(self._kept)

    def picked(self, rows: IntArray) -> Iterator[tuple[slice, Array]]:
        return self._source.picked(self._kept[rows])


def full_blocks(parts: Iterable[tuple[slice, Array]]) -> Iterator[tuple[slice, Array]]:
    """Consecutive blocks of any length as blocks of `BLOCK_ROWS` rows, the last one shorter.

    Products of one block are then the same, to the last bit, wherever its rows came from.

    Args:
        parts: Which rows, and what they hold, one block after the other without a gap.

    Example:
        >>> parts = [(slice(i, i + 3000), np.full((3000, 1), float(i))) for i in range(0, 12000, 3000)]
        >>> [(rows.start, len(block)) for rows, block in full_blocks(parts)]
        [(0, 8192), (8192, 3808)]
    """
    kept: list[Array] = []
    start, held = 0, 0
    for rows, block in parts:
        if not held:
            start = rows.start
        kept.append(block)
        held += len(block)
        while held >= BLOCK_ROWS:
            whole = kept[0] if len(kept) == 1 else np.concatenate(kept)
            yield slice(start, start + BLOCK_ROWS), whole[:BLOCK_ROWS]
            start, held = start + BLOCK_ROWS, held - BLOCK_ROWS
            kept = [whole[BLOCK_ROWS:]] if held else []
    if held:
        yield slice(start, start + held), kept[0] if len(kept) == 1 else np.concatenate(kept)


def reduced(source: LatentSource, reduction: Reduction, rows: IntArray | None = None) -> Array:
    """Rows in reduced coordinates, on every process.

    Args:
        source: The latents.
        reduction: Of the latents.
        rows: Rising row numbers; `None` takes all.

    Returns:
        `(len(rows), k)` float32.
    """
    n = len(source) if rows is None else len(rows)
    X = np.empty((n, reduction.dim), dtype=np.float32)
    filled = []
    for part, block in source.blocks() if rows is None else source.picked(rows):
        X[part] = reduction.transform(block)
        filled.append(part)
    if source.processes.count == 1:
        return X
    mine = X[filled[0].start : filled[-1].stop] if filled else X[:0]
    return source.processes.gather_rows(mine)


def as_block(block: Any) -> Array:
    """A block of latents `(rows, d)`, array or tensor, as a floating array; integers as float32."""
    values: NDArray[Any] = np.asarray(to_numpy(block))
    return values if values.dtype.kind == "f" else values.astype(np.float32)


def check_finite(source: LatentSource) -> None:
    """Refuse latents that hold NaN, infinite or unbearably large values, on all processes alike.

    Args:
        source: The latents, which are read once.

    Raises:
        InvalidInputError: Saying in how many rows.
    """
    bad, largest = source.extremes()
    bad = int(source.processes.total(np.array([float(bad)]))[0])
    refuse_unusable(bad, len(source), source.processes.largest(largest))
