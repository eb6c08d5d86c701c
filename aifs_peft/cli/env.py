"""`aifs env`: versions, commit and hardware, to paste into an issue."""

from __future__ import annotations

from collections.abc import Sequence

from aifs_peft.cli.mistakes import command
from aifs_peft.cli.parser import OUTPUT, Parser


@command
def main(argv: Sequence[str]) -> int:
    """Print the provenance block, which is JSON with and without `--json`."""
    Parser("env", "Print versions, commit and hardware as JSON, to paste into an issue.", OUTPUT).values(argv)
    from aifs_peft.cli.screen import print_json
    from aifs_peft.experiments import provenance

    print_json(provenance())
    return 0
