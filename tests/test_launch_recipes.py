"""Configurations and scripts for several processes: they parse; the SLURM script saves, queues again and goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from processes import free_port

FOLDER = Path(__file__).parent.parent / "examples" / "accelerate"
SBATCH = FOLDER / "slurm.sbatch"
# Stand-ins: two tasks on this machine, which hear SIGTERM when `srun` does; and a note that the job was queued again.
SRUN = """#!/bin/bash
TASKS=()
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
    TASKS+=($!)
done
trap 'kill -TERM "${TASKS[@]}"; HEARD=1' TERM
STATUS=0
for task in "${TASKS[@]}"; do
    while kill -0 "$task" 2> /dev/null; do wait "$task"; STATUS=$?; done
done
exit "$STATUS"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$QUEUED"; fi
"""
TRAIN = """
import argparse, os, sys, time
sys.path.insert(0, TESTS)
import torch
from accelerate.utils import gather_object
from training_zoo import lora, make_data, make_trainer, trained
from transformers import TrainerCallback
from aifs_peft.training.parallel import close_process_group
from aifs_peft.tuner import AIFSConfig

parser = argparse.ArgumentParser()
parser.add_argument("--output_dir")
parser.add_argument("--resume_from_checkpoint", default="False")
given = parser.parse_args()

class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if os.environ.get("SLOW"):
            open(given.output_dir + "/started", "a").close()
            time.sleep(0.3)

trainer = make_trainer(given.output_dir, AIFSConfig.paper(mask_scale="max", encoder_adapter=lora(0.1)), make_data(64),
                       per_device_train_batch_size=4, num_train_epochs=3, callbacks=[Slow()])
assert trainer.accelerator.num_processes == int(os.environ["WORLD_SIZE"])
trainer.train(resume_from_checkpoint=given.resume_from_checkpoint == "True")
if trainer.is_world_process_zero():
    torch.save({"steps": torch.tensor(trainer.state.global_step), **trained(trainer.model)}, given.output_dir + "/r.pt")
del trainer
close_process_group()
"""

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_a_configuration(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.distributed_type.value == "MULTI_GPU"
    assert config.num_processes >= 2 * config.num_machines / 2
    assert "scripts/finetune.py" in path.read_text()
    assert set(yaml.safe_load(path.read_text())) <= set(vars(config))


@needs_bash
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.sbatch")), ids=lambda path: path.stem)
def test_a_script_has_no_mistake_of_syntax(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --signal=B:TERM@" in path.read_text()


def test_every_file_stands_in_the_readme():
    text = (FOLDER / "README.md").read_text()
    for path in FOLDER.iterdir():
        assert path.name == "README.md" or f"[{path.name}]({path.name})" in text


def start(tmp_path, run, **more):
    """The script as SLURM runs it, with two tasks."""
    bin_ = tmp_path / "bin"
    bin_.mkdir(exist_ok=True)
    python = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", python)):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    script = tmp_path / "train.py"
    script.write_text(TRAIN.replace("TESTS", repr(str(Path(__file__).parent / "training"))))
    environment = {
        **os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "RUN": str(run), "SLURM_NTASKS": "2",
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo", "QUEUED": str(tmp_path / "queued"), **more,
    }  # fmt: skip
    with (tmp_path / f"output_{run.name}").open("a") as output:
        return subprocess.Popen(["bash", str(SBATCH), str(script)], env=environment, stdout=output, stderr=output)


@needs_bash
@pytest.mark.slow
def test_a_slurm_job_that_reaches_its_limit_goes_on_as_if_it_had_not(tmp_path):
    import torch

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    assert start(tmp_path, whole).wait(300) == 0, (tmp_path / "output_whole").read_text()[-3000:]
    job = start(tmp_path, cut, SLOW="1")
    for _ in range(1200):
        if (cut / "started").exists():
            break
        time.sleep(0.1)
    time.sleep(0.7)
    job.send_signal(signal.SIGTERM)  # to the script alone, as `--signal=B:` does
    assert job.wait(200) == 0, (tmp_path / "output_cut").read_text()[-3000:]
    assert (tmp_path / "queued").read_text() == "requeue 7\n"
    assert list(cut.glob("checkpoint-*"))
    assert not (cut / "r.pt").exists()
    assert start(tmp_path, cut).wait(300) == 0, (tmp_path / "output_cut").read_text()[-3000:]
    one, other = (torch.load(folder / "r.pt", weights_only=True) for folder in (whole, cut))
    assert int(one["steps"]) == 24
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
