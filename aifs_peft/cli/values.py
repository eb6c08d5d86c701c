"""Types of command-line options that argparse lacks."""

from __future__ import annotations

import argparse
import json
from typing import Any


def json_object(text: str) -> dict[str, Any]:
    """`'{"aligned_share": 0.9}'` as a dict; anything else is a usage error."""
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise argparse.ArgumentTypeError(f"needs a JSON object, such as '{{\"aligned_share\": 0.9}}'; got {text}")
    return parsed
