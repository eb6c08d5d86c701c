"""Every method on two processes does what it does on one, batch-coupled terms included."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("distributed_methods.py")


def launch(command, out):
    out.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent), "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return torch.load(out / "results.pt", weights_only=True)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    alone = launch([str(SCRIPT), str(tmp_path / "one"), "1"], tmp_path / "one")
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    both = launch([*launcher, str(SCRIPT), str(tmp_path / "two"), "2"], tmp_path / "two")
    assert both.keys() == alone.keys()
    apart = {
        key: float((both[key] - value).abs().max())
        for key, value in alone.items()
        if not torch.allclose(both[key], value, atol=1e-4, rtol=1e-3)
    }
    assert not apart, apart
