"""The `aifs` command: thin sub-commands over the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

USAGE = """\
usage: aifs COMMAND [options]

  finetune   fine-tune a model on a data set with one method   (aifs finetune --help)
  demo       compare ERM and AIFS on the embedded data         (aifs demo --help)
  methods    list every training method                        (aifs methods --json)
  doctor     check the environment, or a local copy of a data set   (aifs doctor --help)
  env        print versions to paste into an issue
"""
COMMANDS = ("finetune", "demo", "methods", "doctor", "env")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit status (2 for a wrong call)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        print(f"aifs: unknown command {arguments[0]!r}\n\n{USAGE}", file=sys.stderr)
        return 2
    # Only the command that was asked for: `doctor` must run where transformers cannot be imported.
    status: int = import_module(f"aifs_peft.cli.{arguments[0]}").main(arguments[1:])
    return status
