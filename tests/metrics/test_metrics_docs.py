"""Every example of docs/metrics.md runs and prints what the page says."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_examples_of_the_page():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted >= 20
    assert result.failed == 0


def test_keys_of_the_page_are_keys_of_the_result():
    from aifs_peft.metrics import group_metrics

    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    keys = [row.split("`")[1] for row in rows]
    result = group_metrics([0, 1], [0, 1], [0, 0])
    assert len(keys) == 8
    assert set(keys) == {key.removesuffix("_interval") for key in result if key.endswith("_interval")}
