"""`aifs methods`: every training method, what it is told, what it needs, what it costs; from the code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from aifs_peft.experiments.methods import markdown, table


def main(argv: Sequence[str]) -> int:
    """Print the table, or with `--json` a list of objects."""
    parser = argparse.ArgumentParser(prog="aifs methods", description=__doc__)
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    options = parser.parse_args(list(argv))
    rows = table()
    print(json.dumps(rows, indent=2) if options.json else markdown(rows))
    return 0
