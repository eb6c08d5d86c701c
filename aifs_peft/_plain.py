"""Values as plain JSON: NumPy and torch become Python, what is not finite becomes null, unknown objects are refused."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from datetime import date
from pathlib import PurePath
from typing import Any

from aifs_peft.errors import InvalidInputError

NOT_PLAIN = (
    "{where} is a {kind}, which has no form in JSON; needed: numbers, text, True, False, None, lists, dictionaries, "
    "dataclasses, paths, NumPy arrays or torch tensors. Convert it before it goes into the summary."
)
NOT_A_KEY = "{where} has the key {key!r} of type {kind}; keys of a JSON object are text. Convert it with str()."


def plain(value: Any) -> Any:
    """The same value made of dictionaries, lists, text, numbers, True, False and None.

    A number that is not finite becomes None: JSON has no NaN, and readers other than Python's refuse it.

    Args:
        value: dictionaries, lists, tuples, sets, dataclasses, enumerations, paths, numbers, NumPy arrays and numbers,
            torch tensors, at any depth.

    Returns:
        What `json.dumps(..., allow_nan=False)` takes as it is. Sets come sorted.

    Raises:
        InvalidInputError: for anything else, and for a key that is no text and no number; the message says where.

    Example:
        >>> import numpy as np
        >>> plain({"a": np.float32("nan"), "b": np.arange(3), "c": (1, {"d": float("inf")})})
        {'a': None, 'b': [0, 1, 2], 'c': [1, {'d': None}]}
        >>> plain({"model": object()})
        Traceback (most recent call last):
        aifs_peft.errors.InvalidInputError: summary['model'] is a object, which has no form in JSON; needed: numbers, \
text, True, False, None, lists, dictionaries, dataclasses, paths, NumPy arrays or torch tensors. Convert it before it \
goes into the summary.
    """
    return _plain(value, "summary")


def to_json(value: Any) -> str:
    """`plain(value)` as indented JSON text with a newline at its end.

    Args:
        value: as for `plain`.

    Raises:
        InvalidInputError: as `plain`.

    Example:
        >>> print(to_json({"worst": float("nan")}), end="")
        {
          "worst": null
        }
    """
    return json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, enum.Enum):
        return _plain(value.value, where)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, date):  # also a time stamp of pandas, whose NaT is one that equals nothing
        return value.isoformat() if value == value else None
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return [_plain(item, where) for item in sorted(value)]
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields}
    return _plain_array(value, where)


def _key(key: Any, where: str) -> str:
    key = _plain_array(key, where) if hasattr(key, "dtype") else key
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise InvalidInputError(NOT_A_KEY.format(where=where, key=key, kind=type(key).__name__))
    return str(key)


def _plain_array(value: Any, where: str) -> Any:
    """NumPy and torch values, known by what they can do, so that neither is imported for a dictionary of numbers."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has no such type
            value = value.float()
        value = value.numpy()
    if hasattr(value, "dtype") and hasattr(value, "tolist") and value.dtype.kind in "biufU":
        return _plain(value.tolist(), where)
    raise InvalidInputError(NOT_PLAIN.format(where=where, kind=type(value).__name__))
