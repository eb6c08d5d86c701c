"""Collectives by accelerate: rows of unequal number, work on one process, the same state everywhere."""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, str_to_bool
from torch import Tensor

from aifs_peft.errors import AIFSError, InvalidConfigError
from aifs_peft.latent.state import AIFSState
from aifs_peft.training.peers import telling_lost_processes
from aifs_peft.training.processes import Processes

SHARDED = (
    "{engine} is on ({where}). It splits parameters over processes, and discovery, masks and exact resume have not "
    "been shown to work then; switch it off and use DistributedDataParallel: torchrun --nproc_per_node N ..., or "
    "accelerate launch --multi_gpu. For a base model that does not fit onto one device: "
    "AIFSTrainingArguments(shard_base_model=True), which is FSDP2 on its frozen weights"
)


def processes_of(accelerator: Accelerator) -> Processes:
    """The processes that an accelerator knows.

    Args:
        accelerator: of the training loop.

    Example:
        >>> processes_of(Accelerator(cpu=True)).world_size
        1
    """
    return Processes(
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        gather=accelerator.gather,
        gather_rows=partial(gather_rows, accelerator),
        reduce_sum=partial(accelerator.reduce, reduction="sum"),
        on_main=partial(on_main, accelerator),
        share_state=partial(share_state, accelerator),
    )


def gather_rows(accelerator: Accelerator, rows: Tensor) -> Tensor:
    """Rows of all processes, one after the other; each process may hold another number of them.

    Args:
        accelerator: of the training loop.
        rows: `(n_rank, ...)`, the same on all processes except for the first axis.

    Returns:
        `(sum of n_rank, ...)` on the CPU.
    """
    if accelerator.num_processes == 1:
        return rows.cpu()
    rows = rows.to(accelerator.device)
    sizes = accelerator.gather(torch.tensor([len(rows)], device=accelerator.device)).tolist()
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    gathered = accelerator.gather(padded).cpu().unflatten(0, (len(sizes), max(sizes)))
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


def on_main(accelerator: Accelerator, function: Callable[[], Any]) -> Any:
    """Run `function` on the main process; every process gets its result, or raises its error.

    Without this a failure on one process would leave the others waiting for it for ever.

    Args:
        accelerator: of the training loop.
        function: takes nothing; its result must be picklable when there are several processes.

    Returns:
        What `function` returned.
    """
    if accelerator.num_processes == 1:
        return function()
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = function()
        except Exception as error:  # noqa: BLE001 - raised again below, on every process
            outcome[1] = error
    broadcast_object_list(outcome, from_process=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def digest(state: AIFSState) -> str:
    """SHA-256 of all buffers of an adapter's state, names and shapes included."""
    sha = hashlib.sha256()
    for name, buffer in sorted(state.named_buffers()):
        sha.update(f"{name}{tuple(buffer.shape)}{buffer.dtype}".encode())
        sha.update(buffer.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def share_state(accelerator: Accelerator, state: AIFSState) -> None:
    """Give every process the main process's state, and check that they have it.

    Args:
        accelerator: of the training loop.
        state: the adapter's buffers; their sizes may differ before, never after.

    Raises:
        AIFSError: if the states still differ.
    """
    if accelerator.num_processes == 1:
        return
    content: list[dict[str, Any]] = [{name: buffer.cpu() for name, buffer in state.named_buffers()}]
    broadcast_object_list(content, from_process=0)
    state.update(**content[0])
    code = torch.tensor([int(digest(state)[:15], 16)], device=accelerator.device)
    codes = set(accelerator.gather(code).tolist())
    if len(codes) > 1:
        raise AIFSError(
            f"the adapter's state differs between processes after it was broadcast ({len(codes)} versions); check "
            "that all processes run the same versions of torch and of this package"
        )


def refuse_sharding(accelerator: Accelerator | None = None) -> None:
    """Refuse FSDP and DeepSpeed, however they were switched on.

    Args:
        accelerator: of the training loop; None looks at what a launcher has set, before one is made.

    Raises:
        InvalidConfigError: naming the engine and where it was switched on.
    """
    for engine, variable, attribute in (
        ("FSDP", "ACCELERATE_USE_FSDP", "fsdp_plugin"),
        ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED", "deepspeed_plugin"),
    ):
        if str_to_bool(os.environ.get(variable, "false")):
            raise InvalidConfigError(SHARDED.format(engine=engine, where=f"{variable}, set by accelerate launch"))
        if accelerator is not None and getattr(accelerator.state, attribute, None) is not None:
            raise InvalidConfigError(SHARDED.format(engine=engine, where=f"the accelerator has a {attribute}"))


def close_process_group() -> None:
    """End distributed work before the interpreter ends; called by every process, after dropping its trainer.

    A trainer and its DDP wrapper are reference cycles that hold the process group. They are collected before it is
    destroyed, for two reasons. A group they still hold outlives `destroy_process_group`, and its threads may want the
    interpreter while it shuts down, which aborts a process (SIGABRT, "terminate called without an active exception")
    whose work was done. And a group whose last holder is a DDP reducer is destroyed under the interpreter's lock: it
    joins its threads, and one that wants the lock to let go of a tensor waits for it for ever. `destroy_process_group`
    gives the lock up.
    """
    state = PartialState()
    with telling_lost_processes(state.process_index, state.num_processes):
        state.wait_for_everyone()
    gc.collect()
    PartialState().destroy_process_group()
