"""`aifs env`: versions, commit and hardware, to paste into an issue."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aifs_peft.experiments import provenance


def main(argv: Sequence[str]) -> int:
    """Print the provenance block; takes no options."""
    if argv:
        print("usage: aifs env")
        return 2
    print(json.dumps(provenance(), indent=2))
    return 0
