"""SIGTERM, a full disk, a folder that cannot be written, a process that is gone, SIGKILL."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from processes import free_port
from training_zoo import assert_equal, lora, make_data, make_model, make_trainer, trained
from transformers import TrainerCallback

from aifs_peft.errors import CheckpointWriteError, InvalidInputError, ProcessLostError
from aifs_peft.training import AIFSTrainingArguments
from aifs_peft.training.manifest import read_manifest
from aifs_peft.training.peers import telling_lost_processes
from aifs_peft.training.termination import Termination
from aifs_peft.tuner import AIFSConfig

ROOT = Path(__file__).parents[2]


def trainer_of(folder, *callbacks, **options):
    config = AIFSConfig.paper(mask_scale="max", ema_decay=0.5, encoder_adapter=lora(0.1))
    model = make_model(config, dropout=0.1)
    return make_trainer(folder, model=model, callbacks=list(callbacks), **{"save_strategy": "epoch", **options})


class Send(TrainerCallback):
    """Sends this process a signal within a step."""

    def __init__(self, step, number=signal.SIGTERM):
        self.step, self.number = step, number

    def on_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("step", [11, 8])
def test_sigterm_saves_a_checkpoint_and_ends_with_143(tmp_path, step):
    whole = trainer_of(tmp_path / "whole", eval_strategy="epoch", eval_dataset=make_data(16))
    whole.train()
    options = {"save_strategy": "no", "eval_strategy": "epoch", "eval_dataset": make_data(16)}
    with pytest.raises(SystemExit) as stop:
        trainer_of(tmp_path / "run", Send(step), **options).train()
    assert stop.value.code == 143
    assert [path.name for path in (tmp_path / "run").iterdir()] == [f"checkpoint-{step}"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    resumed = trainer_of(tmp_path / "run", **options)
    resumed.train(resume_from_checkpoint=True)
    assert_equal(trained(whole.model), trained(resumed.model))
    counts = [row["eval_accuracy"] for row in resumed.state.log_history if "eval_accuracy" in row]
    assert counts == [row["eval_accuracy"] for row in whole.state.log_history if "eval_accuracy" in row]


def test_a_signal_that_somebody_handles_is_left_to_him(tmp_path):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        trainer = trainer_of(tmp_path, Send(3))
        trainer.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (heard, trainer.state.global_step) == ([signal.SIGTERM], 16)
    with Termination(wanted=False):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_signal_ends_at_once_unless_it_is_the_first_one_told_twice(tmp_path):
    script = tmp_path / "wait.py"
    script.write_text(
        "import os, signal, sys\n"
        "from aifs_peft.training import termination\n"
        "termination._SAME_SECONDS = float(sys.argv[1])\n"
        "with termination.Termination() as asked:\n"
        "    for _ in range(2):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(143 if asked.requested else 1)\n"
    )
    for seconds, status in (("60", 143), ("0", -signal.SIGTERM)):
        done = subprocess.run([sys.executable, str(script), seconds], env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == status


def test_ctrl_c_leaves_the_checkpoints_that_were_there(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path, Send(13, signal.SIGINT)).train()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-8"]
    read_manifest(tmp_path / "checkpoint-8")


@contextmanager
def largest_file(size):
    """What a full disk does: the system refuses to write on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("writer", ["save_model", "_save_optimizer_and_scheduler", "_save_rng_state"])
def test_a_disk_that_takes_no_more_is_one_clear_error(tmp_path, monkeypatch, writer):
    trainer = trainer_of(tmp_path)
    write = getattr(trainer, writer)

    def limited(*given, **named):
        with largest_file(2000 if trainer.state.global_step == 16 else resource.RLIM_INFINITY):
            return write(*given, **named)

    monkeypatch.setattr(trainer, writer, limited)
    with pytest.raises(CheckpointWriteError, match=r"checkpoint-16 could not be written: .*MiB are free") as found:
        trainer.train()
    assert found.match(f"the last whole checkpoint is {tmp_path / 'checkpoint-8'}, as it was")
    assert isinstance(found.value, OSError)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-8"], "nothing half-written is left"
    read_manifest(tmp_path / "checkpoint-8")


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / ".unfinished-checkpoint-8").write_text("a file in the way")
    with pytest.raises(CheckpointWriteError, match=r"checkpoint-8 could not be written.*there is no earlier"):
        trainer_of(tmp_path).train()


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_one_clear_error():
    folder = Path(tempfile.mkdtemp(prefix="of-root"))
    folder.chmod(0o755)
    trainer = trainer_of(folder, save_strategy="steps", save_steps=1, max_steps=1)
    end, begin = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.setgid(65534)
            os.setuid(65534)
            trainer.train()
            said = "nothing was wrong"
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            said = f"{type(error).__name__}: {error}"
        os.write(begin, said.encode()[:4000])
        os._exit(0)
    os.close(begin)
    with os.fdopen(end) as pipe:
        said = pipe.read()
    os.waitpid(process, 0)
    assert list(folder.iterdir()) == []
    folder.rmdir()
    assert said.startswith("CheckpointWriteError: "), said
    assert f"{folder}/checkpoint-1 could not be written: " in said
    assert "Permission denied" in said


def test_a_lost_process_is_told_and_nothing_else_is():
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:7580.")
    told = "process 1 of 2 ends because another process of this run has ended"
    with pytest.raises(ProcessLostError, match=told), telling_lost_processes(1, 2):
        raise lost
    for error in (lost, InvalidInputError("gloo"), RuntimeError("shapes differ")):
        with pytest.raises(type(error)) as found, telling_lost_processes(0, 1 if error is lost else 2):
            raise error
        assert found.value is error
    with pytest.raises(ProcessLostError), telling_lost_processes(0, 2):
        raise torch.distributed.DistNetworkError("timed out")


def test_a_process_that_never_comes_is_waited_for_as_long_as_was_said(tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProcessLostError, match=r"process 0 of 2 ends because .* 1/2 clients joined"):
        AIFSTrainingArguments(output_dir=str(tmp_path), use_cpu=True, ddp_timeout=1)


@pytest.mark.slow
def test_killed_runs_go_on_bit_for_bit(tmp_path):
    """A few of the kills of `make soak`, on one and on two processes."""
    out = tmp_path / "out.json"
    command = ["--kills", "4", "--terminations", "2", "--kinds", "paper, LoRA", "--parts", "kills", "terminations"]
    command += ["--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "reliability.py"), *command],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    report = json.loads(out.read_text())
    assert report["kills"]["counts"]["ended bit-equal"] == 4
    assert report["kills"]["seconds_until_the_other_ended"] < 60
