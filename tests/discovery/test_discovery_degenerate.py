"""Latents with a few distinct values, as a random or collapsed encoder gives them, are answered and not a traceback."""

import numpy as np
import pytest

from aifs_peft.discovery import discover


@pytest.mark.parametrize("distinct", [2, 3, 5])
@pytest.mark.parametrize("noise", [0.0, 1e-8, 1e-7, 1e-4])
@pytest.mark.parametrize("pure", [False, True])
def test_a_few_distinct_latents(distinct: int, noise: float, pure: bool) -> None:
    rng = np.random.default_rng(0)
    place = rng.integers(0, distinct, 100)
    Z = (rng.normal(size=(distinct, 16))[place] + noise * rng.normal(size=(100, 16))).astype(np.float32)
    y = place % 2 if pure else rng.integers(0, 2, 100)
    found = discover(Z, y, random_state=0)
    assert np.isfinite(found.displacements_).all()
    assert found.groups_.shape == (100,)
