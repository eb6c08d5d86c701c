"""SIGTERM, as schedulers send it before they end a job: the step is finished, a checkpoint saved, the process ended."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

# The status a shell reports for a process that SIGTERM has ended: 128 + 15.
TERMINATED = 143
# Where a scheduler signals the whole job, a launcher passes its own signal on, and each process hears of one end twice.
_SAME_SECONDS = 5.0


class Termination:
    """While it is entered, a first SIGTERM is noted and a second one, over five seconds later, ends the process.

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
        self.requested, self._since = False, 0.0
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
        elsewhere = os.getpid() != self._process
        if self.requested and not elsewhere and time.monotonic() - self._since < _SAME_SECONDS:
            return
        if self.requested or elsewhere:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.requested, self._since = True, time.monotonic()
        logger.warning(
            "SIGTERM: saving a checkpoint after this step, then ending; another one after %g s ends at once",
            _SAME_SECONDS,
        )
