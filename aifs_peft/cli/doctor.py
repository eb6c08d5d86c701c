"""`aifs doctor`: is the environment sound, and is a local copy of a data set complete?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from aifs_peft.cli.values import json_object
from aifs_peft.environment import check_environment
from aifs_peft.errors import AIFSError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aifs doctor", description=__doc__)
    parser.add_argument("--dataset", help="a name from aifs_peft.data.names(); without it the environment is checked")
    parser.add_argument("--data-dir", help="folder of the local copy")
    parser.add_argument("--option", type=json_object, default={}, help="options of the data set, a JSON object")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the findings; status 1 when something must be mended."""
    options = _parser().parse_args(argv)
    if options.dataset is None:
        checks = check_environment()
        print("\n".join(map(str, checks)))
        return int(any(check.ok is False for check in checks))
    from aifs_peft.data.doctor import check_data_set  # needs datasets, which a broken environment may lack

    try:
        report = check_data_set(options.dataset, options.data_dir, **options.option)
    except AIFSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report)
    return int(not report.ok)
