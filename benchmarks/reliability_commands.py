"""The command line in processes of their own, as a user or a scheduler starts it: alone, by torchrun, by accelerate.

Each start imports everything anew, so these cases are few. `reliability.py` runs them.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from reader_models import save_texts
from reliability_runs import Moment, free_port, is_writing
from report_runs import save_roberta

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ["-m", "aifs_peft.cli", "finetune"]
LIMIT = 300.0
_ACCELERATE = "-m accelerate.commands.launch --num_machines 1 --mixed_precision no --dynamo_backend no"
# Name -> arguments of Python before the command; PORT is a free one.
LAUNCHERS = {
    "alone": "",
    "torchrun, 2 processes": "-m torch.distributed.run --nproc_per_node 2 --master_port PORT",
    "accelerate launch, 1 process": f"{_ACCELERATE} --cpu --num_processes 1",
    "accelerate launch, 2 processes": f"{_ACCELERATE} --multi_gpu --num_processes 2 --main_process_port PORT",
}


@dataclass(frozen=True)
class Commands:
    """A small model and its texts on the disk, and `aifs finetune` on them.

    Args:
        folder: for model, texts and runs.
    """

    folder: Path

    def prepare(self) -> None:
        """Write the model and the texts."""
        save_roberta(self.folder / "base")
        save_texts(self.folder / "texts")

    def start(self, launcher: str, out: Path, port: int, *, resume: bool = False, every: int = 1) -> subprocess.Popen:
        """Begin a run, in a session of its own.

        Args:
            launcher: of `LAUNCHERS`.
            out: its output folder.
            port: a free one.
            resume: whether it goes on from the newest whole checkpoint.
            every: steps between two checkpoints.
        """
        columns = json.dumps({"text": "sentence", "label": "verdict", "group": "kind"})
        options = [
            *("--model", str(self.folder / "base"), "--dataset", str(self.folder / "texts")),
            *("--dataset-options", columns, "--adapter", "lora", "--lora-dropout", "0.1"),
            *("--epochs", "2", "--batch-size", "16"),
            *("--save-strategy", "steps", "--save-steps", str(every), "--save-total-limit", "3", "--baseline", "none"),
            *("--load-best-model-at-end", "False"),
            *("--max-length", "16", "--use-cpu", "--quiet", "--ddp-timeout", "60", "--output-dir", str(out)),
            *(["--resume-from-checkpoint", "True"] if resume else []),
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}
        environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.with_suffix(".txt").open("a") as said:
            return subprocess.Popen(
                [sys.executable, *LAUNCHERS[launcher].replace("PORT", str(port)).split(), *COMMAND, *options],
                env=environment, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip


def workers(launched: subprocess.Popen) -> list[psutil.Process]:
    """The processes that train, in the order in which they were started."""
    family = [psutil.Process(launched.pid), *psutil.Process(launched.pid).children(recursive=True)]
    found = []
    for process in family:
        try:
            line = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if "aifs_peft.cli" in line and not any("distributed.run" in word or "commands.launch" in word for word in line):
            found.append(process)
    return sorted(found, key=lambda process: process.create_time())


def ended(launched: subprocess.Popen, limit: float = LIMIT) -> int | None:
    """The exit status of a run; None, and everything of it is killed, where it does not end."""
    family = [psutil.Process(launched.pid), *psutil.Process(launched.pid).children(recursive=True)]
    try:
        return launched.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        launched.wait()


def learnt(out: Path) -> dict[str, str] | None:
    """Digests of a finished run's adapter and of the optimizer of its last checkpoint; None of an unfinished one."""
    if not (out / "summary.json").exists():
        return None
    last = max(out.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    sha = hashlib.sha256()
    for _, moments in sorted(torch.load(last / "optimizer.pt", weights_only=True)["state"].items()):
        for name in sorted(moments):
            sha.update(torch.as_tensor(moments[name]).contiguous().numpy().tobytes())
    adapter = hashlib.sha256((out / "adapter_model.safetensors").read_bytes()).hexdigest()
    return {"checkpoint": last.name, "adapter": adapter, "optimizer": sha.hexdigest()}


def alive(processes: list[psutil.Process], seconds: float) -> list[int]:
    """The ids of those that have not ended after some seconds."""
    end = time.monotonic() + seconds
    left = processes
    while left and time.monotonic() < end:
        left = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.05)
    return [process.pid for process in left]


def interrupt(launched: subprocess.Popen, whom: str, number: int = signal.SIGTERM) -> list[psutil.Process]:
    """Send a signal to the "launcher", to "one process" that trains, or to "all" (the job's cgroup).

    Returns:
        The processes that train.
    """
    training = workers(launched)
    targets = {"launcher": [launched.pid], "one process": [training[-1].pid]}
    targets["all"] = sorted({launched.pid, *(process.pid for process in training)})
    for process in targets[whom]:
        os.kill(process, number)
    return training


def kill_commands(count: int, until: float, folder: Path, seed: int, keep, before: dict | None) -> None:
    """SIGKILL to `aifs finetune`, alone and to one of two processes of torchrun; started again with True, compared."""
    tally = Counter((before or {}).get("counts", {}))
    folder = folder / "commands"
    given, problems, wholes = Commands(folder), list((before or {}).get("problems", [])), {}
    given.prepare()
    for number in range(tally["kills"], count):
        if time.monotonic() > until:
            break
        launcher, draw = ("alone", "torchrun, 2 processes")[number % 2], random.Random(f"{seed}/commands/{number}")
        if launcher not in wholes:
            whole = folder / f"whole-{number}"
            assert ended(given.start(launcher, whole, free_port())) == 0, whole.with_suffix(".txt").read_text()
            wholes[launcher] = learnt(whole)
        out, last = folder / f"run-{number}", int(wholes[launcher]["checkpoint"].rpartition("-")[2])
        moment = Moment(draw.randrange(1, last), draw.uniform(0, 0.3))
        started = given.start(launcher, out, free_port())
        moment.wait(out, started.pid)
        tally["kills"] += 1
        tally[launcher] += 1
        tally["fell while a checkpoint was being written"] += is_writing(out)
        interrupt(started, "one process", signal.SIGKILL)
        first = ended(started)
        second = ended(given.start(launcher, out, free_port(), resume=True))
        if first in (0, None) or second != 0 or learnt(out) != wholes[launcher]:
            said = out.with_suffix(".txt").read_text()[-600:]
            problems.append({"launcher": launcher, "moment": str(moment), "statuses": [first, second], "said": said})
        else:
            tally["ended bit-equal"] += 1
        keep("commands", {"planned": count, "counts": dict(tally), "problems": problems})
