"""Strings as classes, groups and attributes give what their numbers give; a missing group is no group."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aifs_peft.errors import InvalidInputError
from aifs_peft.metrics import GroupMetricAccumulator, group_metrics

RNG = np.random.default_rng(0)
N = 400
TRUE, PRED = RNG.integers(0, 3, N), RNG.integers(0, 3, N)
GROUP, VALUE = RNG.integers(0, 4, N), RNG.integers(0, 2, N)
SCORE = RNG.dirichlet(np.ones(3), N)
CLASSES, GROUPS, VALUES = np.array(["bird", "cat", "dog"]), np.array(["g1", "g2", "g3", "g4"]), np.array(["A", "B"])
FORMS = {
    "array": lambda a: a,
    "objects": lambda a: a.astype(object),
    "list": lambda a: a.tolist(),
    "series": pd.Series,
    "categories": lambda a: pd.Series(a).astype("category"),
    "another index": lambda a: pd.Series(a, index=np.arange(len(a))[::-1]),
}


def _same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert json.dumps(left) == json.dumps(right)  # NaN included


@pytest.mark.parametrize("form", FORMS)
def test_names_give_what_numbers_give(form: str) -> None:
    as_form = FORMS[form]
    wanted = group_metrics(
        TRUE, PRED, GROUP, SCORE, attributes=VALUE, group_names=GROUPS.tolist(), attribute_names=VALUES.tolist()
    )
    found = group_metrics(
        as_form(CLASSES[TRUE]), as_form(CLASSES[PRED]), as_form(GROUPS[GROUP]), SCORE, attributes=as_form(VALUES[VALUE])
    )
    _same(found, wanted)


def test_names_can_be_given_in_another_order_and_with_groups_nobody_is_in() -> None:
    order = ["g4", "g3", "g2", "g1", "g0"]
    found = group_metrics(TRUE, PRED, GROUPS[GROUP], group_names=order)
    assert list(found["groups"]) == order
    assert found["empty_groups"] == ["g0"]
    _same(found["groups"]["g1"], group_metrics(TRUE, PRED, GROUP)["groups"]["0"])
    with pytest.raises(InvalidInputError, match=r"groups hold 'g1', 'g2'; the names given are \['g3', 'g4'\]"):
        group_metrics(TRUE, PRED, GROUPS[GROUP], group_names=["g3", "g4"])


ABSENT = np.arange(N) % 7 == 3
MISSING = {
    "-1": lambda: np.where(ABSENT, -1, GROUP),
    "NaN": lambda: np.where(ABSENT, np.nan, GROUP),
    "None beside numbers": lambda: [None if no else int(g) for no, g in zip(ABSENT, GROUP, strict=True)],
    "an empty name": lambda: np.where(ABSENT, "", GROUPS[GROUP]),
    "None": lambda: np.where(ABSENT, None, GROUPS[GROUP].astype(object)),
    "NaN beside names": lambda: pd.Series(GROUPS[GROUP]).mask(ABSENT),
    "pandas' NA": lambda: pd.Series(GROUPS[GROUP], dtype="string").mask(ABSENT),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_group_is_no_group_and_is_counted(kind: str) -> None:
    found = group_metrics(TRUE, PRED, MISSING[kind](), SCORE, group_shares=[1, 2, 3, 4])
    assert found["in_no_group"] == ABSENT.sum()
    assert len(found["groups"]) == 4
    known = group_metrics(TRUE[~ABSENT], PRED[~ABSENT], GROUP[~ABSENT], SCORE[~ABSENT], group_shares=[1, 2, 3, 4])
    assert known["in_no_group"] == 0
    for mine, theirs in zip(found["groups"].values(), known["groups"].values(), strict=True):
        _same(mine, theirs)
    for name in ("worst_group_accuracy", "adjusted_average_accuracy", "equalized_odds_difference"):
        assert found[name] == known[name]
    assert found["n"] == N
    assert found["average_accuracy"] == (TRUE == PRED).mean()


def test_missing_attributes_are_compared_with_nothing() -> None:
    found = group_metrics(TRUE, PRED, GROUP, attributes=np.where(ABSENT, -1, VALUE))
    known = group_metrics(TRUE[~ABSENT], PRED[~ABSENT], GROUP[~ABSENT], attributes=VALUE[~ABSENT])
    _same(found["attributes"], known["attributes"])
    assert found["in_no_group"] == 0


def test_a_stream_counts_missing_groups_too() -> None:
    groups = MISSING["-1"]()
    halves = [GroupMetricAccumulator(4, 3), GroupMetricAccumulator(4, 3)]
    for total, part in zip(halves, (slice(0, 150), slice(150, N)), strict=True):
        total.update(TRUE[part], PRED[part], groups[part])
    _same(halves[0].merge(halves[1]).compute(), group_metrics(TRUE, PRED, groups, num_groups=4, num_classes=3))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((["a", "b"], [0, 1], [0, 1]), "y_pred holds numbers beside names"),
        ((["a", None], ["a", "b"], [0, 1]), "y_true holds 1 missing values"),
        (([0, -1], [0, 1], [0, 1]), "y_true must lie in"),
        (([0, 1], [0, 1], [0.5, float("nan")]), "groups must hold integers"),
        (([0, 1], [0, 1], [-1, -1]), "without examples the number of groups cannot be seen"),
    ],
)
def test_what_is_no_class_or_group_is_refused(arguments: tuple[Any, ...], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        group_metrics(*arguments)


@pytest.mark.parametrize("ids", [[100_000, 3], [2**40, 3], [-1, 100_000]])
def test_raw_ids_are_named_and_cost_nothing(ids):
    result = group_metrics([0, 0], [1, 0], ids, n_boot=3)
    assert list(result["groups"]) == [str(i) for i in sorted(ids) if i >= 0]
    assert result["empty_groups"] == []
    masked = group_metrics([0, 0, 1], [1, 0, 1], [*ids, 7], valid=[True, True, False])
    assert list(masked["groups"]) == list(result["groups"])


def test_ids_from_0_keep_their_empty_groups():
    assert list(group_metrics([0, 0], [1, 0], [5, 2])["groups"]) == ["0", "1", "2", "3", "4", "5"]
