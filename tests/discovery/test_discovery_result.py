"""What a `Discovery` tells: which examples conflict, a table of them, and itself in a line."""

import numpy as np
import pandas as pd
import pytest

from aifs_peft.discovery import discover


def planted(contrasts, K=2, n=2000, core=2.0, seed=0):
    """Latents, labels as names, and attributes `(n, m)`, each equal to the label for 93 %."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    values = np.stack([np.where(rng.random(n) < 0.93, y, rng.integers(0, K, n)) for _ in contrasts], axis=1)
    Z, eye = rng.normal(size=(n, 24)), np.eye(K)
    for block, (size, value) in enumerate(zip((core, *contrasts), (y, *values.T), strict=True)):
        Z[:, block * K : (block + 1) * K] += size * eye[value]
    names = np.array(["car", "truck", "van"])[:K]
    return Z, names[y], values, names


@pytest.mark.parametrize("K", [2, 3])
def test_conflicting_with_labels_that_are_strings(K):
    Z, y, values, names = planted((7.0,), K=K)
    found = discover(Z, y, random_state=0)
    assert found.found
    assert found.conflicting_.dtype == bool
    assert found.conflicting_.shape == (2000,)
    assert np.mean(found.conflicting_ == (names[values[:, 0]] != y)) > 0.98
    np.testing.assert_array_equal(found.classes_[found.labels_], y)


def test_conflicting_in_any_of_several_attributes():
    Z, y, values, names = planted((8.0, 5.0))
    found = discover(Z, y, random_state=0)
    assert len(found.parts_) == 2
    assert np.mean(found.conflicting_ == (names[values] != y[:, None]).any(axis=1)) > 0.98
    for part, value in zip(found.parts_, values.T, strict=True):
        assert np.mean(part.conflicting_ == (names[value] != y)) > 0.98


def test_nothing_conflicts_where_nothing_was_found():
    rng = np.random.default_rng(0)
    found = discover(rng.normal(size=(400, 8)), np.array(["no", "yes"])[np.arange(400) % 2], random_state=0)
    assert not found.found
    assert not found.conflicting_.any()
    frame = found.to_frame()
    assert not frame["conflicting"].any()
    assert frame["inferred"].isna().all()
    assert frame["confidence"].isna().all()
    assert repr(found) == "Discovery(found=False, 400 examples, width 8)"


def test_frame_has_a_row_per_example_with_names():
    Z, y, values, names = planted((7.0,))
    found = discover(Z, y, random_state=0)
    frame = found.to_frame()
    assert list(frame.columns) == ["row", "label", "inferred", "confidence", "conflicting"]
    np.testing.assert_array_equal(frame["row"], np.arange(2000))
    np.testing.assert_array_equal(frame["label"], y)
    np.testing.assert_array_equal(frame["conflicting"], frame["label"] != frame["inferred"])
    np.testing.assert_array_equal(frame["conflicting"], found.conflicting_)
    assert np.mean(frame["inferred"] == names[values[:, 0]]) > 0.98
    assert frame["confidence"].between(0.5, 1.0 + 1e-6).all()
    # Labels that are numbers stay numbers.
    assert pd.api.types.is_integer_dtype(discover(Z, (y == "car").astype(int), random_state=0).to_frame()["inferred"])


def test_frame_of_several_attributes_holds_one_value_of_each():
    Z, y, values, names = planted((8.0, 5.0))
    frame = discover(Z, y, random_state=0).to_frame()
    truth = list(zip(*names[values].T, strict=True))
    assert np.mean([given == true for given, true in zip(frame["inferred"], truth, strict=True)]) > 0.98
    np.testing.assert_array_equal(
        frame["conflicting"],
        [any(v != label for v in value) for value, label in zip(frame["inferred"], y, strict=True)],
    )


def test_repr_is_a_line():
    Z, y, _, _ = planted((8.0, 5.0))
    several, one = discover(Z, y, random_state=0), discover(Z, y, random_state=0, max_attributes=1)
    assert repr(one).startswith("Discovery(found=True, ")
    assert f"{one.conflicting_.sum()} of 2,000 examples conflicting" in repr(one)
    assert "2 attributes" in repr(several)
    for found in (one, several):
        assert len(repr(found)) < 200
        assert "\n" not in repr(found)
