"""Reduced latents that are computed in blocks of rows when they are asked for, so that memory does not grow with `n`.

Reduced to 256 components, a million latents of width 768 take 1 GB. Nothing needs them all at once: candidates are
fitted on a sample, and what covers all rows (who carries which value, sums of latents) goes through them block by
block. So functions that cover all rows read `X[part]` for `part in row_chunks(len(X))`, which an array understands as
well as `ReducedRows` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aifs_peft.discovery.arrays import Array, BoolArray, IntArray, row_chunks


@dataclass(frozen=True)
class ReducedRows:
    """`(source - mean) @ projection`, of the rows that are asked for.

    Args:
        source: Latents of any float type, `(n, d)`: an array or a memory map.
        mean: Shape `(d,)`.
        projection: Shape `(d, k)`.

    Example:
        >>> X = ReducedRows(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([2.0, 5.0]), np.eye(2)[:, :1])
        >>> X.shape, X[np.array([1])].tolist()
        ((2, 1), [[1.0]])
    """

    source: Array
    mean: Array
    projection: Array

    @property
    def shape(self) -> tuple[int, int]:
        """`(n, k)`."""
        return len(self.source), int(self.projection.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows that are returned."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: slice | IntArray | BoolArray) -> Array:
        """Coordinates of consecutive rows, or of those whose numbers are given: float32, `(m, k)`."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise ValueError(f"a slice of consecutive rows is needed; its step is {step}. Give row numbers.")
            count = max(stop - start, 0)
            parts: list[Any] = [slice(start + part.start, min(start + part.stop, stop)) for part in row_chunks(count)]
        else:
            index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
            count = len(index)
            parts = [index[part] for part in row_chunks(count)]
        out = np.empty((count, self.projection.shape[1]), dtype=np.float32)
        mean, projection = self.mean.astype(np.float32), self.projection.astype(np.float32)
        for part, chosen in zip(row_chunks(count), parts, strict=True):
            np.matmul(np.asarray(self.source[chosen], dtype=np.float32) - mean, projection, out=out[part])
        return out

    def leading(self, k: int) -> ReducedRows:
        """The same rows in the first `k` coordinates."""
        return replace(self, projection=self.projection[:, :k])


ReducedLatents = Array | ReducedRows


def leading(X: ReducedLatents, k: int) -> ReducedLatents:
    """The first `k` coordinates of reduced latents, without a copy.

    Args:
        X: Reduced latents, shape `(n, k)` or wider.
        k: Number of coordinates.

    Example:
        >>> leading(np.zeros((5, 3)), 2).shape
        (5, 2)
    """
    return X.leading(k) if isinstance(X, ReducedRows) else X[:, :k]
