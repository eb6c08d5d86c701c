"""Latents of arrays: in memory, memory-mapped, or any that give rows by slices (HDF5, Zarr)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from aifs_peft._checks import to_numpy
from aifs_peft.discovery.arrays import BLOCK_ROWS, Array, IntArray, row_chunks
from aifs_peft.discovery.streaming.source import LatentSource, as_block
from aifs_peft.errors import InvalidInputError


class ArrayLatents(LatentSource):
    """Rows of an array, of which one block at a time is read.

    Args:
        Z: Array of shape `(n, d)` in memory or memory-mapped, a torch tensor, or anything with `shape`, `dtype` and
            slices of rows, such as a data set of h5py.

    Raises:
        InvalidInputError: For another shape or type.

    Example:
        >>> source = ArrayLatents(np.arange(6).reshape(3, 2))
        >>> source.shape, source.dtype, source.take(np.array([0, 2])).tolist()
        ((3, 2), dtype('float32'), [[0.0, 1.0], [4.0, 5.0]])
    """

    def __init__(self, Z: Any) -> None:
        self._rows = Z
        shape = tuple(int(size) for size in Z.shape)
        if len(shape) != 2 or shape[0] == 0 or shape[1] == 0:
            raise InvalidInputError(
                f"Latents of shape {shape} were given; needed is (n, d) with n, d >= 1. "
                "Pool the encoder's output to one vector per example."
            )
        dtype = np.asarray(to_numpy(Z[:1])).dtype
        if dtype.kind not in "fiub":
            raise InvalidInputError(f"Latents of dtype {dtype} were given; needed is a real number type. Convert them.")
        self.shape = (shape[0], shape[1])
        self.dtype = dtype if dtype.kind == "f" else np.dtype(np.float32)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """See `LatentSource`."""
        for part in row_chunks(len(self)):
            yield slice(part.start, min(part.stop, len(self))), as_block(self._rows[part])

    def take(self, rows: IntArray) -> Array:
        """See `LatentSource`; all rows of an array are the array itself, not a copy."""
        whole = len(rows) == len(self) and isinstance(self._rows, np.ndarray)
        return as_block(self._rows) if whole else super().take(rows)

    def picked(self, rows: IntArray) -> Iterator[tuple[slice, Array]]:
        """See `LatentSource`; of an array the other rows are not read."""
        if not isinstance(self._rows, np.ndarray):
            yield from super().picked(rows)
            return
        if len(rows) == len(self):
            yield from self.blocks()
            return
        for start in range(0, len(rows), BLOCK_ROWS):
            chosen = rows[start : start + BLOCK_ROWS]
            yield slice(start, start + len(chosen)), as_block(self._rows[chosen])
