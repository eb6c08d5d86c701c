"""What a process says when another one of the run has ended: one clear message instead of a socket's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from transformers import TrainingArguments

from aifs_peft.errors import AIFSError, ProcessLostError

# How torch's backends word it; their exceptions are plain RuntimeErrors in part.
_WORDS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe", "socket")


@contextmanager
def telling_lost_processes(rank: int, world_size: int) -> Iterator[None]:
    """Turn the failure of a collective operation into an error that says what has happened.

    Args:
        rank: of this process.
        world_size: number of processes; with one, nothing is turned.

    Raises:
        ProcessLostError: if another process has ended or does not answer.
    """
    try:
        yield
    except AIFSError:
        raise
    except RuntimeError as error:
        if world_size == 1 or not is_lost(error):
            raise
        raise ProcessLostError(
            f"process {rank} of {world_size} ends because another process of this run has ended or does not answer; "
            "its own message says why (out of memory, killed, an error). Start all processes again, with "
            f"resume_from_checkpoint=True to go on from the last checkpoint. ({' '.join(str(error).split())[:200]})"
        ) from error


@contextmanager
def meeting_processes(args: TrainingArguments) -> Iterator[None]:
    """A block in which the processes of a run come together; each waits for the others for `ddp_timeout`.

    With `use_cpu` transformers leaves `ddp_timeout` out, and a process would wait half an hour for one that has died.

    Args:
        args: of the run.

    Raises:
        ProcessLostError: if not all of them come.
    """
    # Set by every launcher but MPI's, whose variables accelerate reads later.
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    with telling_lost_processes(rank, world_size):
        if args.use_cpu and world_size > 1 and dist.is_available() and not dist.is_initialized():
            dist.init_process_group(args.ddp_backend or "gloo", timeout=timedelta(seconds=args.ddp_timeout))
        yield


def is_lost(error: BaseException) -> bool:
    """Whether an error is that of a collective operation whose other side is gone.

    Args:
        error: as torch raised it.

    Example:
        >>> is_lost(RuntimeError("gloo/transport/tcp/pair.cc:547] Connection closed by peer")), is_lost(ValueError("x"))
        (True, False)
    """
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)
