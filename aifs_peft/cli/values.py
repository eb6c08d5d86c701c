"""Types of command-line options that argparse lacks."""

from __future__ import annotations

import argparse
from typing import Any

from aifs_peft._checks import parse_json_object
from aifs_peft.errors import InvalidConfigError


def json_object(text: str) -> dict[str, Any]:
    """`'{"aligned_share": 0.9}'` as a dict; anything else is a usage error."""
    try:
        return parse_json_object("the option", text)
    except InvalidConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
