"""The `aifs` command: thin sub-commands over the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

# Command -> what it does; each lives in a module of its name.
COMMANDS = {
    "audit": "look for a shortcut in a data set with a frozen encoder, without training",
    "finetune": "fine-tune a model on a data set with one method, and compare it with plain training",
    "evaluate": "evaluate a trained adapter on a data set, group by group",
    "predict": "predict new inputs with a trained adapter, as CSV",
    "demo": "compare plain training (ERM) and AIFS on data that ship with this package",
    "methods": "list every training method",
    "bench": "do the runs of a benchmark experiment that are missing, and write its tables",
    "reproduce": "do one run of the benchmark again, and say whether it agrees",
    "report": "write the HTML report of a run or an audit",
    "card": "print the model card of a run",
    "doctor": "check the environment, or a data set",
    "env": "print versions to paste into an issue",
}
_WIDTH = max(map(len, COMMANDS)) + 2
USAGE = f"""\
usage: aifs COMMAND [options]

{chr(10).join(f"  {name:<{_WIDTH}}{text}" for name, text in COMMANDS.items())}

`aifs COMMAND --help` lists a command's options; `aifs --version` prints the version.
Results go to stdout, progress and errors to stderr (--quiet: no progress; --json: the result as JSON).
Exit status: 0 done, 1 the run failed, `doctor` found a problem or `reproduce` does not agree, 2 a mistake in the call,
130 interrupted, 143 ended by SIGTERM (`finetune` saves a checkpoint first).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        argv: the words after `aifs`; None takes those of this process.

    Returns:
        The exit status: 0 done, 1 the run failed or `doctor` found a problem, 2 a mistake in the call, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from aifs_peft import __version__

        print(f"aifs_peft {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        from aifs_peft._checks import did_you_mean

        hint = did_you_mean(name, COMMANDS) or f"; it is one of {', '.join(COMMANDS)}"
        print(f"error: unknown command {name!r}{hint}", file=sys.stderr)
        return 2
    # Only the command that was asked for: `doctor` must run where transformers cannot be imported.
    status: int = import_module(f"aifs_peft.cli.{name}").main(arguments[1:])
    return status
