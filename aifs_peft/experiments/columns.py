"""Columns of a table that a model reads beside each picture or text: encoded as the training split says, and kept.

Numbers stay numbers; texts, truth values and whole numbers of few different values become one indicator per value. What
has to be known for that, the values and the means that stand for missing numbers, is of the training split alone and
goes into the run's `summary.json`, so that `aifs evaluate` and `aifs predict` encode other rows alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aifs_peft._checks import did_you_mean
from aifs_peft.data.notes import listed, tell
from aifs_peft.data.own.values import MISSING_WORDS
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    from datasets import Dataset

# Whole numbers of at most so many different values are codes, as for `discover(metadata=)`.
MOST_CODES = 10
MOST_CATEGORIES = 100
KINDS = ("number", "category", "vector")
NOT_A_COLUMN = "fuse: the data set has no column {name!r}{hint}; it has {known}"
NOT_READ = "fuse: the column {name!r} is {what}; name the columns of the table that a model is to read beside it"
NAMES = (
    "fuse: the column {name!r} has {count:,} different values in {n:,} training examples, more than {most}: it looks "
    "like names or identifiers, which say nothing of other examples; leave it out"
)
EMPTY = "fuse: the column {name!r} is empty in every training example; leave it out"
NOT_FINITE = "fuse: the column {name!r} holds infinite numbers; correct or empty these cells"
UNSEEN = (
    "fuse: the column {name!r} holds values that no training example had, {values}, in {count:,} of {n:,} rows; the "
    "model takes them for missing"
)
OTHER_KIND = "fuse: the column {name!r} held {kind} in the training examples, and {value!r:.60} is none"
OTHER_WIDTH = "fuse: the column {name!r} held vectors of {width} numbers in the training examples; row {row} is none"
_ROLES = {"image": "the picture itself", "text": "the text itself", "label": "what is predicted",
          "group": "made of what is predicted"}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """How one column of the table is read.

    Attributes:
        name: of the column.
        kind: `"number"`, `"category"` or `"vector"`.
        values: of a category, those of the training examples; another one is none of them.
        mean: of a number, what stands for a missing one.
        marked: of a number, whether a further feature says that it is missing.
        width: of a vector.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    marked: bool = False
    width: int = 1

    @property
    def features(self) -> list[str]:
        """What each of its features is."""
        if self.kind == "category":
            return [f"{self.name} = {value}" for value in self.values]
        if self.kind == "vector":
            return [f"{self.name}[{i}]" for i in range(self.width)]
        return [self.name, *([f"{self.name} is missing"] if self.marked else [])]

    def encode(self, cells: Sequence[Any]) -> NDArray[np.float32]:
        """Cells as numbers, `(rows, features)`.

        Args:
            cells: of this column.

        Raises:
            InvalidInputError: a cell of another kind than those of the training examples.
        """
        if self.kind == "category":
            places = {value: i for i, value in enumerate(self.values)}
            out = np.zeros((len(cells), len(self.values)), dtype=np.float32)
            others = []
            for row, cell in enumerate(cells):
                if _missing(cell):
                    continue
                if _text(cell) in places:
                    out[row, places[_text(cell)]] = 1.0
                else:
                    others.append(_text(cell))
            if others:
                tell(UNSEEN.format(name=self.name, count=len(others), n=len(cells), values=listed(sorted(set(others)))))
            return out
        if self.kind == "vector":
            return _vectors(self.name, cells, self.width)
        numbers = _numbers(self.name, cells)
        absent = np.isnan(numbers)
        filled = np.where(absent, self.mean, numbers)
        columns = [filled, absent] if self.marked else [filled]
        return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True)
class TableEncoding:
    """Columns of a table as numbers, alike in every split and in a later run.

    Args:
        columns: in the order of their features.

    Example:
        >>> from datasets import Dataset
        >>> train = Dataset.from_dict({"site": ["A", "B", "A"], "age": [60.5, None, 70.5], "label": [0, 1, 1]})
        >>> encoding = TableEncoding.learn(train, ["site", "age"])
        >>> encoding.features
        ['site = A', 'site = B', 'age', 'age is missing']
        >>> encoding.encode(Dataset.from_dict({"site": ["B", None], "age": [50.0, None]})).tolist()
        [[0.0, 1.0, 50.0, 0.0], [0.0, 0.0, 65.5, 1.0]]
    """

    columns: tuple[Column, ...]

    @classmethod
    def learn(cls, train: Dataset, names: Sequence[str]) -> TableEncoding:
        """The encoding of columns by the values of the training split.

        Args:
            train: training split.
            names: of the columns.

        Raises:
            InvalidInputError: a column that is not there, has another role, or holds nothing that can be encoded.
        """
        for name in names:
            if name in _ROLES:
                raise InvalidInputError(NOT_READ.format(name=name, what=_ROLES[name]))
        return cls(tuple(_learnt(name, _cells(train, name)) for name in dict.fromkeys(names)))

    @property
    def features(self) -> list[str]:
        """What each feature is."""
        return [feature for column in self.columns for feature in column.features]

    def encode(self, rows: Dataset | Mapping[str, Sequence[Any]]) -> Tensor:
        """Features of rows, `(n, features)` float32.

        Args:
            rows: with the columns.

        Raises:
            InvalidInputError: a column is missing, or a cell is of another kind.
        """
        parts = [column.encode(_cells(rows, column.name)) for column in self.columns]
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def to_dict(self) -> list[dict[str, Any]]:
        """As plain data, for `summary.json`."""
        return [{**asdict(column), "values": list(column.values)} for column in self.columns]

    @classmethod
    def from_dict(cls, given: Any) -> TableEncoding:
        """What `to_dict` gave.

        Args:
            given: of a `summary.json`.

        Raises:
            InvalidInputError: it is no encoding.
        """
        try:
            columns = tuple(Column(**{**entry, "values": tuple(map(str, entry["values"]))}) for entry in given)
            whole = bool(columns) and all(column.kind in KINDS and np.isfinite(column.mean) for column in columns)
        except (TypeError, KeyError) as error:
            raise InvalidInputError(f"{given!r:.100} is no encoding of a table's columns ({error})") from error
        if not whole:
            raise InvalidInputError(f"{given!r:.100} is no encoding of a table's columns")
        return cls(columns)


def _learnt(name: str, cells: Sequence[Any]) -> Column:
    filled = [cell for cell in cells if not _missing(cell)]
    if not filled:
        raise InvalidInputError(EMPTY.format(name=name))
    if isinstance(filled[0], list | tuple | np.ndarray):
        width = len(filled[0])
        _vectors(name, cells, width)
        return Column(name, "vector", width=width)
    distinct = set(filled)
    numeric = all(isinstance(cell, int | float) for cell in filled)  # truth values are, too
    codes = numeric and len(distinct) <= MOST_CODES and all(float(cell).is_integer() for cell in distinct)
    if numeric and not codes:
        numbers = _numbers(name, cells)
        return Column(name, "number", mean=float(np.nanmean(numbers)), marked=len(filled) < len(cells))
    values = sorted({_text(cell) for cell in distinct})
    if len(values) > MOST_CATEGORIES:
        raise InvalidInputError(NAMES.format(name=name, count=len(values), n=len(cells), most=MOST_CATEGORIES))
    return Column(name, "category", values=tuple(values))


def _cells(rows: Any, name: str) -> list[Any]:
    """A column as Python objects; names of classes in place of their numbers."""
    from datasets import ClassLabel

    known = list(getattr(rows, "column_names", rows))
    if name not in known:
        raise InvalidInputError(NOT_A_COLUMN.format(name=name, hint=did_you_mean(name, known), known=listed(known)))
    cells = rows[name][:]
    cells = cells.tolist() if isinstance(cells, np.ndarray | Tensor) else list(cells)
    kind = getattr(rows, "features", {}).get(name)
    if isinstance(kind, ClassLabel):
        return [None if cell is None or cell < 0 else kind.int2str(cell) for cell in cells]
    return cells


def _missing(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.strip() in MISSING_WORDS
    return cell is None or (isinstance(cell, float) and np.isnan(cell))


def _text(cell: Any) -> str:
    """A code alike as number and as text: a table with an empty cell has read 3 as 3.0."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _numbers(name: str, cells: Sequence[Any]) -> NDArray[np.float64]:
    wrong = next((cell for cell in cells if not _missing(cell) and not isinstance(cell, int | float)), None)
    if wrong is not None:
        raise InvalidInputError(OTHER_KIND.format(name=name, kind="numbers", value=wrong))
    numbers = np.asarray([np.nan if _missing(cell) else cell for cell in cells], dtype=np.float64)
    if np.isinf(numbers.astype(np.float32)).any():
        raise InvalidInputError(NOT_FINITE.format(name=name))
    return numbers


def _vectors(name: str, cells: Sequence[Any], width: int) -> NDArray[np.float32]:
    out = np.zeros((len(cells), width), dtype=np.float32)
    for row, cell in enumerate(cells):
        vector = None if isinstance(cell, str) or not hasattr(cell, "__len__") or len(cell) != width else cell
        if vector is None or any(not isinstance(value, int | float) or _missing(value) for value in vector):
            raise InvalidInputError(OTHER_WIDTH.format(name=name, width=width, row=row))
        out[row] = vector
    if not np.isfinite(out).all():
        raise InvalidInputError(NOT_FINITE.format(name=name))
    return out
