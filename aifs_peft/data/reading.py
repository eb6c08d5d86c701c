"""Files in, tables out: whatever a file holds, the error names it on one line and is one of this package's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.notes import listed, shown
from aifs_peft.errors import DataNotFoundError, InvalidInputError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def reading(path: Path | str, kind: str, where: str = "") -> Iterator[None]:
    """Turn what parsers and decoders raise inside the block into one typed line.

    Args:
        path: the file that is read.
        kind: what it should be, such as "a CSV table".
        where: name of the data set, which begins the message.

    Raises:
        DataNotFoundError: the file does not exist.
        InvalidInputError: it cannot be read, or is of another kind.

    Example:
        >>> with reading("scans.csv", "a CSV table"):
        ...     raise ValueError("No columns to parse from file")
        Traceback (most recent call last):
        ...
        aifs_peft.errors.InvalidInputError: scans.csv cannot be read as a CSV table: No columns to parse from file
    """
    prefix = f"{where}: " if where else ""
    try:
        yield
    except (InvalidInputError, DataNotFoundError):
        raise
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{prefix}{path} is missing") from error
    except _foreign() as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        reason += "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise InvalidInputError(f"{prefix}{path} cannot be read as {kind}: {reason}") from error


def _foreign() -> tuple[type[BaseException], ...]:
    """What NumPy, pandas, pyarrow and the decompressors raise for files that are not what they should be."""
    import csv
    import lzma
    import struct
    import tokenize
    import zipfile
    import zlib

    import pandas as pd
    import pyarrow as pa

    return (
        OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, RecursionError, MemoryError,
        AttributeError, NotImplementedError, SyntaxError, struct.error, csv.Error, zlib.error, lzma.LZMAError,
        zipfile.BadZipFile, tokenize.TokenError, pa.ArrowException, pd.errors.ParserWarning,
    )  # fmt: skip


def read_csv(path: Path, *, where: str = "", **options: Any) -> pd.DataFrame:
    """`pandas.read_csv` with typed errors; a row longer than the header is one instead of a shifted table.

    Args:
        path: CSV file, compressed or not.
        where: name of the data set, for messages.
        **options: for `pandas.read_csv`.

    Returns:
        The table.

    Raises:
        DataNotFoundError: the file does not exist.
        InvalidInputError: it is empty, binary, in another encoding, or a row does not fit the header.
    """
    import pandas as pd

    with reading(path, "a CSV table", where), warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        if "index_col" not in options:
            options["index_col"] = False
        return pd.read_csv(path, low_memory=False, **options)


def require_columns(frame: pd.DataFrame, needed: Sequence[str], path: Path | str, where: str, source: str = "") -> None:
    """Refuse a table that lacks a column.

    Raises:
        InvalidInputError: names every column that is missing, and where the file is to be had.
    """
    absent = [name for name in needed if name not in frame.columns]
    if absent:
        remedy = f"; get it from {source}" if source else ""
        raise InvalidInputError(f"{where}: {path} lacks the columns {', '.join(absent)}{remedy}")


def numbers(
    frame: pd.DataFrame,
    column: str,
    where: str,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    allowed: Collection[float] | None = None,
    whole: bool = False,
    missing: bool = False,
) -> NDArray[np.float64]:
    """A column of a table as checked numbers.

    Args:
        frame: the table; row numbers in messages count its rows from 0.
        column: name of the column.
        where: names data set and file in messages.
        low: smallest value allowed.
        high: largest value allowed.
        allowed: the values allowed, where they are few; None for all.
        whole: refuse fractions.
        missing: let empty cells be, as NaN.

    Returns:
        float64, shape `(rows,)`.

    Raises:
        InvalidInputError: names the column, how many cells are wrong, the first rows and what they hold.

    Example:
        >>> import pandas as pd
        >>> numbers(pd.DataFrame({"age": [30, -7]}), "age", "people.csv", low=0)
        Traceback (most recent call last):
        ...
        aifs_peft.errors.InvalidInputError: people.csv: column 'age' needs numbers from 0; 1 of 2 rows have others
        (row 1: -7)
    """
    import pandas as pd

    values = frame[column]
    read = pd.to_numeric(values, errors="coerce")
    found: NDArray[np.float64] = read.to_numpy(dtype=np.float64, na_value=np.nan)
    empty = values.isna().to_numpy()
    with np.errstate(invalid="ignore"):
        wrong = ~np.isfinite(found) | (found < low) | (found > high)
        if whole:
            wrong |= found != np.round(found)
        if allowed is not None:
            wrong |= ~np.isin(found, list(allowed))
    if missing:
        wrong &= ~empty
    if wrong.any():
        rows = np.flatnonzero(wrong)
        cells = [f"row {row}: {'empty' if empty[row] else shown(values.iloc[row])}" for row in rows[:3]]
        wanted = f"one of {', '.join(f'{v:g}' for v in allowed)}" if allowed is not None else _range(low, high, whole)
        raise InvalidInputError(
            f"{where}: column {column!r} needs {wanted}; {len(rows)} of {len(frame)} rows have others "
            f"({', '.join(cells)}{', ...' if len(rows) > 3 else ''})"
        )
    return found


def _range(low: float, high: float, whole: bool) -> str:
    parts = [f"from {low:g}"] if low > -np.inf else []
    parts += [f"up to {high:g}"] if high < np.inf else []
    return " ".join(["whole numbers" if whole else "numbers", *parts])


def known_values(frame: pd.DataFrame, column: str, known: Collection[object], where: str) -> None:
    """Refuse a column that holds anything but the known values, empty cells included.

    Raises:
        InvalidInputError: names the column, the strange values and how many rows have them.
    """
    wrong = ~frame[column].isin(list(known)).to_numpy()
    if wrong.any():
        strange = sorted({shown(value) for value in frame[column][wrong]})
        raise InvalidInputError(
            f"{where}: {column} must be one of {', '.join(map(str, known))}; {int(wrong.sum())} of "
            f"{len(frame)} rows have {listed([repr(value) for value in strange])}"
        )


def filled(frame: pd.DataFrame, column: str, where: str) -> None:
    """Refuse a column with empty cells.

    Raises:
        InvalidInputError: names the column, how many cells are empty and the first rows.
    """
    empty = np.flatnonzero(frame[column].isna().to_numpy())
    if len(empty):
        raise InvalidInputError(
            f"{where}: column {column!r} is empty in {len(empty)} of {len(frame)} rows (rows {listed(empty.tolist())})"
        )


def inside(folder: Path, names: Sequence[Any], where: str, remedy: str = "") -> list[Path]:
    """Paths that a table names, relative to a folder; none may leave it.

    Args:
        folder: where relative paths start.
        names: file names as the table has them.
        where: names the table, and the column, in messages.
        remedy: what to do about a path outside, as the end of the message.

    Returns:
        One path per name.

    Raises:
        InvalidInputError: a name is no text or leads out of the folder.

    Example:
        >>> inside(Path("birds"), ["../secret.png"], "metadata.csv")
        Traceback (most recent call last):
        ...
        aifs_peft.errors.InvalidInputError: metadata.csv names the file '../secret.png' (row 0), which lies
        outside birds
    """
    # By name alone: links that the user has put into the folder are theirs to follow.
    base = os.path.abspath(folder)  # noqa: PTH100
    paths = []
    for row, name in enumerate(names):
        if not isinstance(name, str | os.PathLike) or not str(name).strip() or "\0" in str(name):
            raise InvalidInputError(f"{where} needs a file name in row {row}; got {name!r}")
        path = os.path.normpath(os.path.join(base, os.fspath(name)))  # noqa: PTH118
        if path != base and not path.startswith(base.rstrip(os.sep) + os.sep):
            raise InvalidInputError(
                f"{where} names the file {str(name)!r} (row {row}), which lies outside {folder}{remedy}"
            )
        paths.append(Path(path))
    return paths
