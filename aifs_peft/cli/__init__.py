"""The `aifs` command: thin sub-commands over the library."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

USAGE = """\
usage: aifs COMMAND [options]

  finetune   fine-tune a model on a data set with one method   (aifs finetune --help)
  demo       compare ERM and AIFS on the embedded data         (aifs demo --help)
  methods    list every training method                        (aifs methods --json)
  env        print versions to paste into an issue
"""


def _commands() -> dict[str, Callable[[Sequence[str]], int]]:
    from aifs_peft.cli import demo, env, finetune, methods

    return {"finetune": finetune.main, "demo": demo.main, "methods": methods.main, "env": env.main}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit status (2 for a wrong call)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(USAGE)
        return 0 if arguments else 2
    commands = _commands()
    if arguments[0] not in commands:
        print(f"aifs: unknown command {arguments[0]!r}\n\n{USAGE}", file=sys.stderr)
        return 2
    return commands[arguments[0]](arguments[1:])
