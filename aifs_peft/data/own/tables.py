"""Tables in files, as `Rows`: CSV, TSV, Parquet, JSON, JSON lines, and `npz` files of latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aifs_peft.data.own.rows import Rows, single
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
        with reading(path, "a Parquet table"):
            import pandas as pd

            frame = pd.read_parquet(path)
    elif kind in (".json", ".jsonl", ".ndjson"):
        frame = _of_json(path, lines=kind != ".json")
    else:
        raise InvalidInputError(
            f"{path}: an ending of {', '.join(sorted(TABLES))} says how a table is read; got {kind!r}"
        )
    frame = frame.rename(columns=str)
    if frame.columns.duplicated().any():
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InvalidInputError(f"{path} has the column {twice!r} more than once; rename one")
    # An index that was written as a column has no name.
    frame = frame.drop(columns=[name for name in frame.columns if name.startswith("Unnamed: ")])
    return single(where, frame, part, folder=path.parent, confined=True)


def _of_text(path: Path, separator: str) -> pd.DataFrame:
    """A CSV table as text, by the separator of its header."""
    separator = separator_of(path, separator)
    frame = read_csv(path, sep=separator, **_AS_TEXT)
    # Pandas gives a second column of the same name another one.
    header = _header(path, separator)
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
    widths = {mark: len(_header(path, mark)) for mark in dict.fromkeys((usual, *SEPARATORS))}
    return max(widths, key=lambda mark: widths[mark])


def _header(path: Path, separator: str) -> list[Any]:
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
    """Latents: matrices `(n, d)` and columns `(n,)`."""
    import pandas as pd

    from aifs_peft.data.sources import read_npz

    arrays = read_npz(path, "own latents")
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
    return single(
        str(path), frame, part, vectors={name: np.asarray(array) for name, array in vectors.items()}, folder=path.parent
    )
