"""Committed results, run again: their numbers are those of the code as it is."""

from pathlib import Path

import pytest

from aifs_peft.bench import reproduce

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "small"
# A row of each kind, of data that ship with the package: a closed head, plain training, and an oracle.
ROWS = (
    "scenes_shapes/aifs-closed/seed0.json",
    "digits_on_scenes/erm/seed0.json",
    "scenes_shapes/reweight-oracle/seed1.json",
)


@pytest.mark.parametrize("row", ROWS)
def test_a_committed_row_agrees(row: str, tmp_path: Path) -> None:
    again = reproduce(RESULTS / row, tmp_path)
    assert again.same_data
    assert again.agrees, again.describe()
