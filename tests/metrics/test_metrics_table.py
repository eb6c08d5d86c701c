"""The plain-text table."""

import pytest

from aifs_peft.errors import InvalidInputError
from aifs_peft.metrics import format_group_table, group_metrics


def table(**options):
    y_true = [0] * 1200 + [1] * 20
    y_pred = [0] * 1200 + [1] * 5 + [0] * 15
    groups = [0] * 1200 + [1] * 20
    return format_group_table(group_metrics(y_true, y_pred, groups, **options))


def test_rows_are_aligned_and_marked():
    lines = table(group_names=["landbird on land", "waterbird on land", "nobody"]).splitlines()
    assert lines[0].split() == ["group", "n", "accuracy", "95%", "interval"]
    assert lines[1].split() == ["landbird", "on", "land", "1,200", "1.000", "[0.997,", "1.000]"]
    assert lines[2].endswith("[0.087, 0.491]  small, worst")
    assert lines[3].split() == ["nobody", "0", "-", "-", "empty"]
    assert set(lines[4]) == {"-"}
    assert lines[5].startswith("average")
    assert len({line.index("[") for line in lines if "[" in line}) == 1
    assert all(line == line.rstrip() for line in lines)


def test_adjusted_average_and_confidence_are_shown_when_there():
    text = table(group_shares=[1, 1], n_boot=50, random_state=0, confidence=0.9)
    assert "90% interval" in text
    line = next(line for line in text.splitlines() if line.startswith("adjusted average"))
    assert "0.625" in line
    assert "[" in line
    assert "adjusted" not in table()


@pytest.mark.parametrize("wrong", [{}, {"groups": [], "confidence": 0.95}, {"groups": {"a": 1}, "confidence": 0.9}])
def test_another_dictionary_is_refused(wrong):
    with pytest.raises(InvalidInputError, match="not a result of group_metrics"):
        format_group_table(wrong)
