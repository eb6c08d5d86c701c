"""Latents of Arrow: a column of a `datasets.Dataset`, or of a table of pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from aifs_peft.discovery.arrays import BLOCK_ROWS, Array
from aifs_peft.discovery.streaming.source import LatentSource
from aifs_peft.errors import InvalidInputError


class ColumnLatents(LatentSource):
    """The vectors of a column, of which one block at a time is read from the file.

    Args:
        column: `dataset["latents"]` of a `datasets.Dataset`, also of a shuffled, sharded or selected one; or
            `table["latents"]` of pyarrow, a `ChunkedArray` of lists.
        dtype: Precision in which blocks are given, a floating type; `None` for that of the column.

    Raises:
        InvalidInputError: Where the column holds no vectors of one length, or misses some.

    Example:
        >>> from datasets import Dataset
        >>> dataset = Dataset.from_dict({"latents": [[0.0, 1.0], [2.0, 3.0]], "label": [0, 1]})
        >>> ColumnLatents(dataset["latents"]).take(np.array([1])).tolist()
        [[2.0, 3.0]]
    """

    def __init__(self, column: Any, dtype: Any = None) -> None:
        self._given: np.dtype[Any] | None = None if dtype is None else np.dtype(dtype)
        self._slice = _DatasetColumn(column) if is_dataset_column(column) else column
        self._width = 0
        if len(column) == 0:
            raise InvalidInputError("The column of latents holds no rows; needed is one vector per example.")
        first = self._read(slice(0, 1))
        self._width = first.shape[1]
        self.shape, self.dtype = (len(column), self._width), first.dtype

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """See `LatentSource`."""
        for start in range(0, len(self), BLOCK_ROWS):
            part = slice(start, min(start + BLOCK_ROWS, len(self)))
            yield part, self._read(part)

    def _read(self, part: slice) -> Array:
        """Rows as one array, without a copy where they lie side by side."""
        import pyarrow as pa

        column = self._slice[part]
        chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(chunk, pa.ExtensionArray):  # `Array2D` and its like
            chunk = chunk.storage
        nested = pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type)
        if not (nested or pa.types.is_fixed_size_list(chunk.type)):
            raise InvalidInputError(f"A column of {chunk.type} was given as latents; needed is one vector per example.")
        values = chunk.flatten()  # of these rows alone, also where the chunk is a slice of a longer one
        width = len(values) // len(chunk)
        lengths = chunk.value_lengths() if nested else None
        if (
            chunk.null_count
            or values.null_count
            or width == 0
            or width * len(chunk) != len(values)
            or (lengths is not None and not np.all(lengths.to_numpy(zero_copy_only=False) == width))
            or self._width not in (0, width)
        ):
            raise InvalidInputError(
                f"Rows {part.start} to {part.stop - 1} of the column hold vectors that are missing or of different "
                "lengths; needed is one vector of the same length per example."
            )
        block: Array = values.to_numpy(zero_copy_only=False).reshape(len(chunk), width)
        if block.dtype.kind not in "fiub":
            raise InvalidInputError(f"Latents of dtype {block.dtype} were given; needed is a real number type.")
        kept = block.dtype if block.dtype.kind == "f" else np.dtype(np.float32)
        return block.astype(self._given or kept, copy=False)


def is_dataset_column(column: Any) -> bool:
    """Whether it is a column that a `datasets.Dataset` has given."""
    return type(column).__module__.startswith("datasets.") and hasattr(column, "column_name")


def is_column(column: Any) -> bool:
    """Whether it is a column of Arrow, by `datasets` or pyarrow."""
    of_arrow = type(column).__module__.startswith("pyarrow.") and type(column).__name__ == "ChunkedArray"
    return of_arrow or is_dataset_column(column)


def as_values(column: Any) -> Any:
    """A column of labels as an array; everything else as it is.

    Example:
        >>> from datasets import Dataset
        >>> as_values(Dataset.from_dict({"label": ["cat", "dog"]})["label"]).tolist(), as_values([1, 2])
        (['cat', 'dog'], [1, 2])
    """
    if not is_column(column):
        return column
    whole = _DatasetColumn(column)[slice(None)] if is_dataset_column(column) else column
    return whole.to_numpy()


class _DatasetColumn:
    """Slices of a data set's column as Arrow; the indices of a selection are followed."""

    def __init__(self, column: Any) -> None:
        self._name = column.column_name
        self._rows = column.source.with_format("arrow", columns=[self._name])

    def __getitem__(self, part: slice) -> Any:
        return self._rows[part].column(self._name)
