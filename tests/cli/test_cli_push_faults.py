"""Commands that push, and a Hub that says no or nothing: status 1, one line, and nothing that was made is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
FAULTS = (401, 403, 404, 500, "dropped", "HTML", "silent", "no listener")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list]]:
    """Folder, and every outcome, see `push_commands.py`."""
    folder = tmp_path_factory.mktemp("faults")
    env = {
        **os.environ, "HF_TOKEN": "hf_x", "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "push_commands.py"), str(folder)],
        capture_output=True, text=True, env=env, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", ["finetune", "scenes"])
def test_a_push_that_fails_is_one_line_and_status_1(told, command: str) -> None:
    rows = {row[0]: row[2:] for row in told[1] if row[1] == command}
    assert set(rows) == set(FAULTS)
    for fault, (status, lines, kept, _) in rows.items():
        assert (status, len(lines), len(kept)) == (1, 1, 1), (fault, lines)
        repo = "me/adapter" if command == "finetune" else "me/scenes"
        again = f"`hf upload {repo} {next(iter(kept))}{'' if command == 'finetune' else ' --repo-type dataset'}`"
        assert lines[0].startswith("error: the ")
        assert f"not pushed to '{repo}' (" in lines[0]
        assert lines[0].endswith(f"push them again with {again}"), lines
    assert "hf auth login" in rows[401][1][0]
    assert "The token may not write there" in rows[403][1][0]


def test_the_run_is_whole_and_what_is_to_be_pushed_shows_no_example(told) -> None:
    folder, rows = told
    for fault, command, _, lines, kept, run in rows:
        files = next(iter(kept.values()))
        if command == "scenes":
            assert {"README.md", "data/train-00000-of-00001.parquet"} <= set(files), fault
            continue
        assert f"The run is saved in {folder / 'run'}." in lines[0]
        assert {"adapter_model.safetensors", "README.md", "summary.json"} <= set(run), fault
        assert {"adapter_model.safetensors", "README.md", "summary.json"} <= set(files), fault
        assert not [name for name in files if name.startswith(("audit", "report", "checkpoint"))], files
