"""The keys that docs/metrics.md names are those of the result; its examples run in `tests/docs`."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_keys_of_the_page_are_keys_of_the_result():
    from aifs_peft.metrics import group_metrics

    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    keys = [row.split("`")[1] for row in rows]
    result = group_metrics([0, 1], [0, 1], [0, 0])
    assert len(keys) == 8
    assert set(keys) == {key.removesuffix("_interval") for key in result if key.endswith("_interval")}
