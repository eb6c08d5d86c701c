"""Argument checks, in one place: what was given, what is needed, and the closest name where one is misspelt.

Each check returns the value it was given, or raises. `error` is the type raised: `InvalidConfigError` for settings (the
default), `InvalidInputError` for data.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.errors import AIFSError, InvalidConfigError, InvalidInputError


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` with the closest known name, empty when none is close.

    Example:
        >>> "no recipe 'ermm'" + did_you_mean("ermm", ["discovery", "erm"])
        "no recipe 'ermm' (did you mean 'erm'?)"
    """
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_choice(name: str, value: Any, choices: Iterable[Any], *, error: type[AIFSError] = InvalidConfigError) -> Any:
    """`value`, which must be one of `choices`.

    Args:
        name: of the argument.
        value: what was given.
        choices: what is allowed.
        error: the type raised.

    Raises:
        AIFSError: of the type `error`, with the closest choice.

    Example:
        >>> check_choice("kind", "l3", ("l1", "l2"))
        Traceback (most recent call last):
        aifs_peft.errors.InvalidConfigError: kind must be one of 'l1', 'l2'; got 'l3' (did you mean 'l2'?).
    """
    allowed = list(choices)
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        names = [choice for choice in allowed if isinstance(choice, str)]
        hint = did_you_mean(value, names) if isinstance(value, str) else ""
        raise error(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}{hint}.")
    return value


def check_names(
    given: Iterable[str], known: Iterable[str], what: str, *, error: type[AIFSError] = InvalidConfigError
) -> None:
    """Refuse the first given name that is not known.

    Args:
        given: names, such as those of options.
        known: names that exist.
        what: begins the message: "the method 'jtt' has no option".
        error: the type raised.

    Raises:
        AIFSError: of the type `error`, with the closest known name and all of them.

    Example:
        >>> check_names(["epoch"], ["epochs", "seed"], "no field")
        Traceback (most recent call last):
        aifs_peft.errors.InvalidConfigError: no field 'epoch' (did you mean 'epochs'?); known: epochs, seed.
    """
    allowed = list(known)
    for name in given:
        if name not in allowed:
            raise error(f"{what} {name!r}{did_you_mean(name, allowed)}; known: {', '.join(allowed) or 'none'}.")


def check_number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    error: type[AIFSError] = InvalidConfigError,
) -> float:
    """`value` as a float, which must be a finite number in a range.

    Args:
        name: of the argument.
        value: what was given; a bool is no number.
        low: least value.
        high: greatest value.
        above: leave `low` itself out.
        below: leave `high` itself out.
        error: the type raised.

    Raises:
        AIFSError: of the type `error`.

    Example:
        >>> check_number("share", 1.5, 0, 1, above=True)
        Traceback (most recent call last):
        aifs_peft.errors.InvalidConfigError: share must be a finite number in (0, 1]; got 1.5.
    """
    if not is_finite(value) or value < low or value > high or (above and value == low) or (below and value == high):
        raise error(f"{name} must be a finite number{_range(low, high, above=above, below=below)}; got {value!r}.")
    return float(value)


def is_finite(value: Any) -> bool:
    """Whether this is a number, a bool not counted, that a float can hold."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool | np.bool_) and math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _range(low: float, high: float, *, above: bool, below: bool) -> str:
    if math.isinf(high):
        if math.isinf(low):
            return ""
        return f" above {low:g}" if above else f" of at least {low:g}"
    if math.isinf(low):
        return f" below {high:g}" if below else f" of at most {high:g}"
    return f" in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"


def check_count(
    name: str, value: Any, low: int = 1, high: int | None = None, *, error: type[AIFSError] = InvalidConfigError
) -> int:
    """`value` as an int, which must be a whole number of at least `low`; a float is refused, not rounded.

    Args:
        name: of the argument.
        value: what was given.
        low: least value.
        high: greatest value; None for any.
        error: the type raised.

    Raises:
        AIFSError: of the type `error`.

    Example:
        >>> check_count("epochs", 0)
        Traceback (most recent call last):
        aifs_peft.errors.InvalidConfigError: epochs must be an integer of at least 1; got 0.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    if not whole or value < low or (high is not None and value > high):
        bound = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise error(f"{name} must be an integer {bound}; got {value!r}.")
    return int(value)


def to_numpy(values: Any) -> Any:
    """A torch tensor as a NumPy array (bfloat16 as float32), everything else as it is. Torch is not imported.

    Example:
        >>> to_numpy([1, 2])
        [1, 2]
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        return values.float().numpy() if str(values.dtype) == "torch.bfloat16" else values.numpy()
    return values


def check_ids(name: str, ids: NDArray[Any], size: int, remedy: str = "") -> None:
    """Refuse an array of ids that are not integers in `0 .. size - 1`.

    Args:
        name: of the argument.
        ids: any shape; booleans count as 0 and 1.
        size: number of ids that exist.
        remedy: what to do about it, added to the message.

    Raises:
        InvalidInputError: naming the smallest and the largest id.

    Example:
        >>> check_ids("groups", np.array([0, 4]), 4)
        Traceback (most recent call last):
        aifs_peft.errors.InvalidInputError: groups must lie in 0..3; got values from 0 to 4.
    """
    if ids.size == 0:
        return
    if ids.dtype.kind not in "iub":
        raise InvalidInputError(f"{name} must hold integers; got {ids.dtype}: take the argmax of scores, or cast ids.")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise InvalidInputError(f"{name} must lie in 0..{size - 1}; got values from {low} to {high}{remedy}.")


def parse_json_object(name: str, given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Options given as a mapping or, on a command line, as the text of a JSON object.

    Args:
        name: of the argument.
        given: the mapping, its text, or None for no options.

    Returns:
        A new dictionary.

    Raises:
        InvalidConfigError: for anything else.

    Example:
        >>> parse_json_object("method_options", '{"eta": 0.1}')
        {'eta': 0.1}
    """
    parsed: Any = given
    if isinstance(given, str):
        try:
            parsed = json.loads(given)
        except (ValueError, RecursionError) as error:  # no JSON, a number of too many digits, or nested without end
            reason = " ".join(str(error).split())
            raise InvalidConfigError(
                f"{name} must be a JSON object such as '{{\"eta\": 0.1}}'; got {given!r:.200} ({reason})."
            ) from error
    if parsed is not None and not isinstance(parsed, Mapping):
        raise InvalidConfigError(f"{name} must be a JSON object such as '{{\"eta\": 0.1}}'; got {given!r}.")
    return dict(parsed or {})
