"""What is installed and whether it fits together; needs neither torch nor transformers to be importable."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

NAME = "aifs_peft"
EXTRAS = ("openclip", "quantization")
TORCHVISION = (
    "{version} cannot be imported beside torch {torch} ({reason}); transformers and peft import it, so nothing works. "
    "Install the build that belongs to this torch (https://pytorch.org/get-started), or uninstall torchvision: this "
    "package does not need it"
)
_DEVICES = """
import torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
mps = ["Apple GPU"] if torch.backends.mps.is_available() else []
found = gpus + mps
print(f"{len(found)} accelerators ({', '.join(found)})" if found else "no accelerator, training runs on the CPU")
"""


@dataclass(frozen=True)
class Check:
    """One finding.

    Args:
        name: what was looked at.
        ok: whether it can be used; `None` for something optional that is absent, or for plain information.
        text: what was found, and for a problem how to mend it.
    """

    name: str
    ok: bool | None
    text: str

    def __str__(self) -> str:
        mark = {True: "ok", False: "PROBLEM", None: "-"}[self.ok]
        return f"{mark:<8} {self.name}: {self.text}"


def check_environment() -> list[Check]:
    """Python, the required packages, torch against torchvision, optional extras, devices and disk space.

    Nothing is imported into this process: what is broken is named here and not by a traceback.

    Returns:
        Findings, the problems among them with `ok=False`.

    Example:
        >>> check_environment()[0].name
        'python'
    """
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    python = Check("python", fits, platform.python_version() + ("" if fits else ", needed is 3.11 to 3.13"))
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return [
        python,
        *_packages(),
        check_torchvision(),
        *_extras(),
        _run("devices", _DEVICES),
        Check("disk", None, f"{free:.1f} GiB free here, for checkpoints and cached features"),
    ]


def check_torchvision() -> Check:
    """Whether torchvision, where it is installed, can be imported beside the installed torch.

    Its C++ operators are built for one version of torch; a build for another fails on import, taking transformers
    and peft down with it. It is tried in a process of its own.
    """
    if find_spec("torchvision") is None:
        return Check("torchvision", None, "not installed, and not needed")
    found = _run("torchvision", "import torchvision; print('fits the installed torch')")
    installed, torch = installed_version("torchvision") or "of unknown version", installed_version("torch")
    if found.ok:
        return Check("torchvision", True, f"{installed}, {found.text}")
    return Check("torchvision", False, TORCHVISION.format(version=installed, torch=torch, reason=found.text))


def _packages() -> Iterator[Check]:
    for requirement in _requirements():
        if requirement.marker is None:
            yield _check(requirement, required=True)


def _extras() -> Iterator[Check]:
    for extra in EXTRAS:
        for requirement in _requirements():
            if requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
                found = _check(requirement, required=False)
                remedy = "" if found.ok else f"; pip install 'aifs_peft[{extra}]'"
                yield Check(f"extra {extra}, {found.name}", found.ok, found.text + remedy)


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in requires(NAME) or []]


def _check(requirement: Requirement, *, required: bool) -> Check:
    """A package against what this one asks for."""
    installed, wanted = installed_version(requirement.name), f"{requirement.name}{requirement.specifier}"
    if installed is None:
        return Check(requirement.name, False if required else None, f"not installed, {wanted} is asked for")
    if not requirement.specifier.contains(installed, prereleases=True):
        return Check(requirement.name, False, f"{installed}, but {wanted} is asked for; pip install '{wanted}'")
    return Check(requirement.name, True, installed)


def installed_version(package: str) -> str | None:
    """The version of an installed package, None where it is not installed.

    Example:
        >>> installed_version("no-such-package") is None
        True
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _run(name: str, code: str) -> Check:
    """What a line of Python prints in a fresh process, or the last line of its traceback."""
    done = subprocess.run(  # noqa: S603  (this interpreter, code from this file)  # nosec B603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return Check(name, done.returncode == 0, lines[-1] if lines else f"exit status {done.returncode}")
