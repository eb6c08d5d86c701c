"""What every source of own data is turned into first: one table, with the pictures and vectors kept beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.notes import listed
from aifs_peft.data.own.matrices import below, chosen

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset


@dataclass
class Rows:
    """The rows of one or several tables, not yet interpreted.

    Args:
        where: the source, as messages name it.
        frame: one column per value; `(n, columns)`, its index counts from 0.
        parts: `(n,)` which table a row comes from: the name of a split, or empty where there is one table.
        numbers: `(n,)` the number of a row in its table, from 0.
        pictures: `datasets.Dataset` with columns of pictures alone, decoded when they are read; None for paths or none.
        vectors: name to array `(n, d)`, of sources that hold matrices.
        folder: where relative paths start; None for the working directory.
        confined: paths must stay in `folder`, because the table may come from somebody else.
        class_names: of columns that are numbered already (`datasets.ClassLabel`).
        paths: column of `frame` that holds paths for sure (files found by scanning folders).
    """

    where: str
    frame: pd.DataFrame
    parts: NDArray[np.str_]
    numbers: NDArray[np.int64]
    pictures: Dataset | None = None
    vectors: dict[str, NDArray[Any]] = field(default_factory=dict)
    folder: Path | None = None
    confined: bool = False
    class_names: dict[str, list[str]] = field(default_factory=dict)
    paths: str = ""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def columns(self) -> list[str]:
        """Every name that an option may give: columns, pictures and matrices."""
        own = [] if self.pictures is None else self.pictures.column_names
        return [*own, *map(str, self.frame.columns), *self.vectors]

    def at(self, which: NDArray[np.bool_]) -> str:
        """Where rows are, for a message: `row 4`, or with their split, `train: rows 4, 7; test: row 0`."""
        places = []
        for part in dict.fromkeys(self.parts[which].tolist()):
            rows = self.numbers[which & (self.parts == part)].tolist()
            text = f"row{'s' if len(rows) > 1 else ''} {listed(rows)}"
            places.append(f"{part}: {text}" if part else text)
        return "; ".join(places)

    def select(self, keep: NDArray[np.bool_]) -> Rows:
        """The rows to keep, in order."""
        index = np.flatnonzero(keep)
        return Rows(
            self.where, self.frame.iloc[index].reset_index(drop=True), self.parts[index], self.numbers[index],
            None if self.pictures is None else self.pictures.select(index),
            {name: chosen(values, index) for name, values in self.vectors.items()},
            self.folder, self.confined, self.class_names, self.paths,
        )  # fmt: skip


def single(where: str, frame: pd.DataFrame, part: str = "", **rest: Any) -> Rows:
    """The rows of one table."""
    frame = frame.reset_index(drop=True)
    return Rows(where, frame, np.full(len(frame), part, dtype=object).astype(str), np.arange(len(frame)), **rest)


def stacked(where: str, tables: list[Rows]) -> Rows:
    """Tables of the same columns, one below the other.

    Raises:
        InvalidInputError: their columns differ.
    """
    import pandas as pd

    from aifs_peft.errors import InvalidInputError

    first = tables[0]
    if len(tables) == 1:
        return first
    for other in tables[1:]:
        lacking = sorted(set(first.columns) ^ set(other.columns))
        if lacking:
            raise InvalidInputError(
                f"{where}: its tables need the same columns; {', '.join(map(repr, lacking))} "
                f"{'is' if len(lacking) == 1 else 'are'} not in all of them"
            )
        if other.class_names != first.class_names:
            raise InvalidInputError(
                f"{where}: its splits name the classes differently: {first.class_names} and {other.class_names}"
            )
    pictures = None
    if first.pictures is not None:
        from datasets import concatenate_datasets

        pictures = concatenate_datasets([t.pictures for t in tables])
    return Rows(
        where, pd.concat([t.frame for t in tables], ignore_index=True), np.concatenate([t.parts for t in tables]),
        np.concatenate([t.numbers for t in tables]), pictures,
        {name: below([t.vectors[name] for t in tables]) for name in first.vectors},
        first.folder, first.confined, first.class_names, first.paths,
    )  # fmt: skip
