"""Two streams: results on stdout, progress on stderr; and the demo's screen, on which nothing else appears."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from latents_npz import write_latents

from aifs_peft import cli


def latents(folder: Path) -> list[str]:
    write_latents(folder)
    return ["finetune", "--dataset", "dominoes_latents", "--data-dir", str(folder), "--model", "identity",
            "--adapter", "none", "--epochs", "1", "--use-cpu", "--output-dir", str(folder / "run")]  # fmt: skip


def test_json_is_all_that_stdout_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = latents(tmp_path)
    capsys.readouterr()
    assert cli.main([*argv, "--json"]) == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "epoch 1/1" in shown.err
    assert f"saved: {tmp_path / 'run'}" in shown.err


def test_a_warning_is_one_line_without_a_place_in_the_code() -> None:
    code = (
        "from aifs_peft.cli.screen import quiet_libraries; quiet_libraries()\n"
        "import warnings; from aifs_peft.data.notes import DataWarning\n"
        "warnings.warn('few\\nexamples', DataWarning)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == "warning: few examples\n"


def test_quiet_leaves_stderr_empty(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    argv = latents(tmp_path)
    capfd.readouterr()
    assert cli.main([*argv, "--quiet"]) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert shown.out.rstrip().splitlines()[-1] == f"saved: {tmp_path / 'run'}"


def test_the_finish_text_starts_with_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = latents(tmp_path)
    assert cli.main([*argv, "--quiet"]) == 0
    assert capsys.readouterr().out.startswith(("found: ", "nothing found: "))
    assert cli.main([*argv, "--method", "erm", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ERM on dominoes_latents, 200 examples of the test split")
    assert "this run is plain training (ERM) itself" in out


def test_the_demo_shows_one_line_per_run_the_table_and_the_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aifs_peft.cli", "demo", "--seeds", "0", "--methods", "erm", "aifs", "--adapter",
               "none", "--epochs", "1", "--output-dir", str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    progress = done.stderr.strip().splitlines()
    assert [line.split()[:3] for line in progress[:2]] == [["seed", "0", "erm"], ["seed", "0", "aifs"]], done.stderr
    assert len(progress) == 3
    assert progress[2].startswith(str(tmp_path / "summary.json"))
    out = done.stdout.strip().splitlines()
    assert out[0].startswith("| method |")
    assert Path(out[-1]).is_file()
    assert out[-1].endswith("report.html")
    summary = json.loads((Path(out[-1]).parent / "summary.json").read_text())
    assert summary["baseline"]["kind"] == "erm"
    assert summary["comparison"]["rows"][1]["plain"] is not None
    assert summary["audit"] is not None
