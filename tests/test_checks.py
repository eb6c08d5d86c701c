"""Argument checks: what passes, what is refused and in which words."""

import doctest
from fractions import Fraction

import numpy as np
import pytest
import torch

from aifs_peft import _checks
from aifs_peft._checks import check_choice, check_count, check_ids, check_names, check_number, parse_json_object
from aifs_peft.errors import InvalidConfigError, InvalidInputError


def test_doctests():
    found = doctest.testmod(_checks, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert (found.failed, found.attempted) == (0, 8)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1), Fraction(1)])
def test_numbers_of_any_real_type_become_floats(value):
    assert type(check_number("x", value, 0, 1)) is float


@pytest.mark.parametrize("value", [True, np.True_, "1", None, [1.0], float("nan"), float("inf"), 1j, torch.tensor(1.0)])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(InvalidConfigError, match="x must be a finite number; got"):
        check_number("x", value)


@pytest.mark.parametrize(
    ("value", "limits", "options", "words"),
    [
        (-1, (0,), {}, "of at least 0"),
        (0, (0,), {"above": True}, "above 0"),
        (1, (0, 1), {"below": True}, r"in \[0, 1\)"),
        (0, (0, 1), {"above": True}, r"in \(0, 1\]"),
        (2, (-float("inf"), 1), {}, "of at most 1"),
        (1, (-float("inf"), 1), {"below": True}, "below 1"),
    ],
)
def test_ranges(value, limits, options, words):
    with pytest.raises(InvalidInputError, match=rf"share must be a finite number {words}; got {value}\."):
        check_number("share", value, *limits, error=InvalidInputError, **options)


def test_counts():
    assert type(check_count("n", np.int32(3))) is int
    assert check_count("n", 0, 0) == 0
    for value in (0, 1.0, True, "2", None):
        with pytest.raises(InvalidConfigError, match="n must be an integer of at least 1; got"):
            check_count("n", value)
    with pytest.raises(InvalidConfigError, match="n must be an integer from 1 to 3; got 4"):
        check_count("n", 4, 1, 3)


def test_choices_are_of_their_own_type():
    assert check_choice("sign", -1, (-1, 1)) == -1
    for value in (True, 1.0, "1"):
        with pytest.raises(InvalidConfigError, match=rf"sign must be one of -1, 1; got {value!r}\."):
            check_choice("sign", value, (-1, 1))
    with pytest.raises(InvalidConfigError, match=r"got 'gausian' \(did you mean 'gaussian'\?\)"):
        check_choice("noise", "gausian", ("gaussian", "l1"))


def test_names():
    check_names(["a"], ["a", "b"], "no option")
    with pytest.raises(InvalidInputError, match=r"no option 'x'; known: none\."):
        check_names(["x"], [], "no option", error=InvalidInputError)


def test_ids():
    check_ids("groups", np.array([], dtype=float), 3)
    check_ids("groups", np.array([True, False]), 2)
    for array in (np.array([-1]), np.array([3])):
        with pytest.raises(InvalidInputError, match=r"groups must lie in 0\.\.2; got values from .*; drop them\."):
            check_ids("groups", array, 3, "; drop them")
    with pytest.raises(InvalidInputError, match="must hold integers; got float64"):
        check_ids("groups", np.array([0.0]), 3)


def test_json_objects():
    given = {"a": 1}
    assert parse_json_object("options", given) == given
    assert parse_json_object("options", given) is not given
    assert parse_json_object("options", None) == {}
    for text in ("{", "[1]", '"x"', "null x"):
        with pytest.raises(InvalidConfigError, match="options must be a JSON object"):
            parse_json_object("options", text)


def test_tensors_become_arrays_without_rounding():
    assert _checks.to_numpy(torch.tensor([1.5], dtype=torch.bfloat16, requires_grad=True)).tolist() == [1.5]
    assert _checks.to_numpy(torch.tensor([2])).dtype == np.int64
    array = np.zeros(2)
    assert _checks.to_numpy(array) is array
