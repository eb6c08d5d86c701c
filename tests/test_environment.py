"""`check_environment` and `aifs doctor` without a data set: sound here, and where torchvision is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from aifs_peft import environment
from aifs_peft.cli import doctor

ROOT = Path(__file__).parent.parent


def test_this_environment_is_sound(capsys):
    checks = environment.check_environment()
    assert [str(check) for check in checks if check.ok is False] == []
    names = [check.name for check in checks]
    assert {"python", "torch", "peft", "torchvision", "devices", "disk"} <= set(names)
    assert any(name.startswith("extra openclip") for name in names)
    assert "accelerator" in next(check.text for check in checks if check.name == "devices")


def test_versions_are_compared_with_what_is_asked_for(monkeypatch):
    asked = ["numpy>=99", "no-such-package>=1", "torch>=1", 'other-package>=2; extra == "openclip"']
    monkeypatch.setattr(environment, "_requirements", lambda: [Requirement(line) for line in asked])
    found = {check.name: check for check in environment.check_environment()}
    assert found["numpy"].ok is False
    assert "numpy>=99 is asked for; pip install 'numpy>=99'" in found["numpy"].text
    assert str(found["no-such-package"]).startswith("PROBLEM  no-such-package: not installed, no-such-package>=1")
    assert found["torch"].ok is True
    assert found["extra openclip, other-package"].ok is None
    assert "pip install 'aifs_peft[openclip]'" in found["extra openclip, other-package"].text


def test_the_status_tells(monkeypatch, capsys):
    for ok, status in ((True, 0), (None, 0), (False, 1)):
        monkeypatch.setattr(environment, "check_environment", lambda ok=ok: [environment.Check("x", ok, "y")])
        assert doctor.main([]) == status
    assert capsys.readouterr().out.splitlines()[-1] == "PROBLEM  x: y"


@pytest.fixture
def broken(tmp_path):
    """A torchvision that was built for another torch."""
    (tmp_path / "torchvision").mkdir()
    error = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
    (tmp_path / "torchvision" / "__init__.py").write_text(error)
    info = tmp_path / "torchvision-0.28.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    (info / "RECORD").write_text("torchvision/__init__.py,,\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def test_a_torchvision_for_another_torch_is_named_without_a_traceback(broken):
    done = subprocess.run([sys.executable, "-m", "aifs_peft.cli", "doctor"], capture_output=True, text=True, env=broken)
    assert done.returncode == 1, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("PROBLEM"))
    assert "torchvision: 0.28.0 cannot be imported beside torch" in line
    assert "torchvision::nms does not exist" in line
    assert "uninstall torchvision" in line
    assert "Traceback" not in done.stderr


def test_a_broken_peft_is_told_when_it_is_imported_and_not_before(broken):
    (Path(broken["PYTHONPATH"].split(os.pathsep)[0]) / "peft").mkdir()
    (Path(broken["PYTHONPATH"].split(os.pathsep)[0]) / "peft" / "__init__.py").write_text("import torchvision\n")
    code = """
import warnings
warnings.simplefilter("always")
import aifs_peft
print("quiet so far", flush=True)
for attempt in range(2):
    try:
        import peft
    except RuntimeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=broken)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["quiet so far", *["operator torchvision::nms does not exist"] * 2]
    assert "AIFS is not registered with PEFT, which cannot be imported" in done.stderr
    assert "`aifs doctor` says what is wrong" in done.stderr
