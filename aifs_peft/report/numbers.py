"""Numbers as people read them; what is missing is a dash."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def value_of(metric: Any) -> float | None:
    """A metric's value, whether it comes alone or as {"value": ...}; None where it is missing or not finite.

    Example:
        >>> value_of({"value": 0.5}), value_of(float("nan")), value_of(None)
        (0.5, None, None)
    """
    value = metric.get("value") if isinstance(metric, dict) else metric
    if value is None or isinstance(value, bool | str | list | tuple) or not math.isfinite(value):
        return None
    return float(value)


def percent(value: Any) -> str:
    """A share in per cent with one digit.

    Example:
        >>> percent(0.5), percent(None)
        ('50.0 %', '-')
    """
    number = value_of(value)
    return "-" if number is None else f"{100 * number:.1f} %"


def interval_text(bounds: Sequence[Any] | None) -> str:
    """Two bounds of a share.

    Example:
        >>> interval_text([0.25, 0.75]), interval_text([None, None])
        ('25.0 % to 75.0 %', '-')
    """
    low, high = (value_of(bound) for bound in bounds or (None, None))
    return "-" if low is None or high is None else f"{percent(low)} to {percent(high)}"


def short_interval(bounds: Sequence[Any] | None) -> str:
    """The same, for a narrow column whose header says per cent.

    Example:
        >>> short_interval([0.25, 0.75])
        '25.0 – 75.0'
    """
    low, high = (value_of(bound) for bound in bounds or (None, None))
    return "-" if low is None or high is None else f"{100 * low:.1f} \u2013 {100 * high:.1f}"


def number(value: Any, digits: int = 2) -> str:
    """Any number with a fixed count of digits, thousands set apart.

    Example:
        >>> number(1234.5, 1), number(None)
        ('1,234.5', '-')
    """
    known = value_of(value)
    return "-" if known is None else f"{known:,.{digits}f}"
