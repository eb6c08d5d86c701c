"""Hints: what a user knows about an attribute too weak to be found, as candidates.

A hint is an attribute value for some examples (`groups`, a metadata column), here, or a direction that names an
attribute (`named.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aifs_peft._checks import to_numpy
from aifs_peft.discovery.arrays import IntArray
from aifs_peft.discovery.config import DEFAULT_CONFIG, HintConfig
from aifs_peft.errors import InvalidInputError


@dataclass(frozen=True)
class Hint:
    """Partly known attribute values.

    Args:
        source: `"hint:groups"` or `"hint:metadata:NAME"`.
        values: In `0..A-1`, or -1 where unknown, shape `(n,)`.
        problem: Why it cannot be used, or empty.
        errs: Whether a share of the values may be wrong, as in a metadata column.
    """

    source: str
    values: IntArray
    problem: str = ""
    errs: bool = False

    @property
    def n_values(self) -> int:
        """Number of values `A`."""
        return int(self.values.max()) + 1


def _renumbered(source: str, codes: IntArray, config: HintConfig) -> Hint:
    """A hint from codes `>= 0`, -1 unknown; rare values become unknown."""
    values, counts = np.unique(codes[codes >= 0], return_counts=True)
    kept = values[counts >= config.min_known]
    out = np.full(len(codes), -1, dtype=np.int64)
    for index, value in enumerate(kept):
        out[codes == value] = index
    if len(kept) < 2:
        return Hint(source, out, f"{len(kept)} value(s) known for {config.min_known} examples or more (needs 2)")
    if len(kept) > config.max_values:
        return Hint(source, out, f"{len(kept)} values (at most {config.max_values}): merge them")
    return Hint(source, out)


def groups_hint(groups: ArrayLike, n: int, *, config: HintConfig = DEFAULT_CONFIG.hints) -> Hint:
    """The hint of attribute values that are known for some examples.

    Args:
        groups: Value of each example, shape `(n,)`: whole numbers from 0, or strings. Unknown are -1, `None`, NaN and
            the empty string.
        n: Number of examples.
        config: How often a value must be known, and how many values there may be.

    Returns:
        The hint; one that cannot be used says why in `problem`.

    Raises:
        InvalidInputError: When they are not one whole number or string per example.

    Example:
        >>> groups_hint([0, 1, -1] * 5, 15).n_values, groups_hint(["land", "water", None] * 5, 15).n_values
        (2, 2)
    """
    return _renumbered("hint:groups", known_values(groups, n), config)


def known_values(groups: ArrayLike, n: int) -> IntArray:
    """Attribute values as whole numbers: numbers as they are, strings numbered in their order, -1 where unknown.

    Args:
        groups: See `groups_hint`.
        n: Number of examples.

    Raises:
        InvalidInputError: When they are not one whole number or string per example.

    Example:
        >>> known_values(["water", "", "land", None], 4).tolist(), known_values([3.0, float("nan")], 2).tolist()
        ([1, -1, 0, -1], [3, -1])
    """
    groups = to_numpy(groups)
    # As objects first: NumPy alone would turn a list of strings and missing values into strings, "None" and "nan".
    given = np.asarray(groups if isinstance(groups, np.ndarray) else np.asarray(groups, dtype=object))
    if given.shape != (n,):
        raise InvalidInputError(f"groups of shape {given.shape} were given for {n} examples; needed is ({n},).")
    return _codes(given)


def _codes(given: NDArray[Any]) -> IntArray:
    """Whole numbers from 0 as they are, strings numbered in their order; -1 where unknown."""
    import pandas as pd

    column = pd.Series(given).infer_objects()
    unknown = column.isna() | column.isin(["", "-1", -1])
    known = column[~unknown]
    codes = np.full(len(column), -1, dtype=np.int64)
    if all(isinstance(value, str) for value in known):
        codes[~unknown] = pd.factorize(known, sort=True)[0]
        return codes
    numbers = pd.to_numeric(known, errors="coerce").to_numpy(dtype=np.float64)
    if not np.all(numbers == np.round(numbers)) or numbers.min() < 0:
        raise InvalidInputError(
            f"groups of dtype {given.dtype} were given, for example {known.iloc[0]!r}; needed are attribute values: "
            "whole numbers 0, 1, ... with -1 where unknown, or strings with None where unknown."
        )
    codes[~unknown] = numbers.astype(np.int64)
    return codes


def metadata_hints(metadata: Any, n: int, *, config: HintConfig = DEFAULT_CONFIG.hints) -> list[Hint]:
    """One hint per column; missing values are unknown.

    Args:
        metadata: `DataFrame`, or mapping of names to `n` values.
        n: Number of examples.
        config: Its `max_distinct`: numeric columns with more distinct values are cut at their `quantiles`.

    Returns:
        A hint per column; one that cannot be used says why in `problem`.

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
        if pd.api.types.is_numeric_dtype(column) and column.nunique() > config.max_distinct:
            column = pd.qcut(column, config.quantiles, labels=False, duplicates="drop")
        codes = np.asarray(pd.factorize(column)[0], dtype=np.int64)
        hints.append(replace(_renumbered(f"hint:metadata:{name}", codes, config), errs=True))
    return hints
