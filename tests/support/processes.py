"""Start a test script in processes of its own, and read the tensors it leaves."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import torch

import aifs_peft


def launch(script: Path, command: list[str], out: Path, timeout: float = 300):
    """Run `python *command` with the script's folder importable; what it wrote to `out / "results.pt"`.

    Where it takes too long all its processes are ended, and tell where each thread was.
    """
    out.mkdir()
    # The copy of the package that the test itself imports, whichever is installed.
    path = os.pathsep.join([str(script.parent), str(Path(aifs_peft.__file__).parents[1])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONFAULTHANDLER"] = "1"
    with (out / "output.txt").open("w+") as output:
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=output, stderr=output)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = f"none after {timeout} s"
        finally:
            # Only one that was not waited for yet surely has its number still.
            if process.returncode is None:
                _abort_family(process.pid)
        output.seek(0)
        assert code == 0, f"exit code {code}: {output.read()[-9000:]}"
    return torch.load(out / "results.pt", weights_only=True)


def _abort_family(leader: int) -> None:
    """Abort a process and all it started; a launcher's workers would outlive it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(leader)
        family = [*reversed(process.children(recursive=True)), process]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGABRT)
        for member in psutil.wait_procs(family, timeout=10)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


def free_port() -> str:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
