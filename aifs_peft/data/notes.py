"""What a user must know about the data, although nothing has to be mended: told as warnings of one kind."""

from __future__ import annotations

import warnings
from collections.abc import Sequence


class DataWarning(UserWarning):
    """Rows were left out, a test cell is very small, or a group value is missing."""


def tell(message: str) -> None:
    """Warn; `aifs doctor` collects these warnings as notes."""
    # The call that a user wrote lies a varying number of frames up: the message itself says which data it is about.
    warnings.warn(message, DataWarning, stacklevel=3)


def shown(value: object, most: int = 40) -> str:
    """A cell on one line, cut off where it is long.

    Example:
        >>> shown("much too long", most=4)
        'much...'
    """
    text = " ".join(str(value).split())
    return text if len(text) <= most else text[:most] + "..."


def listed(values: Sequence[object], most: int = 5) -> str:
    """The first values, and how many more there are.

    Example:
        >>> listed([3, 5, 8], most=2)
        '3, 5 and 1 more'
    """
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")
