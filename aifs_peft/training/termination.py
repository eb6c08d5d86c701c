"""SIGTERM, as schedulers send it before they end a job: the step is finished, a checkpoint saved, the process ended."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

# The status a shell reports for a process that SIGTERM has ended: 128 + 15.
TERMINATED = 143


class Termination:
    """While it is entered, a first SIGTERM is noted and a second one ends the process at once.

    Only in the main thread, and only where nobody else handles the signal. The handler that was there comes back.

    Args:
        wanted: False leaves the signal alone.

    Example:
        >>> with Termination() as termination:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     termination.requested
        True
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self.requested = False
        self._wanted, self._process, self._installed = wanted, os.getpid(), False

    def __enter__(self) -> Termination:
        alone = threading.current_thread() is threading.main_thread()
        if self._wanted and alone and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._note)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._installed = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        # A process that was forked from this one (a data loader's worker) has no step to finish.
        if self.requested or os.getpid() != self._process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.requested = True
        logger.warning("SIGTERM: saving a checkpoint after this step, then ending; a second one ends at once")
