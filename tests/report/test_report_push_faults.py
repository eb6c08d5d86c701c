"""A Hub that says no, or nothing: one line with the place of the files and the command to push again; no lost run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import save_roberta

SUPPORT = Path(__file__).parents[1] / "support"
WANTED = {
    "trainer": "PushFailedError", "model": "PushFailedError", "adapter": "PushFailedError",
    "saved already": "PushFailedError", "made by a trainer": "PushFailedError", "read only": "PushFailedError",
    "bad name": "PushFailedError", "while training": "", "load": "ModelNotFoundError",
}  # fmt: skip
FAULTS = (401, 403, 404, 500, "dropped", "HTML", "silent", "no listener")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list]]:
    """Folder, and every outcome as `[fault, way, type, message]`."""
    folder = tmp_path_factory.mktemp("faults")
    env = {
        **os.environ, "HF_TOKEN": "hf_x", "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1", "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }  # fmt: skip
    roberta = save_roberta(folder / "base")
    script = [sys.executable, str(SUPPORT / "push_faults.py"), str(folder), str(roberta)]
    done = subprocess.run(script, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_every_outcome_is_typed_and_no_run_is_lost(told) -> None:
    rows = told[1]
    wrong = [row for row in rows if row[2] != WANTED[row[1]]]
    assert not wrong, wrong
    assert {row[0] for row in rows} == {*FAULTS, "none"}
    assert {row[1] for row in rows} == set(WANTED)


def test_a_push_that_failed_says_where_the_files_are_and_how_to_push_again(told) -> None:
    folder, rows = told
    for fault, way, kind, said in rows:
        if kind != "PushFailedError" or way == "made by a trainer":
            continue
        assert f"Its files lie in {folder}/aifs-push-" in said, (fault, way)
        assert (f"The run is saved in {folder}/run." in said) == (way == "saved already"), (fault, way)
        assert "`hf upload me/" in said
        assert "\n" not in said
    by_case = {(fault, way): said for fault, way, _, said in rows}
    assert "hf auth login" in by_case[401, "trainer"]
    assert "The token may not write there" in by_case[403, "read only"]
    assert "training has not begun" in by_case[500, "made by a trainer"]
