"""`aifs methods`: every training method, what it is told, what it needs, what it costs; from the code."""

from __future__ import annotations

from collections.abc import Sequence

from aifs_peft.cli.mistakes import command
from aifs_peft.cli.parser import OUTPUT, Parser


@command
def main(argv: Sequence[str]) -> int:
    """Print the table, or with `--json` a list of objects."""
    given = Parser("methods", "List every training method: what it is told, needs and costs.", OUTPUT).values(argv)
    from aifs_peft.cli.screen import print_json
    from aifs_peft.experiments.methods import markdown, table

    if given.json:
        print_json(table())
    else:
        print(markdown(table()))
    return 0
