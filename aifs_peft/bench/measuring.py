"""Time and memory of one fit."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Measured:
    """What a fit took; filled in when it is done.

    Args:
        seconds: by the clock.
        cpu_seconds: of the processors, all threads together: what other work on the machine changes little.
        peak_memory_bytes: largest memory that the process held beyond what it held before (with CUDA: that tensors held
            on the device); None where the system does not tell.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None


@contextmanager
def measured() -> Iterator[Measured]:
    """Measure the block.

    Example:
        >>> with measured() as took:
        ...     block = bytearray(50_000_000)
        >>> took.seconds > 0
        True
    """
    took, cuda = Measured(), torch.cuda.is_available()
    before = _start_of_memory(cuda=cuda)
    started, worked = time.perf_counter(), time.process_time()
    yield took
    took.seconds, took.cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    if cuda:
        took.peak_memory_bytes = int(torch.cuda.max_memory_allocated())
    elif before is not None:
        took.peak_memory_bytes = max(0, _kibibytes("VmHWM") * 1024 - before)


def _start_of_memory(*, cuda: bool) -> int | None:
    """Forget the peak so far; the memory held now, None where the system does not tell."""
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        return 0
    if not sys.platform.startswith("linux"):
        return None
    # What earlier fits have freed goes back to the system, or this one would seem to need none. Another C library gives
    # it back by itself, or does not.
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        _RESET.write_text("5")
        return _kibibytes("VmRSS") * 1024
    except OSError:  # a system that does not let a process reset its peak
        return None


def _kibibytes(name: str) -> int:
    """A line of the process's status."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
