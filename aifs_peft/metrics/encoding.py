"""Names as classes, groups and attributes: strings in, ids and sorted names out; what is missing is in no group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft import _checks
from aifs_peft.errors import InvalidInputError

# Ids up to this many times their number count from 0, with empty groups between them; others are of something else.
FAR_APART = 1000


def encode_classes(y_true: Any, y_pred: Any, names: Sequence[str] | None = None) -> tuple[Any, Any]:
    """Number class names, the sorted names of both arrays together; numbers stay as they are.

    Args:
        y_true: ids or names, `(n,)`.
        y_pred: ids or names, `(n,)`.
        names: the names in the order of their numbers; None sorts those that occur.

    Returns:
        Both arrays as ids.

    Raises:
        InvalidInputError: names in one and numbers in the other, a missing or an unknown name.

    Example:
        >>> encode_classes(["dog", "cat"], ["dog", "dog"])
        (array([1, 0]), array([1, 1]))
    """
    arrays = {"y_true": _named(y_true), "y_pred": _named(y_pred)}
    if all(array is None for array in arrays.values()):
        return y_true, y_pred
    words: dict[str, NDArray[Any]] = {}
    for argument, array in arrays.items():
        if array is None or _missing(array).any():
            lack = "numbers beside names" if array is None else f"{int(_missing(array).sum())} missing values"
            raise InvalidInputError(f"y_true and y_pred must both hold class names throughout; {argument} holds {lack}")
        words[argument] = array
    known = _known(words.values(), names)
    return _ids(words["y_true"], known, "y_true"), _ids(words["y_pred"], known, "y_pred")


def encode_groups(values: Any, names: Sequence[str] | None, argument: str) -> tuple[Any, Sequence[str] | None]:
    """Number group or attribute names; a missing value (None, NaN, an empty name) becomes -1, which is in no group.

    Args:
        values: ids or names, `(n,)`, or a boolean matrix, which stays as it is.
        names: the names in the order of their numbers; None sorts those that occur.
        argument: for messages.

    Returns:
        Ids and names; both as given where the values are ids already.

    Raises:
        InvalidInputError: a name that is not among those given.

    Example:
        >>> encode_groups(["B", None, "A"], None, "groups")
        (array([ 1, -1,  0]), ['A', 'B'])
    """
    array = _named(values)
    if array is not None:
        known = _known([array], names)
        return _ids(array, known, argument), list(known)
    numbers = np.asarray(_checks.to_numpy(values)) if not isinstance(values, list | tuple) else _numbers(values)
    if numbers is not None and numbers.ndim == 1 and numbers.dtype.kind == "f" and np.isnan(numbers).any():
        absent = np.isnan(numbers)
        whole = np.where(absent, -1, numbers)
        if np.isfinite(whole).all() and (whole == np.round(whole)).all():
            return whole.astype(np.int64), names
    return values, names


def occurring_ids(
    values: Any, names: Sequence[str] | None, number: int | None, valid: NDArray[Any] | None
) -> tuple[Any, Sequence[str] | None]:
    """Number ids that lie far apart (of users, scanners, ...) by those that occur, which become their names.

    Args:
        values: of `encode_groups`.
        names: likewise.
        number: of groups, None where it is to be seen.
        valid: `(n,)` bool, rows that count; None for all.

    Returns:
        Ids and names; both as given where ids are counted from 0, or names or their number are given.

    Example:
        >>> occurring_ids(np.array([100_000, 3, -1]), None, None, None)
        (array([ 1,  0, -1]), ['3', '100000'])
    """
    ids = _checks.to_numpy(values)
    if names is not None or number is not None or getattr(ids, "ndim", 1) != 1:
        return values, names
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" or not array.size:
        return values, names
    counted = array >= 0
    if valid is not None and np.shape(valid) == array.shape:
        counted &= np.asarray(valid, dtype=bool)
    known, place = np.unique(array[counted], return_inverse=True)
    if not len(known) or int(known[-1]) < FAR_APART * len(known):
        return values, names
    numbered = np.where(array < 0, array, -1).astype(np.int64)
    numbered[counted] = place
    return numbered, [str(id_) for id_ in known.tolist()]


def _numbers(values: Any) -> NDArray[Any] | None:
    """A list as numbers, None in it as NaN; None where it is ragged, which is refused later, by name."""
    try:
        return np.asarray([np.nan if value is None else value for value in values])
    except ValueError:
        return None


def _named(values: Any) -> NDArray[Any] | None:
    """The values as Python objects where some are strings, else None."""
    plain = _checks.to_numpy(values)
    if getattr(getattr(plain, "dtype", None), "kind", "O") in "biuf":
        return None
    try:
        array = np.asarray(plain, dtype=object)
    except ValueError:
        return None
    if array.ndim != 1 or not any(isinstance(value, str) for value in array):
        return None
    return array


def _missing(array: NDArray[Any]) -> NDArray[np.bool_]:
    # NaN, NaT and pandas' NA print so, and are no strings.
    return np.asarray(
        [v is None or v == "" if isinstance(v, str | None) else str(v) in ("nan", "NaT", "<NA>") for v in array],
        dtype=bool,
    )


def _known(arrays: Any, names: Sequence[str] | None) -> dict[str, int]:
    if names is None:
        names = sorted({str(value) for array in arrays for value in array[~_missing(array)]})
    return {str(name): number for number, name in enumerate(names)}


def _ids(array: NDArray[Any], known: dict[str, int], argument: str) -> NDArray[np.int64]:
    absent = _missing(array)
    unknown = sorted({str(value) for value in array[~absent]} - set(known))
    if unknown:
        raise InvalidInputError(
            f"{argument} hold {', '.join(map(repr, unknown[:5]))}; the names given are {list(known)}"
        )
    return np.asarray([-1 if no else known[str(v)] for v, no in zip(array, absent, strict=True)], dtype=np.int64)
