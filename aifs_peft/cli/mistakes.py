"""What a command says when it cannot do what it was asked to: one line on stderr, and an exit status.

0: done. 1: the run failed, or `aifs doctor` found a problem. 2: a mistake in the call, its files or its data.
130: interrupted (Ctrl-C). 143: ended by SIGTERM; `finetune` saves a checkpoint first. A traceback is a
fault of this package.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence

from aifs_peft.errors import AIFSError, CheckpointWriteError, NonFiniteError, ProcessLostError, PushFailedError

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130
# Of the errors of the operating system, those about a path that the user named.
_WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
Main = Callable[[Sequence[str]], int]


class UsageError(AIFSError, ValueError):
    """A call that cannot be carried out: an unknown option, or a value that is not one of those it takes."""


class RunFailedError(AIFSError, RuntimeError):
    """Something outside the call went wrong; what was done before is kept."""


def say(message: str) -> None:
    """Print an error as one line."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)


def command(main: Main) -> Callable[[Sequence[str] | None], int]:
    """Turn the errors of a command's `main` into one line and an exit status.

    Args:
        main: takes the arguments after the command's name.

    Returns:
        The same for arguments that may be left out (those of this process are taken then).
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(list(sys.argv[1:] if argv is None else argv))
        except SystemExit as stop:  # argparse ends this way after --help
            return stop.code if isinstance(stop.code, int) else 0
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
        except BrokenPipeError:  # `aifs methods | head`: whoever reads has gone
            # Python would try to write the rest once more on its way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except (NonFiniteError, RunFailedError, CheckpointWriteError, ProcessLostError, PushFailedError) as error:
            say(str(error))
            return FAILED
        except AIFSError as error:
            say(str(error))
            return MISTAKE
        except OSError as error:
            say(str(error))
            return MISTAKE if isinstance(error, _WRONG_PATH) else FAILED

    return run
