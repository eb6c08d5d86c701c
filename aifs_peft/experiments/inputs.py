"""What `aifs predict` is given: files of images, texts or features, as rows with a name each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aifs_peft._checks import did_you_mean
from aifs_peft.data.own.tables import separator_of
from aifs_peft.errors import DataNotFoundError, InvalidInputError

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from torch import Tensor

    from aifs_peft.experiments.columns import TableEncoding

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TABLES = (".csv", ".tsv", ".parquet", ".json", ".jsonl")
_ARRAYS = ("features", "Z", "z", "X", "x")
NO_FILE = "{path} does not exist"
NO_IMAGES = "{path} holds no image ({kinds})"
UNREADABLE = "{path} cannot be read as {kind}: {reason}"
NO_COLUMN = "{path} has no column {column!r}{hint}; it has {known}. Name yours with --{role}"
NOT_FOR = "{path} is no input for a model of {modality} input: give {needed}"
NOT_A_TABLE = (
    "{path} is no table, and the model reads {columns} beside each {modality}: give tables ("
    + ", ".join(TABLES)
    + ") with these columns"
)
LACKS = "{path} has no column {column!r}{hint}, which the model reads beside its inputs; it has {known}"
WIDTH = "{path} has rows of {given} features; the model takes {needed}"


def read_inputs(paths: Sequence[str], modality: str, column: str | None = None) -> tuple[list[str], Dataset]:
    """The inputs in files and folders, in order.

    Args:
        paths: for images: image files, folders of them, or tables with a column of paths; for texts: tables, or text
            files with one text a line; for features: tables of numbers, or `.npz` files.
        modality: `"image"`, `"text"` or `"features"`.
        column: of a table, where it is not called as the modality.

    Returns:
        A name per input, and rows with the input column and a `label` of zeros, which a model's input wants and nobody
        reads.

    Raises:
        DataNotFoundError: a file does not exist.
        InvalidInputError: a file that cannot be read, or holds another kind of input.
    """
    from datasets import Dataset, Features, Image, List, Value

    names: list[str] = []
    values: list[Any] = []
    read = {"image": _images, "text": _texts, "features": _features}[modality]
    for path in map(Path, paths):
        if not path.exists():
            raise DataNotFoundError(NO_FILE.format(path=path))
        more, found = read(path, column)
        names += more
        values += found
    kind = {"image": Image(), "text": Value("string"), "features": List(Value("float32"))}[modality]
    columns = {modality: values, "label": [0] * len(values)}
    return names, Dataset.from_dict(columns, features=Features({modality: kind, "label": Value("int64")}))


def read_beside(paths: Sequence[str], encoding: TableEncoding, modality: str) -> Tensor:
    """The columns that a model reads beside its pictures or texts, of every row of some tables, `(n, features)`.

    Args:
        paths: of the tables.
        encoding: of the columns.
        modality: of the inputs.

    Raises:
        DataNotFoundError: a file does not exist.
        InvalidInputError: a file is no table, or lacks a column.
    """
    import torch

    from aifs_peft.data.own.build import plain_column
    from aifs_peft.data.own.sources import read

    columns = [column.name for column in encoding.columns]
    parts = []
    for path in map(Path, paths):
        if not path.exists():
            raise DataNotFoundError(NO_FILE.format(path=path))
        if path.suffix.lower() not in TABLES:
            raise InvalidInputError(NOT_A_TABLE.format(path=path, modality=modality, columns=", ".join(columns)))
        frame = read(str(path)).frame
        known = [str(name) for name in frame.columns]
        for name in columns:
            if name not in known:
                hint = did_you_mean(name, known)
                raise InvalidInputError(LACKS.format(path=path, column=name, hint=hint, known=known))
        parts.append(encoding.encode({name: plain_column(frame[name]).to_pylist() for name in columns}))
    return torch.cat(parts)


def _images(path: Path, column: str | None) -> tuple[list[str], list[Any]]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES)
        if not files:
            raise InvalidInputError(NO_IMAGES.format(path=path, kinds=", ".join(IMAGES)))
    elif path.suffix.lower() in TABLES:
        listed = [str(value) for value in _column(path, column or "image", "image")]
        files = [path.parent / name for name in listed]
        absent = [file for file in files if not file.is_file()]
        if absent:
            raise DataNotFoundError(f"{path} names {absent[0]}, which does not exist")
    elif path.suffix.lower() in IMAGES:
        files = [path]
    else:
        raise InvalidInputError(NOT_FOR.format(path=path, modality="image", needed="images, folders or tables"))
    for file in files:
        _check_image(file)
    return [str(file) for file in files], [str(file) for file in files]


def _check_image(file: Path) -> None:
    from PIL import Image

    from aifs_peft.data.images import damage

    try:
        with Image.open(file) as image:
            image.verify()
    except damage() as error:
        raise InvalidInputError(UNREADABLE.format(path=file, kind="an image", reason=error)) from error


def _texts(path: Path, column: str | None) -> tuple[list[str], list[Any]]:
    if path.suffix.lower() in TABLES:
        values = [str(value) for value in _column(path, column or "text", "text")]
    elif path.suffix.lower() in (".txt", ""):
        try:
            values = path.read_text(encoding="utf-8").splitlines()
        except (UnicodeDecodeError, OSError) as error:
            raise InvalidInputError(UNREADABLE.format(path=path, kind="UTF-8 text", reason=error)) from error
    else:
        raise InvalidInputError(NOT_FOR.format(path=path, modality="text", needed="tables or .txt files"))
    return values, values


def _features(path: Path, column: str | None) -> tuple[list[str], list[Any]]:
    if path.suffix.lower() == ".npz":
        array = _array(path, column)
    elif path.suffix.lower() in TABLES:
        table = _table(path)
        name = column or "features"
        chosen = np.stack(table[name].to_list()) if name in table.columns else table.select_dtypes("number").to_numpy()
        array = np.asarray(chosen)
    else:
        raise InvalidInputError(NOT_FOR.format(path=path, modality="features", needed="tables or .npz files"))
    if array.ndim != 2 or not array.shape[1] or not np.isfinite(array.astype(np.float64)).all():
        reason = f"needed are finite numbers of shape (n, features), got shape {array.shape}"
        raise InvalidInputError(UNREADABLE.format(path=path, kind="features", reason=reason))
    return [f"{path}:{row}" for row in range(len(array))], list(array.astype(np.float32))


def _array(path: Path, column: str | None) -> Any:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in ((column,) if column else _ARRAYS) if name in arrays]
            if not names:
                told = NO_COLUMN.format(
                    path=path, column=column or "features", hint="", known=list(arrays), role="column"
                )
                raise InvalidInputError(told)
            return np.asarray(arrays[names[0]])
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(UNREADABLE.format(path=path, kind="arrays", reason=error)) from error


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd

    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            return pd.read_parquet(path)
        if kind in (".json", ".jsonl"):
            return pd.read_json(path, lines=kind == ".jsonl")
        separator = separator_of(path, "\t" if kind == ".tsv" else ",")
        return pd.read_csv(path, sep=separator, decimal="," if separator == ";" else ".")
    except InvalidInputError:
        raise
    except (OSError, ValueError, KeyError) as error:  # pandas' parser errors are ValueErrors, Arrow's are, too
        raise InvalidInputError(UNREADABLE.format(path=path, kind="a table", reason=error)) from error


def _column(path: Path, column: str, role: str) -> list[Any]:
    table = _table(path)
    if column not in table.columns:
        known = [str(name) for name in table.columns]
        told = NO_COLUMN.format(path=path, column=column, hint=did_you_mean(column, known), known=known, role=role)
        raise InvalidInputError(told)
    if table[column].isna().any():
        row = int(table[column].isna().to_numpy().argmax())
        raise InvalidInputError(f"{path}: column {column!r} is empty in row {row}; fill it in, or take the row out")
    return list(table[column])
