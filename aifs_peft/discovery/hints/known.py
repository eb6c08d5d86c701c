"""Hints: what a user knows about an attribute too weak to be found, as candidates.

A hint is an attribute value for some examples (`groups`, a metadata column), here, or a direction that names an
attribute (`named.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aifs_peft.errors import InvalidInputError

IntArray = NDArray[np.integer]

# A value known for fewer examples than this is treated as unknown; so few say nothing about it.
MIN_KNOWN = 5
MAX_VALUES = 20
# A numeric column with more distinct values is cut at its quartiles.
MAX_DISTINCT = 10


@dataclass(frozen=True)
class Hint:
    """Partly known attribute values.

    Args:
        source: `"hint:groups"` or `"hint:metadata:NAME"`.
        values: In `0..A-1`, or -1 where unknown, shape `(n,)`.
        problem: Why it cannot be used, or empty.
    """

    source: str
    values: IntArray
    problem: str = ""

    @property
    def n_values(self) -> int:
        """Number of values `A`."""
        return int(self.values.max()) + 1


def _renumbered(source: str, codes: IntArray) -> Hint:
    """A hint from codes `>= 0`, -1 unknown; rare values become unknown."""
    values, counts = np.unique(codes[codes >= 0], return_counts=True)
    kept = values[counts >= MIN_KNOWN]
    out = np.full(len(codes), -1, dtype=np.int64)
    for index, value in enumerate(kept):
        out[codes == value] = index
    if len(kept) < 2:
        return Hint(source, out, f"{len(kept)} value(s) known for {MIN_KNOWN} examples or more (needs 2)")
    if len(kept) > MAX_VALUES:
        return Hint(source, out, f"{len(kept)} values (at most {MAX_VALUES}): merge them")
    return Hint(source, out)


def groups_hint(groups: ArrayLike, n: int) -> Hint:
    """The hint of attribute values `groups (n,)`: integers, -1 for unknown.

    Raises:
        InvalidInputError: When they are not one integer per example.

    Example:
        >>> groups_hint([0, 1, -1] * 5, 15).n_values
        2
    """
    if hasattr(groups, "detach"):
        groups = groups.detach().cpu().numpy()
    given = np.asarray(groups)
    if given.shape != (n,):
        raise InvalidInputError(f"groups of shape {given.shape} were given for {n} examples; needed is ({n},).")
    whole = given.dtype.kind in "iub" or (given.dtype.kind == "f" and bool(np.all(given == np.round(given))))
    if not whole or (len(given) and given.min() < -1):
        raise InvalidInputError(
            f"groups of dtype {given.dtype} were given; needed are attribute values 0, 1, ... and -1 where unknown. "
            "Number the values, for example with pandas.factorize, which also gives -1 for missing ones."
        )
    return _renumbered("hint:groups", given.astype(np.int64))


def metadata_hints(metadata: Any, n: int) -> list[Hint]:
    """One hint per column of a `DataFrame` or mapping of names to `n` values; missing values are unknown.

    Numeric columns with more than 10 distinct values are cut at their quartiles.

    Raises:
        InvalidInputError: When it has no named columns, or one is not `n` values long.

    Example:
        >>> [h.n_values for h in metadata_hints({"site": ["a", "b"] * 8, "age": range(16)}, 16) if not h.problem]
        [2]
    """
    import pandas as pd

    if not hasattr(metadata, "keys"):
        raise InvalidInputError(
            f"metadata of type {type(metadata).__name__} was given; needed is a pandas DataFrame, or a mapping of "
            "column names to one value per example."
        )
    hints = []
    for name in metadata.keys():  # noqa: SIM118 - a DataFrame iterates over its columns, a mapping over its keys
        column = pd.Series(
            np.asarray(metadata[name]) if not isinstance(metadata[name], range) else list(metadata[name])
        )
        if len(column) != n:
            raise InvalidInputError(f"metadata column {name!r} has {len(column)} values for {n} examples; give {n}.")
        if pd.api.types.is_numeric_dtype(column) and column.nunique() > MAX_DISTINCT:
            column = pd.qcut(column, 4, labels=False, duplicates="drop")
        hints.append(_renumbered(f"hint:metadata:{name}", np.asarray(pd.factorize(column)[0], dtype=np.int64)))
    return hints
