"""Plain JSON: what is not finite is null, NumPy and torch are Python, unknown objects are refused by name."""

import json
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from aifs_peft.errors import InvalidInputError
from aifs_peft.report import plain, to_json


class Kind(Enum):
    A = "a"


@dataclass
class Pair:
    left: float
    right: np.ndarray


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, np.inf]]), [[1.0, None]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (torch.tensor([1, 2]), [1, 2]),
        (torch.tensor(float("nan"), dtype=torch.bfloat16), None),
        (torch.ones(1, requires_grad=True), [1.0]),
        (Kind.A, "a"),
        (Path("a/b"), str(Path("a/b"))),
        ({3, 1, 2}, [1, 2, 3]),
        ((1, (2,)), [1, [2]]),
        (Pair(1.0, np.zeros(1)), {"left": 1.0, "right": [0.0]}),
        ({np.int64(1): "x", Kind.A: 2}, {"1": "x", "a": 2}),
        (date(2024, 2, 1), "2024-02-01"),
        (pd.NaT, None),
    ],
)
def test_values_become_plain(value: object, expected: object) -> None:
    assert plain(value) == expected
    assert json.loads(to_json(value)) == expected


@pytest.mark.parametrize("value", [object(), np.array([object()]), b"bytes", Pair, lambda: 0, 1j])
def test_unknown_objects_are_refused_with_their_place(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"summary\['a'\]\[1\] is a .* no form in JSON"):
        plain({"a": [0, value]})


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="keys of a JSON object are text"):
        plain({("a", "b"): 1})


def test_text_has_no_token_that_other_readers_refuse() -> None:
    text = to_json({"a": [float("nan"), {"b": np.inf}], "c": "NaN as text, ü"})

    def refuse(token: str) -> None:
        raise AssertionError(token)

    assert json.loads(text, parse_constant=refuse)["a"] == [None, {"b": None}]
    assert "ü" in text
