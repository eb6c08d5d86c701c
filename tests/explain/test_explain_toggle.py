"""Toggling: who is given which value, and what two heads make of it."""

import json

import pytest
import torch
from torch import nn

from aifs_peft.errors import InvalidInputError
from aifs_peft.explain import Side, other_values, value_names, what_if
from aifs_peft.explain.toggle import MOST_EXAMPLES


def head_of(weight):
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weight))
    return head


LEANING, HONEST = head_of([[-3.0, 0.0], [3.0, 0.0]]), head_of([[0.0, -3.0], [0.0, 3.0]])
BETA = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])


def examples(n=40, conflicting=10):
    y = torch.arange(n) % 2
    a = torch.where(torch.arange(n) < conflicting, 1 - y, y)
    return torch.stack([2.0 * a - 1, 2.0 * y - 1], dim=1), y, a


def test_a_leaning_head_changes_everywhere_an_honest_one_nowhere() -> None:
    z, y, a = examples()
    sides = {"method": Side(HONEST, z, BETA, torch.zeros(2), torch.eye(2)[:, :1]),
             "plain": Side(LEANING, z, BETA, torch.zeros(2), torch.eye(2)[:, :1])}  # fmt: skip
    told = what_if(sides, y, a, torch.arange(2), ["cat", "dog"])
    rows = {row["cell"]: row for row in told["rows"]}
    assert [row["n"] for row in told["rows"]] == [40, 30, 10, 20, 20]
    for row in told["rows"]:
        assert row["plain"]["changed"] == 1.0
        assert row["method"] == {"changed": 0.0, "moved": pytest.approx(0.0)}
    # Taken away where it goes with the class, given where it goes against it.
    assert rows["aligned"]["plain"]["moved"] < -0.9
    assert rows["conflicting"]["plain"]["moved"] > 0.9
    assert told["share"] == {"method": 0.0, "plain": 1.0}
    first = told["examples"][0]
    assert (first["label"], first["inferred"], first["toggled_to"]) == ("cat", "dog", "cat")
    assert (first["predicted"], first["predicted_plain"], first["predicted_toggled_plain"]) == ("cat", "dog", "cat")
    json.dumps(told, allow_nan=False)


def test_examples_are_a_part_of_many_and_hold_both_kinds() -> None:
    z, y, a = examples(n=1000, conflicting=300)
    told = what_if({"method": Side(HONEST, z, BETA)}, y, a, torch.arange(2), ["cat", "dog"])
    rows = [row["row"] for row in told["examples"]]
    assert len(rows) == len(set(rows)) == MOST_EXAMPLES
    moved = [row["label"] != row["inferred"] for row in told["examples"]]
    assert sum(moved) == MOST_EXAMPLES // 2
    assert told["share"] == {}


def test_every_other_value_is_tried_as_often() -> None:
    y = torch.zeros(30, dtype=torch.int64)
    a = torch.cat([torch.zeros(20, dtype=torch.int64), torch.full((10,), 3)])
    targets = other_values(y, a, torch.tensor([0, 2, 3]))
    assert targets[:20].tolist() == [2, 3] * 10
    assert targets[20:].tolist() == [0] * 10  # conflicting: its own class's value
    assert 1 not in targets.tolist()  # nothing is known of it


def test_a_class_without_a_value_of_its_own_takes_turns() -> None:
    targets = other_values(torch.tensor([2, 2]), torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert targets.tolist() == [1, 1]


def test_a_lone_value_cannot_be_toggled() -> None:
    with pytest.raises(InvalidInputError, match=r"only \[1\] occur in training"):
        other_values(torch.tensor([1]), torch.tensor([1]), torch.tensor([1]))


def test_values_of_several_attributes_have_names() -> None:
    assert value_names(8, ["a", "b"])[:4] == ["a", "b", "a + a + b", "a + b + a"]
    assert value_names(3, ["x", "y", "z"]) == ["x", "y", "z"]
