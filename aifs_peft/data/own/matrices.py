"""Latents of own data as matrices that need not fit into memory: read in blocks of rows, kept in a file if large."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft._rows import BLOCK_ROWS, row_chunks
from aifs_peft.data.reading import reading
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa

Single = NDArray[np.float32]

LARGE = 1 << 24
"""From so many numbers on (64 MB) a column of vectors in a file is read as a matrix, not cell by cell."""
IN_MEMORY = 1 << 26
"""Matrices of more numbers (256 MB) are kept in a temporary file, which ends with the process."""


def empty_matrix(n: int, width: int) -> Single:
    """A matrix to be filled: in memory, or memory-mapped in a file without a name in the folder for temporary files.

    Args:
        n: number of rows.
        width: number of columns.
    """
    if n * width <= IN_MEMORY:
        return np.empty((n, width), dtype=np.float32)
    with tempfile.TemporaryFile() as stream:  # the map keeps the file until nobody holds it
        return np.memmap(stream, dtype=np.float32, mode="w+", shape=(n, width))


def single(values: NDArray[Any]) -> Single:
    """A matrix in single precision; a copy only where it has another one.

    Args:
        values: numbers `(n, d)`, an array or a memory map.
    """
    if values.dtype == np.float32:
        return values
    out = empty_matrix(*values.shape)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told as such
        for part in row_chunks(len(values)):
            out[part] = values[part]
    return out


def chosen(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Some rows of a matrix, in their order; all rows are the matrix itself.

    Args:
        values: `(n, d)`.
        rows: their rising numbers.
    """
    if len(rows) == len(values):
        return values
    if len(rows) * values.shape[1] <= IN_MEMORY:
        return values[rows]
    out = empty_matrix(len(rows), values.shape[1])
    for part in row_chunks(len(rows)):
        out[part] = values[rows[part]]
    return out


def below(tables: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Matrices one below the other.

    Args:
        tables: of the same width.
    """
    n, width = sum(map(len, tables)), tables[0].shape[1]
    if n * width <= IN_MEMORY:
        return np.concatenate(tables)
    out, start = empty_matrix(n, width), 0
    for table in tables:
        for part in row_chunks(len(table)):
            out[start + part.start : start + part.stop] = table[part]
        start += len(table)
    return out


def beside(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Matrices of the same rows side by side, in single precision; one alone is itself.

    Args:
        parts: `(n, d)` each.
    """
    if len(parts) == 1:
        return parts[0]
    out, column = empty_matrix(len(parts[0]), sum(part.shape[1] for part in parts)), 0
    with np.errstate(over="ignore"):
        for part in parts:
            out[:, column : column + part.shape[1]] = part
            column += part.shape[1]
    return out


def unfinite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows with a value that is NaN or infinite, `(n,)`."""
    out = np.zeros(len(values), dtype=bool)
    for part in row_chunks(len(values)):
        out[part] = ~np.isfinite(values[part]).all(axis=1)
    return out


def is_vector_type(kind: pa.DataType) -> bool:
    """Whether a column of Arrow holds lists of fractions, as latents are."""
    import pyarrow as pa

    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def matrix_of(blocks: Iterable[pa.Array], n: int, where: str, column: str) -> Single:
    """The vectors of a column of Arrow, block by block.

    Args:
        blocks: lists of fractions, one after the other.
        n: how many there are in all.
        where: the source, for messages.
        column: its name, for messages.

    Returns:
        `(n, d)`, NaN where a number is missing.

    Raises:
        InvalidInputError: vectors of different lengths, or a row without one.

    Example:
        >>> import pyarrow as pa
        >>> matrix_of([pa.array([[0.0, 1.0]]), pa.array([[2.0, 3.0]])], 2, "here", "Z").tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """
    out, start = np.empty((0, 0), dtype=np.float32), 0
    for block in blocks:
        values, stop = block.flatten(), start + len(block)
        width = out.shape[1] or (len(values) // len(block) if len(block) else 0)
        if block.null_count or len(values) != width * len(block) or not _even(block, width):
            raise InvalidInputError(
                f"{where}: column {column!r} needs vectors of one length; rows {start} to {stop - 1} lack some, or "
                f"hold others than {width} numbers"
            )
        if not out.size and width:
            out = empty_matrix(n, width)
        with np.errstate(over="ignore"):
            out[start:stop] = values.to_numpy(zero_copy_only=False).reshape(len(block), width)
        start = stop
    return out


def _even(block: pa.Array, width: int) -> bool:
    """Whether every list of a block is of one length; nothing else is where Arrow fixes it."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(block.type):
        return True
    return bool(np.all(block.value_lengths().to_numpy(zero_copy_only=False) == width))


def large_columns(paths: Sequence[Path]) -> list[str]:
    """Columns of vectors in Parquet files that hold `LARGE` numbers or more.

    Args:
        paths: of files with the same columns.
    """
    import pyarrow.parquet as pq

    sizes: dict[str, int] = {}
    for path in paths:
        with reading(path, "a Parquet table"), pq.ParquetFile(path) as file:
            vectors = [field.name for field in file.schema_arrow if is_vector_type(field.type)]
            for group in range(file.metadata.num_row_groups if vectors else 0):
                found = file.metadata.row_group(group)
                for i in range(found.num_columns):
                    name = found.column(i).path_in_schema.partition(".")[0]
                    if name in vectors:
                        sizes[name] = sizes.get(name, 0) + found.column(i).num_values
    return [name for name, size in sizes.items() if size >= LARGE]


def parquet_batches(path: Path, columns: Sequence[str] | None, size: int) -> Iterator[pa.RecordBatch]:
    """Rows of a Parquet file, group by group: asked for all groups at once, pyarrow reads far ahead and keeps it.

    Args:
        path: the file.
        columns: which; None for all.
        size: most rows at a time.
    """
    import pyarrow.parquet as pq

    wanted = None if columns is None else list(columns)
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.iter_batches(batch_size=size, row_groups=[group], columns=wanted)


def parquet_matrix(paths: Sequence[Path], column: str) -> Single:
    """A column of vectors of Parquet files, read in blocks of rows.

    Args:
        paths: of files with the same columns, one below the other.
        column: its name.
    """
    import pyarrow.parquet as pq

    def blocks() -> Iterator[pa.Array]:
        for path in paths:
            with reading(path, "a Parquet table"):
                for batch in parquet_batches(path, [column], BLOCK_ROWS):
                    yield batch.column(0)

    n = 0
    for path in paths:
        with reading(path, "a Parquet table"):
            n += pq.read_metadata(path).num_rows
    return matrix_of(blocks(), n, str(paths[0]), column)


def dataset_matrix(rows: Any, column: str, where: str) -> Single:
    """A column of vectors of a `datasets.Dataset`, read in blocks of rows.

    Args:
        rows: the data set.
        column: its name.
        where: the source, for messages.
    """
    read = rows.with_format("arrow", columns=[column])

    def blocks() -> Iterator[pa.Array]:
        for part in row_chunks(len(rows)):
            yield read[part].column(column).combine_chunks()

    return matrix_of(blocks(), len(rows), where, column)


def read_array(path: Path) -> NDArray[Any]:
    """An array of NumPy as a memory map; none that would need pickle, which could run code.

    Args:
        path: an `.npy` file.

    Raises:
        InvalidInputError: it is damaged, or holds Python objects.
    """
    with reading(path, "an array of NumPy (npy)"):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise InvalidInputError(f"{path} is no array of NumPy: it holds several, and is called .npz by its writer")
        return array
