"""Malformed inputs of the public functions: an error of this package or a result."""

import pytest
from fuzzing import TARGETS, fuzz


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_malformed_input_is_refused_by_name(name: str) -> None:
    told = fuzz(name, 120, seed=1)
    assert told["faults"] == []
    assert told["cases"] >= 100
    assert told["accepted"]
    assert told["refused"]
