"""What a model reads: pictures, texts or vectors of own data, checked before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aifs_peft._rows import row_chunks
from aifs_peft.data.images import to_rgb
from aifs_peft.data.notes import listed, shown
from aifs_peft.data.own.matrices import beside, empty_matrix, single, unfinite
from aifs_peft.data.own.rows import Rows
from aifs_peft.data.own.values import MISSING_WORDS, is_missing
from aifs_peft.data.reading import inside
from aifs_peft.data.tables import encode_png, image_column
from aifs_peft.errors import InvalidInputError

LEAVES = "; name the folder that holds all pictures: root="


def missing_inputs(rows: Rows, column: str, root: Path | None) -> NDArray[np.bool_]:
    """Where a column of paths or texts is empty, or names a file that is not there or empty: `(n,)`.

    Args:
        rows: the table.
        column: of paths, pictures or texts.
        root: folder of the pictures, `None` for texts and for pictures in the table itself.
    """
    empty = is_missing(rows, column)
    if root is None:
        return empty
    values = rows.frame[column].tolist()
    for index in np.flatnonzero(~empty).tolist():
        path = os.path.join(root, values[index])  # noqa: PTH118
        empty[index] = not os.path.isfile(path) or os.path.getsize(path) == 0  # noqa: PTH113, PTH202
    return empty


def is_paths(rows: Rows, column: str) -> bool:
    """Whether a column of pictures holds paths; it must hold only paths, or none.

    Raises:
        InvalidInputError: addresses of the web, which are never fetched, or a mixture.
    """
    filled = [v for v, no in zip(rows.frame[column].tolist(), is_missing(rows, column), strict=True) if not no]
    values = [value for value in filled if isinstance(value, str | os.PathLike)]
    if not values:
        return False
    web = [value for value in values if str(value).lower().startswith(("http://", "https://"))]
    if web:
        raise InvalidInputError(
            f"{rows.where}: column {column!r} holds addresses of the web ({shown(web[0])}), which are not fetched; "
            "download the pictures and give their paths"
        )
    if len(filled) > len(values):
        raise InvalidInputError(
            f"{rows.where}: column {column!r} holds {len(values)} paths and {len(filled) - len(values)} other values"
        )
    return True


def picture_root(rows: Rows, column: str, root: str | Path | None) -> Path:
    """The folder where the paths of a table start: `root`, the table's own, or the one folder below it that holds them.

    Args:
        rows: the table.
        column: of paths.
        root: folder that the user names.

    Raises:
        InvalidInputError: `root` is no folder, or a path leads out of the folder.
    """
    if root is not None and not (isinstance(root, str | Path) and os.path.isdir(root)):  # noqa: PTH112 - takes any name
        raise InvalidInputError(f"root must be the folder of the pictures; {str(root)[:200]!r} is none")
    folder = Path(root) if root is not None else rows.folder or Path()
    names = [
        str(v) for v, empty in zip(rows.frame[column].tolist(), is_missing(rows, column), strict=True) if not empty
    ]
    if root is not None or rows.confined:
        inside(folder, names, f"{rows.where}: column {column!r}", LEAVES if root is None else "")
    if root is not None or not names or (folder / names[0]).exists():
        return folder
    below = [p for p in sorted(folder.iterdir()) if p.is_dir() and (p / names[0]).is_file()] if folder.is_dir() else []
    return below[0] if len(below) == 1 else folder


def pictures(rows: Rows, column: str, root: Path | None) -> pa.Array:
    """The storage of an `Image()` column: paths, or files in the table, or arrays.

    Raises:
        InvalidInputError: a value that is no picture.
    """
    from datasets import Image

    values = rows.frame[column].tolist()
    if root is not None:
        return image_column(paths=[os.path.abspath(os.path.join(root, value)) for value in values])  # noqa: PTH100, PTH118
    feature = Image()
    stored = []
    for row, value in enumerate(values):
        try:
            if isinstance(value, np.ndarray | list):
                value = {"bytes": encode_png([np.asarray(to_rgb(value))])[0], "path": None}
            stored.append(feature.encode_example(value))
        except (TypeError, ValueError, KeyError, AttributeError, OSError) as error:
            which = np.arange(len(values)) == row
            raise InvalidInputError(
                f"{rows.where}: column {column!r} holds no picture ({rows.at(which)}: {type(value).__name__}); needed "
                "are paths, bytes of files, Pillow images or arrays"
            ) from error
    return pa.array(stored, type=pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def texts(rows: Rows, column: str) -> list[str]:
    """A column of texts.

    Raises:
        InvalidInputError: a value that is no text.
    """
    values = rows.frame[column].tolist()
    odd = np.asarray([not isinstance(value, str) for value in values], dtype=bool)
    if odd.any():
        example = values[int(np.flatnonzero(odd)[0])]
        raise InvalidInputError(
            f"{rows.where}: column {column!r} holds {int(odd.sum())} values that are no text ({rows.at(odd)}; for "
            f"example {shown(example)}, a {type(example).__name__})"
        )
    return list(values)


def vectors(rows: Rows, columns: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Numbers that a model reads.

    Args:
        rows: the table.
        columns: a matrix, a column of vectors, or columns of numbers and booleans.

    Returns:
        float32 `(n, d)`, and where a value is missing or not finite, `(n,)`.

    Raises:
        InvalidInputError: values that are no numbers, or vectors of different lengths.
    """
    values = beside([_matrix(rows, column) for column in columns])
    if not values.shape[1]:
        raise InvalidInputError(f"{rows.where}: column {columns[0]!r} holds vectors of length 0")
    numbers = single(values)
    if len(columns) == 1 and columns[0] in rows.vectors:
        rows.vectors[columns[0]] = numbers  # converted once
    return numbers, unfinite(numbers)


def _matrix(rows: Rows, column: str) -> NDArray[Any]:
    if column in rows.vectors:
        return rows.vectors[column]
    values = rows.frame[column].tolist()
    if any(isinstance(value, list | tuple | np.ndarray) for value in values):
        return _stacked(rows, column, values)
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(rows.frame[column]):
        raise InvalidInputError(f"{rows.where}: column {column!r} holds dates; features must be numbers")
    if rows.frame[column].dtype.kind in "fiub" and isinstance(rows.frame[column].dtype, np.dtype):
        return np.asarray(rows.frame[column], dtype=np.float64)[:, None]
    cells = [_number(value) for value in values]
    odd = np.asarray([cell is None for cell in cells], dtype=bool)
    if odd.any():
        example = values[int(np.flatnonzero(odd)[0])]
        raise InvalidInputError(
            f"{rows.where}: column {column!r}, a feature, holds {int(odd.sum())} values that are no numbers "
            f"({rows.at(odd)}; for example {shown(example)}); encode categories first, or leave the column out"
        )
    return np.asarray(cells, dtype=np.float64)[:, None]


def _number(value: Any) -> float | None:
    """A cell as a number, NaN where it is missing, None where it is none."""
    if value is None or (isinstance(value, str) and value.strip() in MISSING_WORDS - {"-100"}):
        return float("nan")
    try:
        return {"true": 1.0, "false": 0.0}.get(value.strip().lower()) if _is_truth(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        import pandas as pd

        return float("nan") if value is pd.NA or value is pd.NaT else None


def _is_truth(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in ("true", "false")


def _stacked(rows: Rows, column: str, values: list[Any]) -> NDArray[np.float32]:
    lengths = [len(value) if isinstance(value, list | tuple | np.ndarray) else -1 for value in values]
    odd = np.asarray([length != lengths[0] for length in lengths], dtype=bool)
    if odd.any() or lengths[0] < 0:
        found = sorted(set(lengths))
        raise InvalidInputError(
            f"{rows.where}: column {column!r} needs vectors of one length; it has the lengths {listed(found)} "
            f"(-1: no vector; {rows.at(odd)})"
        )
    out = empty_matrix(len(values), lengths[0])
    try:
        with np.errstate(over="ignore"):
            for part in row_chunks(len(values)):
                block = np.asarray([np.asarray(value, dtype=np.float64) for value in values[part]])
                out[part] = block.reshape(part.stop - part.start, lengths[0])
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{rows.where}: column {column!r} needs vectors of numbers: {shown(error)}") from error
    return out
