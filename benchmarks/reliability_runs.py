"""The small trainings that `reliability.py` kills, damages and resumes, each in a fork of a process that has torch.

A fork takes milliseconds where a start of Python with torch and transformers takes ten seconds. The process that forks
never trains itself, so no thread of torch's is lost in a fork.
"""

import gc
import hashlib
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import ViTConfig, ViTForImageClassification
from transformers.utils import logging as transformers_logging

from aifs_peft.errors import AIFSError
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.training.parallel import close_process_group
from aifs_peft.tuner import AIFSConfig

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PICTURE = {"image_size": 8, "patch_size": 4}
LORA = {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_dropout": 0.1}
# Name -> recipe, whether the encoder is trained, training examples, batch size of the whole step.
KINDS = {
    "paper, LoRA": ("paper", True, 64, 16),
    "paper, frozen": ("paper", False, 64, 16),
    "discovery, LoRA": ("discovery", True, 120, 24),
    "erm, LoRA": ("erm", True, 64, 16),
}
RESULT, ERROR = "result.json", "error.txt"


class Augmented(torch.utils.data.Dataset):
    """Pictures with a shortcut in the red channel, changed at each reading by all three global generators."""

    def __init__(self, size: int, seed: int = 0, augment: bool = True) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = [i % 2 for i in range(size)]
        self.images = torch.randn(size, 3, 8, 8, generator=generator) * 0.5
        self.augment = augment
        for i, label in enumerate(self.labels):
            spurious = label if i % 10 < 9 else 1 - label
            self.images[i, 1:] += label - 0.5
            self.images[i, 0] += 4 * (spurious - 0.5)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict:
        image = self.images[i]
        if self.augment:
            # The global generators, as user's code has them.
            image = image + 0.1 * torch.randn(()) + 0.1 * random.random() + 0.1 * np.random.rand()  # noqa: NPY002
        return {"pixel_values": image.float(), "label": self.labels[i]}


@dataclass(frozen=True)
class Training:
    """One training.

    Args:
        kind: of `KINDS`.
        folder: of the run; checkpoints lie in it.
        resume: folder of a checkpoint, or True.
        world_size: processes.
    """

    kind: str
    folder: Path
    resume: str | bool | None = None
    world_size: int = 1


def train(training: Training) -> dict:
    """Train to the end; digests of what was learnt, of the optimizer and of the history."""
    recipe, lora, size, batch = KINDS[training.kind]
    torch.manual_seed(0)
    vit = ViTForImageClassification(ViTConfig(num_labels=2, hidden_dropout_prob=0.1, **SIZES, **PICTURE))
    config = AIFSConfig(recipe=recipe, encoder_adapter=LoraConfig(**LORA) if lora else None)
    args = AIFSTrainingArguments(
        output_dir=str(training.folder), num_train_epochs=3, per_device_train_batch_size=batch // training.world_size,
        learning_rate=1e-2, use_cpu=True, disable_tqdm=True, logging_steps=1, save_strategy="steps", save_steps=1,
        save_total_limit=4, eval_strategy="epoch", seed=7, report_to="none", early_stopping_patience=3, ddp_timeout=30,
    )  # fmt: skip
    trainer = AIFSTrainer(
        get_peft_model(vit, config), args, train_dataset=Augmented(size), eval_dataset=Augmented(20, 1, augment=False)
    )
    trainer.train(resume_from_checkpoint=training.resume)
    learnt = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    learnt |= {name: b for name, b in trainer.model.named_buffers() if "aifs_state" in name}
    moments = [value for state in trainer.optimizer.state_dict()["state"].values() for value in state.values()]
    history = [
        {name: value for name, value in row.items() if "runtime" not in name and "per_second" not in name}
        for row in trainer.state.log_history
        if "train_runtime" not in row
    ]
    result = {
        "learnt": _digest(value for _, value in sorted(learnt.items())),
        "optimizer": _digest(moments),
        "history": hashlib.sha256(json.dumps(history, sort_keys=True).encode()).hexdigest(),
        "steps": trainer.state.global_step,
    }
    del trainer, learnt
    return result


def _digest(tensors) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(torch.as_tensor(tensor).detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Moment:
    """When a signal is sent: some seconds after a checkpoint is there, so that a busy machine does not shift it.

    Args:
        step: of the checkpoint; 0 is the beginning of the run.
        delay: seconds.
    """

    step: int
    delay: float

    def wait(self, folder: Path, process: int) -> None:
        """Wait for it, or for the end of the process."""
        while self.step and steps_in(folder) < self.step and os.waitid(os.P_PID, process, ENDED) is None:
            time.sleep(0.002)
        time.sleep(self.delay)


# Asks whether a process has ended, and leaves it to be waited for.
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def steps_in(folder: Path) -> int:
    """The step of the newest checkpoint; 0 before the first one."""
    return max((int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")), default=0)


def is_writing(folder: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(folder.glob(".unfinished-*"))


def fork(training: Training, rank: int, out: Path, port: int) -> int:
    """Begin a training in a process of its own; its id. It leaves `result.json` or `error.txt` in `out`."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        out.mkdir(parents=True, exist_ok=True)
        sink = os.open(out / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, sys.stdout.fileno())
        os.dup2(sink, sys.stderr.fileno())
        if training.world_size > 1:
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(training.world_size), LOCAL_WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
            )  # fmt: skip
        result = train(training)
        (out / RESULT).write_text(json.dumps(result))
        close_process_group()
        status = 0
    except SystemExit as stop:  # SIGTERM
        status = int(stop.code)
    except AIFSError as error:
        (out / ERROR).write_text(f"{type(error).__name__}: {error}")
    except BaseException:  # noqa: BLE001 - whatever it is, it goes into the report
        (out / ERROR).write_text(traceback.format_exc())
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(processes: list[int], limit: float = 120.0) -> tuple[list[float | None], list[int]]:
    """Wait for processes: seconds after which each ended, and its status, negative for a signal.

    One that does not end in time is killed, and has no seconds.
    """
    started, ended, status = time.monotonic(), dict.fromkeys(processes), {}
    while None in ended.values() and time.monotonic() - started < limit:
        for process in processes:
            if ended[process] is None:
                found, code = os.waitpid(process, os.WNOHANG)
                if found:
                    ended[process] = time.monotonic() - started
                    status[process] = os.waitstatus_to_exitcode(code)
        time.sleep(0.005)
    for process, seconds in ended.items():
        if seconds is None:
            os.kill(process, signal.SIGKILL)
            status[process] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return [ended[process] for process in processes], [status[process] for process in processes]


def quiet() -> None:
    """Before the first fork."""
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    torch.set_num_threads(1)
    # What trainings import on their way, once and for all of them.
    for name in ("experiments", "methods.aifs", "metrics", "report"):
        import_module(f"aifs_peft.{name}")
    gc.collect()
    gc.freeze()  # a fork that collects garbage would copy every page of what is imported
    transformers_logging.set_verbosity_error()
