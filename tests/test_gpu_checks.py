"""`scripts/gpu_checks.py`: says plainly where there is no GPU, and its checks run on a CPU as far as they can."""

import json
import runpy
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "scripts" / "gpu_checks.py"
main = runpy.run_path(str(SCRIPT), run_name="gpu_checks")["main"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "gpu.json")]) == 2
    assert "there is no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_its_checks_run_on_a_cpu(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert (
        main(["--device", "cpu", "--tiny", "--only", "bf16", "fp16", "waits", "step", "fsdp", "--out", str(out)]) == 0
    )
    rows = json.loads(out.read_text())["checks"]
    assert rows["bf16"]["held"] is True
    assert rows["fsdp"]["held"] is True
    assert rows["fsdp"]["furthest"] == 0.0
    assert {rows[name]["why"] for name in ("fp16", "waits")} == {"needs a GPU"}
    assert rows["step"]["held"] is None
    assert rows["step"]["ms_aifs"] > 0
    assert "DID NOT HOLD" not in capsys.readouterr().out


def test_a_check_that_fails_is_told_and_ends_with_status_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "manual_seed", None)
    assert main(["--device", "cpu", "--tiny", "--only", "bf16", "--out", str(tmp_path / "gpu.json")]) == 1
    assert "TypeError" in capsys.readouterr().out


def test_what_comes_too_late_is_told_as_not_run(tmp_path):
    out = tmp_path / "gpu.json"
    assert main(["--device", "cpu", "--seconds", "-1", "--only", "bf16", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["checks"]["bf16"]["why"].startswith("not run")
