"""Cuts: by cell, at random, with equal cells; the same seed gives the same rows."""

from typing import Any

import numpy as np
import pytest
from datasets import DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from own_data import own_frame

from aifs_peft.data import group_array, group_spec, load_own
from aifs_peft.data.notes import DataWarning
from aifs_peft.data.own.cuts import cut, cut_equal
from aifs_peft.errors import InvalidInputError

FRAME = own_frame(600, conflicting=6)
OPTIONS: dict[str, Any] = {"text": "report", "label": "finding", "attribute": "scanner"}


def _counts(splits: DatasetDict) -> dict[str, np.ndarray]:
    spec = group_spec(splits)
    return {name: spec.counts(group_array(part)) for name, part in splits.items()}


def test_stratified_cuts_take_the_same_share_of_every_cell() -> None:
    counts = _counts(load_own(FRAME, **OPTIONS))
    total = sum(counts.values())
    assert np.abs(counts["test"] - 0.2 * total).max() <= 0.5
    assert np.abs(counts["validation"] - 0.1 * (total - counts["test"])).max() <= 0.5
    cases = [case for part in load_own(FRAME, **OPTIONS).values() for case in part["case"]]
    assert sorted(cases) == FRAME["case"].tolist()


def test_a_balanced_test_has_equal_cells_as_far_as_they_go() -> None:
    counts = _counts(load_own(FRAME, **OPTIONS, test_share="balanced"))
    smallest = int(sum(counts.values()).min())
    assert counts["test"].tolist() == [smallest // 2] * 4
    assert np.abs(counts["validation"] - 0.1 * (counts["train"] + counts["validation"])).max() <= 0.5
    even = own_frame(600, conflicting=2)  # every cell is large: about a fifth of all rows
    assert _counts(load_own(even, **OPTIONS, test_share="balanced"))["test"].tolist() == [30] * 4
    classes = load_own(FRAME, text="report", label="finding", test_share="balanced")["test"]
    assert np.bincount(classes["label"][:]).tolist() == [60, 60]


def test_a_balanced_test_leaves_rows_without_an_attribute_to_training() -> None:
    frame = FRAME.assign(scanner=FRAME["scanner"].mask(FRAME.index % 5 == 0))
    with pytest.warns(DataWarning, match="missing in 120 of 600 rows"):
        splits = load_own(frame, **OPTIONS, test_share="balanced")
    assert (group_array(splits["test"]) >= 0).all()
    assert sum((group_array(part) == -1).sum() for part in splits.values()) == 120


def test_the_seed_decides() -> None:
    frame = own_frame(600, conflicting=3)
    for options in ({}, {"split": "random"}, {"test_share": "balanced"}):
        first = load_own(frame, **OPTIONS, **options)
        again = load_own(frame, **OPTIONS, **options)
        other = load_own(frame, **OPTIONS, **options, seed=1)
        for split in first:
            assert first[split]["case"][:] == again[split]["case"][:]
        assert first["test"]["case"][:] != other["test"]["case"][:]


def test_random_cuts_have_the_share_of_all_rows() -> None:
    splits = load_own(FRAME, **OPTIONS, split="random", test_share=0.25, validation_share=0.2)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 360, "validation": 90, "test": 150}


def test_all_rows_in_one_split() -> None:
    splits = load_own(FRAME, **OPTIONS, split="none")
    assert list(splits) == ["train"]
    assert splits["train"]["case"][:] == FRAME["case"].tolist()


def test_no_cut_leaves_given_splits_as_they_are() -> None:
    frame = FRAME.assign(split=["test" if i % 10 == 9 else "train" for i in range(600)])
    splits = load_own(frame, **{**OPTIONS, "attribute": None}, split="none")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 540, "test": 60}


def test_only_what_is_missing_is_cut() -> None:
    frame = FRAME.assign(split=["test" if i % 10 == 9 else "train" for i in range(600)])
    splits = load_own(frame, **{**OPTIONS, "attribute": None})
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 486, "validation": 54, "test": 60}
    with pytest.warns(DataWarning, match='test_share="balanced" changes nothing'):
        load_own(frame, **{**OPTIONS, "attribute": None}, test_share="balanced")


def test_small_test_cells_are_told_and_large_ones_are_not() -> None:
    with pytest.warns(
        DataWarning, match=r"2 of 4 cells have fewer than 10 test examples \(benign x B: 5, malignant x A: 5\)"
    ):
        load_own(own_frame(300, conflicting=6), **OPTIONS)
    load_own(FRAME, **OPTIONS)  # warnings are errors


def test_a_class_that_training_lacks_is_told() -> None:
    frame = FRAME.assign(split="train", finding=FRAME["finding"].where(FRAME.index < 570, "other"))
    frame.loc[540:, "split"] = "test"
    with pytest.warns(DataWarning, match="train has no example of other, which other splits have"):
        load_own(frame, text="report", label="finding")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(0.05, 0.5), st.integers(0, 100))
def test_a_stratified_cut_is_within_a_row_of_the_share_in_every_cell(sizes: list[int], share: float, seed: int) -> None:
    cells = np.repeat(np.arange(len(sizes)), sizes)
    chosen = cut(cells, share, np.random.default_rng(seed), stratified=True)
    for cell, size in enumerate(sizes):
        taken = int(chosen[cells == cell].sum())
        assert abs(taken - share * size) <= 1
        assert taken < size or size == 1
        assert taken >= (size > 1)


@given(st.lists(st.integers(2, 60), min_size=1, max_size=6), st.floats(0.05, 0.5))
def test_equal_cells_are_equal_and_leave_half_of_the_smallest(sizes: list[int], share: float) -> None:
    cells = np.repeat(np.arange(len(sizes)), sizes)
    taken = np.bincount(cells[cut_equal(cells, share, np.random.default_rng(0))], minlength=len(sizes))
    assert len(set(taken.tolist())) == 1
    assert 1 <= taken[0] <= min(sizes) // 2


def test_a_cell_of_one_row_cannot_be_balanced() -> None:
    with pytest.raises(InvalidInputError, match="1 of 2 cells have one"):
        cut_equal(np.array([0, 0, 1]), 0.2, np.random.default_rng(0))
