"""Damaged and hostile folders of runs: the sound result, or an error by name; on the command line one line."""

from pathlib import Path

import pytest
from hostile_folders import Ways, allowed, cases_for, make_run, read_all

# The whole table, in all ways, is `python benchmarks/hostile_folders.py`.
EVERY = {**dict.fromkeys(Ways.PYTHON, 4), **dict.fromkeys(Ways.COMMANDS, 9), "report": 25}


@pytest.fixture(scope="module")
def ways(roberta_dir: Path, text_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    return make_run(roberta_dir, text_dir, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("way", [*Ways.PYTHON, *Ways.COMMANDS])
def test_every_case_is_equal_or_refused(ways: Ways, way: str, tmp_path: Path) -> None:
    done = read_all(ways, way, EVERY[way], tmp_path)
    wrong = [row for row in done if row[1] not in allowed(way, row[0])]
    assert not wrong, wrong
    assert {"equal", "refused"} <= {word for _, word, _ in done} or way == "pipeline"
    assert len(done) == len(cases_for(way, EVERY[way]))
