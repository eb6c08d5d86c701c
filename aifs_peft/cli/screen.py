"""A screen with nothing on it but what this package says: the bars and warnings of other libraries are left out."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from typing import Any


def quiet_libraries() -> None:
    """Silence progress bars and information of transformers and datasets, and warnings that say nothing to a user.

    For a process of the command line; the library itself changes no global setting.
    """
    # bitsandbytes tells at import that kernels for the CPU, which nothing here uses, are missing.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # PEFT 0.21 reads a property that transformers 5.23 has renamed.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.formatwarning = _one_line


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning for who uses the command: what it says, without the place in the code that says it."""
    del category, filename, lineno, line
    return f"warning: {' '.join(str(message).split())}\n"


class Progress:
    """Lines on stderr that say what is being done.

    Args:
        quiet: say nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def __call__(self, text: str) -> None:
        """Write one line."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A result as JSON on stdout; a value that is not finite is a fault of the caller.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
    """
    print(json.dumps(value, indent=2, allow_nan=False))
