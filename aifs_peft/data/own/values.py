"""Columns of classes and attribute values: strings, whole numbers or booleans in, names and numbers out.

Missing is what is empty, `NaN`, `nan`, `NA`, `N/A`, `<NA>`, `null`, `NULL`, `None` as a Python object (the word `None`
is a name), and -1, unless the column holds only -1 and 1, which is a common code of two classes; -100, which losses
leave out, is missing in every column. A missing value is never a class and never a group.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.notes import listed, shown
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    from aifs_peft.data.own.rows import Rows

MISSING_WORDS = frozenset({"", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "<NA>", "null", "NULL", "NaT", "-100"})
MAX_VALUES = 100
"""More different attribute values than this are an identifier or a measurement, not a group."""
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_WHOLE_FLOAT = re.compile(r"[+-]?(0|[1-9][0-9]*)\.0*")


@dataclass(frozen=True)
class Categories:
    """A column of names as numbers.

    Args:
        names: sorted: whole numbers by value, everything else by letter; the order of numbered columns stays.
        ids: `(n,)` int64, -1 where the value is missing.
    """

    names: tuple[str, ...]
    ids: NDArray[np.int64]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where the value is missing, `(n,)`."""
        return self.ids < 0


def categories(rows: Rows, column: str, role: str) -> Categories:
    """Number the values of a column.

    Args:
        rows: the table.
        column: one of its columns.
        role: what the column is for, as messages say it ("label", "attribute").

    Returns:
        Names and numbers.

    Raises:
        InvalidInputError: lists, fractions, or no value at all.
    """
    values = rows.frame[column].tolist()
    known = rows.class_names.get(column)
    if known is not None:
        numbered = np.asarray([-1 if _is_missing(v) else int(v) for v in values], dtype=np.int64)
        return Categories(tuple(known), np.where((numbered >= 0) & (numbered < len(known)), numbered, -1))
    words = [_word(value) for value in values]
    odd = np.asarray([word is _ODD for word in words], dtype=bool)
    if odd.any():
        example = values[int(np.flatnonzero(odd)[0])]
        raise InvalidInputError(
            f"{rows.where}: column {column!r} holds {int(odd.sum())} values that are no name, whole number or boolean "
            f"({rows.at(odd)}; for example {shown(example)}); the {role} needs one such value per row: write it as a "
            "name, or cut measurements into classes"
        )
    texts = _whole([word for word in words if isinstance(word, str)])
    found = sorted(set(texts), key=_order(set(texts)))
    if "-1" in found and set(found) != {"-1", "1"}:
        found.remove("-1")
    if not found:
        raise InvalidInputError(f"{rows.where}: column {column!r}, the {role}, holds no value at all")
    numbers = {name: number for number, name in enumerate(found)}
    named = iter(texts)
    ids = [numbers.get(next(named), -1) if isinstance(word, str) else -1 for word in words]
    return Categories(tuple(found), np.asarray(ids, dtype=np.int64))


def is_missing(rows: Rows, column: str) -> NDArray[np.bool_]:
    """Where a column of paths or texts is empty, `(n,)`; words such as "nan" are text."""
    return np.asarray(
        [_is_missing(v) or (isinstance(v, str) and not v.strip()) for v in rows.frame[column].tolist()], dtype=bool
    )


class _Odd:
    """Marks a value that cannot be a name."""


_ODD = _Odd()


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _word(value: Any) -> str | _Odd | None:
    """A value as the name it stands for; None where it is missing."""
    if _is_missing(value):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return None if int(value) == -100 else str(int(value))
    if isinstance(value, float | np.floating):
        if not float(value).is_integer():
            return _ODD
        return None if int(value) == -100 else str(int(value))
    if isinstance(value, str):
        text = " ".join(value.split())
        return None if text in MISSING_WORDS else text
    return _ODD


def _whole(texts: list[str]) -> list[str]:
    """Write `1.0` as `1` where the whole column is like that: a table writes whole numbers so beside empty cells."""
    if all(_WHOLE.fullmatch(text) or _WHOLE_FLOAT.fullmatch(text) for text in texts):
        return [str(int(text.partition(".")[0])) for text in texts]
    return texts


def _order(names: set[str]) -> Any:
    """Sort whole numbers by value, everything else as text."""
    return int if all(_WHOLE.fullmatch(name) for name in names) else str


def fractions(names: tuple[str, ...]) -> bool:
    """Whether names are numbers with a fraction, which a table wrote as text: a measurement, no class.

    Example:
        >>> fractions(("0.5", "1.25")), fractions(("v1.5", "2")), fractions(("01", "1"))
        (True, False, False)
    """
    try:
        return not all(float(name).is_integer() for name in names)
    except ValueError:
        return False


def check_values(found: Categories, where: str, column: str, role: str) -> None:
    """Refuse measurements and identifiers.

    Raises:
        InvalidInputError: fractions, or more than `MAX_VALUES` attribute values.
    """
    if fractions(found.names):
        raise InvalidInputError(
            f"{where}: column {column!r}, the {role}, holds numbers with fractions ({listed(found.names, 3)}); cut "
            "them into a few classes with names first"
        )
    if role == "attribute" and len(found.names) > MAX_VALUES:
        raise InvalidInputError(
            f"{where}: column {column!r}, the attribute, has {len(found.names)} different values, more than "
            f"{MAX_VALUES}: an identifier or a measurement; group them first"
        )
