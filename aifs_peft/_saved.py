"""Files that a run left, read again: what cannot be read, or has another form, is named, and never half understood."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aifs_peft.errors import AIFSError, InvalidInputError

DAMAGED = "{file} cannot be read ({reason}); the file is damaged. Restore it, or make the run again."
NO_OBJECT = "it holds a {kind} where an object is needed"
OTHER_FORM = (
    "what is in {folder} does not have the form that this release writes ({reason}); its files are damaged, or of "
    "another release. Restore them, or make the run again."
)


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Args:
        file: that is there.

    Raises:
        InvalidInputError: for bytes that are no JSON, or JSON that is no object.
    """
    value = read_json(file)
    if not isinstance(value, dict):
        raise InvalidInputError(DAMAGED.format(file=file, reason=NO_OBJECT.format(kind=type(value).__name__)))
    return value


def read_json(file: Path) -> Any:
    """A JSON file of whatever form.

    Args:
        file: that is there.

    Raises:
        InvalidInputError: for bytes that are no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise InvalidInputError(DAMAGED.format(file=file, reason=error)) from error


@contextmanager
def expecting_our_form(folder: str | Path) -> Iterator[None]:
    """A block that reads values out of saved files: where they have another form, the error says so.

    Args:
        folder: that the files lie in.

    Raises:
        InvalidInputError: in place of the error that Python raises for a value of another kind, or a missing one.
    """
    try:
        yield
    except AIFSError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidInputError(OTHER_FORM.format(folder=folder, reason=reason)) from error
