"""Tables in files, as `Rows`: CSV, TSV, Parquet, JSON, JSON lines, and `npz` files of latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.notes import tell
from aifs_peft.data.own.matrices import large_columns, parquet_matrix, read_array
from aifs_peft.data.own.rows import Rows, single, stacked
from aifs_peft.data.own.values import MISSING_WORDS
from aifs_peft.data.reading import read_csv, reading
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

TABLES = frozenset({".csv", ".tsv", ".parquet", ".pq", ".json", ".jsonl", ".ndjson", ".npz"})
"""Endings of files that are read as tables, some of them also packed (`.csv.gz`)."""
SEPARATORS = (",", ";", "\t", "|")
"""What stands between the cells of a row: spreadsheets of many countries write semicolons into a CSV file."""
_DECIMAL_COMMA = r"[+-]?[0-9]+(,[0-9]+)?"
_AS_TEXT: dict[str, Any] = {"dtype": str, "keep_default_na": False}


def read_file(path: Path, part: str = "") -> Rows:
    """One table.

    Args:
        path: its file; the ending says what it is.
        part: the split that the file holds, empty where it holds all.

    Returns:
        Its rows; paths in it are relative to its folder and must stay there.

    Raises:
        DataNotFoundError: it does not exist.
        InvalidInputError: it cannot be read as what its ending says, or is no table.
    """
    from aifs_peft.data.own.sources import suffix

    if path.is_dir() or not path.exists():
        with reading(path, "a table"):
            path.open("rb").close()
    kind = suffix(path)
    where = str(path)
    if kind == ".npz":
        return _of_npz(path, part)
    if kind in (".csv", ".tsv"):
        # As text: what a value means is decided by its role, so that a class "01" stays "01" and a text "nan" a text.
        frame = _of_text(path, "\t" if kind == ".tsv" else ",").astype(object)
    elif kind in (".parquet", ".pq"):
        return _of_parquet([path], part)
    elif kind in (".json", ".jsonl", ".ndjson"):
        frame = _of_json(path, lines=kind != ".json")
    else:
        if kind == ".npy":
            raise InvalidInputError(
                f"{path} holds one array; needed are labels, too. Name the folder in which it lies beside them, each "
                "called as its column (Z.npy and y.npy), or write one file by numpy.savez"
            )
        raise InvalidInputError(
            f"{path}: an ending of {', '.join(sorted(TABLES))} says how a table is read; got {kind!r}"
        )
    return _of_frame(where, frame, part, path.parent)


def read_shards(paths: list[Path], part: str = "") -> Rows:
    """One table in several files, whose rows follow each other.

    Args:
        paths: the files, in order.
        part: the split that they hold, empty where they hold all.

    Raises:
        InvalidInputError: one cannot be read, or has other columns than the others.
    """
    from aifs_peft.data.own.sources import suffix

    if all(suffix(path) in (".parquet", ".pq") for path in paths):
        return _of_parquet(paths, part)
    rows = stacked(str(paths[0].parent), [read_file(path, part) for path in paths])
    rows.numbers = np.arange(len(rows))
    return rows


def _of_frame(where: str, frame: pd.DataFrame, part: str, folder: Path, vectors: Any = None) -> Rows:
    frame = frame.rename(columns=str)
    if frame.columns.duplicated().any():
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InvalidInputError(f"{where} has the column {twice!r} more than once; rename one")
    # An index that was written as a column has no name.
    frame = frame.drop(columns=[name for name in frame.columns if name.startswith("Unnamed: ")])
    return single(where, frame, part, folder=folder, confined=True, vectors=vectors or {})


def _of_parquet(paths: list[Path], part: str) -> Rows:
    """One table in one or several files of Parquet; large columns of vectors as matrices."""
    import pandas as pd
    import pyarrow.parquet as pq

    names = []
    for path in paths:
        with reading(path, "a Parquet table"):
            names.append(pq.read_schema(path).names)
        lacking = sorted(set(names[0]) ^ set(names[-1]))
        if lacking:
            raise InvalidInputError(
                f"{path.parent}: {paths[0].name} and {path.name} are parts of one table and need the same columns; "
                f"{', '.join(map(repr, lacking))} {'is' if len(lacking) == 1 else 'are'} not in both"
            )
    large = large_columns(paths)
    rest = [name for name in names[0] if name not in large] if large else None
    frames = []
    for path in paths:
        with reading(path, "a Parquet table"):
            frames.append(pd.read_parquet(path, columns=rest))
    vectors = {name: parquet_matrix(paths, name) for name in large}
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    if large and not len(frame.columns):
        frame = pd.DataFrame(index=range(len(vectors[large[0]])))
    where = str(paths[0] if len(paths) == 1 else paths[0].parent)
    return _of_frame(where, frame, part, paths[0].parent, vectors)


def _of_text(path: Path, separator: str) -> pd.DataFrame:
    """A CSV table as text, by the separator of its header."""
    separator = separator_of(path, separator)
    frame = read_csv(path, sep=separator, **_AS_TEXT)
    # Pandas gives a second column of the same name another one.
    header = header_of(path, separator)
    frame.columns = [str(name) if name else str(own) for name, own in zip(header, frame.columns, strict=True)]
    return _decimal_points(frame) if separator == ";" else frame


def separator_of(path: Path, usual: str = ",") -> str:
    """What separates the columns of a CSV file; its header decides, because rows hold commas in numbers and texts.

    Args:
        path: the file, compressed or not.
        usual: the separator that its ending stands for; taken where others give as many columns.

    Returns:
        One of `SEPARATORS`.

    Raises:
        InvalidInputError: its header cannot be read.
    """
    widths = {mark: len(header_of(path, mark)) for mark in dict.fromkeys((usual, *SEPARATORS))}
    return max(widths, key=lambda mark: widths[mark])


def header_of(path: Path, separator: str) -> list[Any]:
    """The names in the first line of a CSV file.

    Args:
        path: the file, compressed or not.
        separator: of its columns.
    """
    names: list[Any] = read_csv(path, header=None, nrows=1, sep=separator, **_AS_TEXT).iloc[0].tolist()
    return names


def _decimal_points(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of numbers with a decimal comma, which is why semicolons separate them, with a point."""
    for name in frame.columns[~frame.columns.duplicated(keep=False)]:
        cells = frame[name].str.strip()
        filled = cells[~cells.isin(MISSING_WORDS)]
        if filled.str.contains(",").any() and filled.str.fullmatch(_DECIMAL_COMMA).all():
            frame[name] = cells.str.replace(",", ".", regex=False)
    return frame


def _of_json(path: Path, *, lines: bool) -> pd.DataFrame:
    """Records as a list, one per line, or pandas' own layout by columns."""
    import json

    import pandas as pd

    with reading(path, "a JSON table"):
        text = path.read_text(encoding="utf-8-sig")
        try:
            content: Any = (
                [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
            )
        except json.JSONDecodeError as error:
            if lines or "Extra data" not in str(error):
                raise
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        if isinstance(content, dict) and not all(isinstance(column, dict | list) for column in content.values()):
            content = [content]
        if not isinstance(content, dict) and not all(isinstance(record, dict) for record in content):
            raise InvalidInputError(f"{path} must hold one JSON object per row; it holds something else")
        return pd.DataFrame(content)


def _of_npz(path: Path, part: str) -> Rows:
    from aifs_peft.data.sources import read_npz

    return _of_arrays(path, read_npz(path, "own latents"), part, path.parent)


def read_arrays(folder: Path, paths: list[Path]) -> Rows:
    """A folder of NumPy arrays, one file for each: latents `(n, d)`, read in blocks when needed, and columns `(n,)`.

    Args:
        folder: where they lie, for messages.
        paths: of the files, which are called as the columns are.

    Raises:
        InvalidInputError: they are of different lengths, or none holds latents.
    """
    return _of_arrays(folder, {path.stem: read_array(path) for path in paths}, "", folder)


def with_arrays(rows: Rows, paths: list[Path]) -> Rows:
    """A table with the matrices that lie beside it as `.npy` files, one row for each of its rows.

    Args:
        rows: the table.
        paths: of the files; those that hold no matrix of that many rows, or are called as a column, are left out, and
            so are those that cannot be read, which is told.
    """
    found, known = {}, set(rows.columns)
    for path in paths:
        try:
            found[path.stem] = read_array(path)
        except InvalidInputError as error:
            tell(f"{path.name} beside the table is left out: {error}")
    rows.vectors |= {
        name: array
        for name, array in found.items()
        if array.ndim == 2 and array.dtype.kind in "biuf" and len(array) == len(rows) and name not in known
    }
    return rows


def _of_arrays(path: Path, arrays: dict[str, NDArray[Any]], part: str, folder: Path) -> Rows:
    """Latents: matrices `(n, d)` and columns `(n,)`."""
    import pandas as pd

    columns = {name: array for name, array in arrays.items() if array.ndim == 1}
    vectors = {name: array for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "biuf"}
    lengths = {name: len(array) for name, array in {**columns, **vectors}.items()}
    if not vectors or len(set(lengths.values())) != 1:
        shapes = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise InvalidInputError(
            f"{path} must hold latents (n, d) of numbers and columns (n,) of the same length; it holds "
            f"{shapes or 'nothing'}"
        )
    rows = next(iter(lengths.values()))
    frame = pd.DataFrame(
        {name: pd.Series(array.tolist(), dtype=object) for name, array in columns.items()}, index=range(rows)
    )
    return single(str(path), frame, part, vectors=vectors, folder=folder)
