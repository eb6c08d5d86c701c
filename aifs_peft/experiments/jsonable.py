"""Plain JSON values of results: NaN and infinity, which JSON does not have, become null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np


def jsonable(value: Any) -> Any:
    """The same value of dictionaries, lists, texts, numbers, truth values and None alone.

    Args:
        value: built of those, of NumPy's arrays and numbers, tuples, sets and paths; anything else becomes its text.

    Example:
        >>> jsonable({"a": float("nan"), 1: (np.float32(0.5), {"x"})})
        {'a': None, '1': [0.5, ['x']]}
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(entry) for key, entry in value.items()}
    if isinstance(value, set | frozenset):
        return [jsonable(entry) for entry in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return [jsonable(entry) for entry in value]
    return jsonable(value.value) if isinstance(value, Enum) else str(value)
