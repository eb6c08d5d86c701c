"""Weak scaling on one machine, and the bytes that an update of the mask moves, counted and by formula.

Each process trains on as many examples as the one of a single-process run. What differs in time is what processes say
to each other: gradients in each step, latents and state at an epoch's end. Trainings with 1 and 2 processes take turns;
seconds are those of an epoch after the first one, on the clock, with the machine's load beside them.

    python benchmarks/weak_scaling.py [--processes 1 2] [--rounds 3]

On a machine with as many cores as processes do work at full speed the ratio says what communication costs; with fewer,
or other work beside it, it says that. The formula's bytes hold anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

RESULT = Path(__file__).parent / "results" / "performance" / "weak_scaling.json"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
MARK, END = "<!-- weak_scaling -->", "<!-- /weak_scaling -->"
REGIMES = ("erm", "aifs-paper", "aifs-paper, shard_base_model")
PER_PROCESS, BATCH, EPOCHS = 128, 16, 3
# Sizes of what is told on paper: examples kept, width of latents, processes.
KEPT, WIDTHS, PROCESSES = (2048, 20_000, 1_000_000), (768, 4096), (1, 2, 8, 64, 1024)


def bytes_per_update(kept: int, dim: int, processes: int, state: int, *, reduced: bool = False) -> int:
    """Bytes that each process receives in an update of the mask at an epoch's end.

    Args:
        kept: latents that are looked at, of all processes (`mask_samples`).
        dim: their width d.
        processes: number of processes W.
        state: bytes of the adapter's state, see `state_bytes`.
        reduced: whether attributions are summed over the processes (the paper's recipe).

    Returns:
        Latents, positions, labels and steps are gathered, `kept * (4 d + 24)`, with four sizes from each process; a sum
        of d + 2 numbers where attributions are; the state, its length and one digest from each process.

    Example:
        >>> bytes_per_update(2048, 768, 2, state=10_000)
        6350648
    """
    if processes == 1:
        return 0
    rows = -(-kept // processes) * processes
    return rows * (4 * dim + 24) + 32 * processes + 8 * (dim + 2) * reduced + state + 8 + 8 * processes


def state_bytes(dim: int, classes: int, directions: int, examples: int) -> int:
    """Bytes of an adapter's state after a discovery with one attribute.

    Args:
        dim: width of the latents.
        classes: number of classes, and of attribute values.
        directions: of the basis.
        examples: of the training set, each with its inferred group.
    """
    vectors = directions + 2 * classes + 1 + classes  # basis, both displacements, centre, reader
    return 4 * dim * vectors + 8 * dim + 8 * examples


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Bytes that this process receives by collectives called from Python, by their name."""
    received: dict[str, int] = {}

    def counting(name: str, sizes: Callable[..., int]) -> Any:
        original = getattr(distributed_c10d, name)

        def call(*given: Any, **named: Any) -> Any:
            received[name] = received.get(name, 0) + sizes(*given)
            return original(*given, **named)

        return original, call

    def nbytes(tensor: Any, *_: Any) -> int:
        return sum(t.nbytes for t in tensor) if isinstance(tensor, list) else int(tensor.nbytes)

    calls = {name: counting(name, nbytes) for name in ("all_gather", "all_reduce", "broadcast")}
    for name, (_, call) in calls.items():
        for module in (dist, distributed_c10d):
            setattr(module, name, call)
    try:
        yield received
    finally:
        for name, (original, _) in calls.items():
            for module in (dist, distributed_c10d):
                setattr(module, name, original)


def _trainer(regime: str, folder: str) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import ViTConfig, ViTForImageClassification

    from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments

    world = int(os.environ.get("WORLD_SIZE", "1"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512}
    vit = ViTForImageClassification(ViTConfig(num_labels=2, image_size=32, patch_size=4, **sizes))
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], r=8)
    model = get_peft_model(vit, AIFSConfig(recipe="erm" if regime == "erm" else "paper", encoder_adapter=lora))
    n = PER_PROCESS * world
    label = torch.arange(n) % 2
    mark = torch.where(torch.arange(n) // 2 % 20 > 0, label, 1 - label)
    images = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.5
    images[:, 1, :, :16] += (label - 0.5)[:, None, None]
    images[:, 0, :16] += 4 * (mark - 0.5)[:, None, None]
    rows = [{"pixel_values": image, "label": int(y)} for image, y in zip(images, label, strict=True)]
    args = AIFSTrainingArguments(
        folder, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, per_device_eval_batch_size=64, use_cpu=True,
        disable_tqdm=True, save_strategy="no", logging_strategy="no", learning_rate=1e-3,
        shard_base_model="shard" in regime,
    )  # fmt: skip
    return AIFSTrainer(model, args, train_dataset=rows)


def worker(out: str) -> None:
    """Train by each regime; the first process writes seconds per epoch and bytes of the last update."""
    from transformers import PrinterCallback, TrainerCallback

    from aifs_peft.training.parallel import close_process_group

    class Clock(TrainerCallback):
        """Notes when epochs begin and end."""

        def __init__(self) -> None:
            self.at: list[float] = []

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.at.append(time.perf_counter())

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self.at.append(time.perf_counter())

    rows: dict[str, Any] = {}
    world = int(os.environ.get("WORLD_SIZE", "1"))
    for regime in REGIMES:
        if "shard" in regime and world == 1:
            continue
        with tempfile.TemporaryDirectory() as folder:
            trainer = _trainer(regime, folder)
            clock = Clock()
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(clock)
            finish, spent = trainer._finish_epoch, []

            def timed(epoch: int, finish: Any = finish, spent: list[Any] = spent) -> None:
                begin = time.perf_counter()
                with counted() as received:
                    finish(epoch)
                spent.append((time.perf_counter() - begin, sum(received.values())))

            callback = next(c for c in trainer.callback_handler.callbacks if hasattr(c, "_finish_epoch"))
            callback._finish_epoch = timed
            trainer.train()
        epochs = [end - begin for begin, end in zip(clock.at[::2], clock.at[1::2], strict=True)]
        state = sum(buffer.nbytes for _, buffer in trainer.layer.state.named_buffers())
        rows[regime] = {
            "epoch_seconds": statistics.median(epochs[1:]),
            "update_seconds": statistics.median(seconds for seconds, _ in spent[1:]),
            "update_bytes": spent[-1][1],
            "formula_bytes": bytes_per_update(PER_PROCESS * world, 128, world, state, reduced=True)
            if regime != "erm"
            else 0,
        }
        main = trainer.is_world_process_zero()
    if main:
        Path(out).write_text(json.dumps(rows))
    del trainer, callback, finish, timed
    if world > 1:
        close_process_group()


def measure(processes: int) -> dict[str, Any]:
    """One launch."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "rows.json")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--worker", out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows: dict[str, Any] = json.loads(Path(out).read_text())
    return rows


def on_paper() -> list[dict[str, int]]:
    """Bytes that a process receives per update, two classes and one direction."""
    return [
        {
            "kept": kept, "dim": dim, "processes": processes,
            "bytes": bytes_per_update(kept, dim, processes, state_bytes(dim, 2, 1, max(KEPT))),
        }
        for kept in KEPT for dim in WIDTHS for processes in PROCESSES
    ]  # fmt: skip


def table(content: dict[str, Any]) -> str:
    """The measured rows for docs/performance.md."""
    lines = [
        "| processes | training | seconds per epoch | speed, of one process | seconds per update | bytes counted |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for row in content["rows"]:
        numbers = f"{row['epoch_seconds']:.2f} | {row['efficiency']:.2f} | {row['update_seconds']:.3f}"
        lines.append(f"| {row['processes']} | `{row['regime']}` | {numbers} | {row['update_bytes']:,} |")
    load = f"Load of the machine: {content['load_before']:.1f} before, {content['load_after']:.1f} after."
    return "\n".join([*lines, "", load]) + "\n"


def write_page(content: dict[str, Any]) -> None:
    """Put the rows between their marks in docs/performance.md."""
    before, _, rest = PAGE.read_text().partition(MARK)
    PAGE.write_text(f"{before}{MARK}\n{table(content)}{END}{rest.partition(END)[2]}")


def main() -> None:
    """Measure in turns, and write the result."""
    from aifs_peft.experiments import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker")
    given = parser.parse_args()
    if given.worker:
        worker(given.worker)
        return
    load = os.getloadavg()[0]
    runs: dict[int, list[dict[str, Any]]] = {processes: [] for processes in given.processes}
    for _ in range(given.rounds):
        for processes in given.processes:
            runs[processes].append(measure(processes))
    rows = []
    for processes, measured in runs.items():
        for regime in measured[0]:
            found = {name: statistics.median(run[regime][name] for run in measured) for name in measured[0][regime]}
            alone = [run[regime.partition(",")[0]]["epoch_seconds"] for run in runs.get(1, [])]
            efficiency = statistics.median(alone) / found["epoch_seconds"] if alone else None
            rows.append({"processes": processes, "regime": regime, **found, "efficiency": efficiency})
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "per_process": PER_PROCESS, "batch_size": BATCH, "rounds": given.rounds, "cores": os.cpu_count(),
        "load_before": load, "load_after": os.getloadavg()[0], "rows": rows, "on_paper": on_paper(),
        "provenance": provenance(),
    }  # fmt: skip
    RESULT.write_text(json.dumps(content, indent=1) + "\n")
    write_page(content)
    print(table(content))


if __name__ == "__main__":
    main()
