"""Start a test script in processes of its own, and read the tensors it leaves."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch


def launch(script: Path, command: list[str], out: Path, timeout: float = 300):
    """Run `python *command` with the script's folder importable; what it wrote to `out / "results.pt"`."""
    out.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parent), "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return torch.load(out / "results.pt", weights_only=True)


def free_port() -> str:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
