"""GroupSpec: numbering, counting, overlap, and how it travels with a data set."""

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aifs_peft.data import GroupSpec, group_array, group_spec
from aifs_peft.data.tables import assemble, build_split, group_features
from aifs_peft.errors import InvalidInputError

SPEC = GroupSpec("toy", ("no", "yes"), ("a", "b", "c"))


def _dataset(labels, attributes, spec=SPEC):
    features = datasets.Features(group_features(spec))
    columns = {"label": labels, "attribute": attributes, "group": spec.encode(labels, attributes)}
    return build_split(columns, features)


@given(hnp.arrays(np.int64, 50, elements=st.integers(0, 5)))
def test_encoding_is_inverted_and_counts_equal_a_loop(groups):
    label, attribute = SPEC.class_of(groups), SPEC.attribute_of(groups)
    assert np.array_equal(SPEC.encode(label, attribute), groups)
    assert SPEC.counts(groups).tolist() == [int((groups == g).sum()) for g in range(6)]


def test_empty_groups_are_counted_as_zero_and_kept():
    assert SPEC.counts([0, 0]).tolist() == [2, 0, 0, 0, 0, 0]
    assert SPEC.counts(np.array([], dtype=int)).tolist() == [0] * 6


def test_overlapping_membership():
    spec = GroupSpec("toy overlap", ("no", "yes"), ("a", "b"), overlapping=True)
    member = spec.membership([0, 1, 1], [[1, 1], [0, 1], [0, 0]])
    assert member.tolist() == [[True, True, False, False], [False, False, False, True], [False] * 4]
    assert spec.counts(member).tolist() == [1, 1, 0, 1]
    assert "overlapping" in str(spec)
    with pytest.raises(InvalidInputError, match="overlap"):
        spec.encode([0], [0])
    with pytest.raises(InvalidInputError, match="boolean matrix"):
        spec.counts([0, 1])
    with pytest.raises(InvalidInputError, match=r"shape \(3, 2\)"):
        spec.membership([0, 1, 1], [[1, 1, 0]] * 3)


def test_names_stand_for_their_numbers():
    assert SPEC.encode(["yes", "no"], np.array(["a", "c"])).tolist() == [3, 2]
    assert SPEC.counts(["no x c", "no x c", "yes x a"]).tolist() == [0, 0, 2, 1, 0, 0]
    with pytest.raises(InvalidInputError, match="attributes hold 'd'; known are a, b, c"):
        SPEC.encode([0], ["d"])


def test_a_missing_group_is_in_none():
    assert SPEC.counts([-1, 2, -1]).tolist() == [0, 0, 1, 0, 0, 0]
    assert SPEC.class_of([-1, 5]).tolist() == [-1, 1]
    assert SPEC.attribute_of([-1, 5]).tolist() == [-1, 2]
    rows = _dataset(np.array([0, 1]), np.array([2, 0])).to_dict()
    part = datasets.Dataset.from_dict({**rows, "group": [2, -1]}, features=datasets.Features(group_features(SPEC)))
    assert SPEC.table(part).splitlines()[-2].split() == ["in", "no", "group", "1"]
    assert "in no group" not in SPEC.table(_dataset(np.array([0]), np.array([1])))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: SPEC.encode([0, 1], [0]), "same|shape"),
        (lambda: SPEC.encode([2], [0]), r"labels must lie in 0\.\.1"),
        (lambda: SPEC.encode([0], [-1]), r"attributes must lie in 0\.\.2"),
        (lambda: SPEC.encode([0.5], [0]), "integers"),
        (lambda: SPEC.counts([[0, 1]]), "partition"),
        (lambda: SPEC.counts([6]), r"groups must lie in 0\.\.5"),
        (lambda: GroupSpec("none", (), ("a",)), "at least one class"),
        (lambda: GroupSpec("twice", ("x", "x"), ("a",)), "must differ"),
    ],
)
def test_wrong_input_is_refused(call, match):
    with pytest.raises(InvalidInputError, match=match):
        call()


def test_json_round_trip():
    assert GroupSpec.from_json(SPEC.to_json()) == SPEC


def test_the_definition_travels_with_the_data_set(tmp_path):
    data = assemble({"train": _dataset(np.array([0, 1]), np.array([2, 0]))}, SPEC, "Two rows.")
    assert group_spec(data) == SPEC
    assert group_spec(data["train"].map(lambda row: {"more": 1}).filter(lambda row: row["label"] == 1)) == SPEC
    data.save_to_disk(tmp_path / "saved")
    assert group_spec(datasets.load_from_disk(tmp_path / "saved")) == SPEC
    assert group_spec(data["train"].to_iterable_dataset()).names == SPEC.names


def test_the_definition_is_read_from_the_features_of_a_foreign_set():
    foreign = _dataset(np.array([0, 1]), np.array([2, 0]))
    read = group_spec(foreign)
    assert (read.classes, read.attributes, read.names) == (SPEC.classes, SPEC.attributes, SPEC.names)
    with pytest.raises(InvalidInputError, match="does not say what its groups mean"):
        group_spec(datasets.Dataset.from_dict({"label": [0], "group": [1]}))


def test_table_shows_every_group_and_split():
    data = assemble(
        {
            "train": _dataset(np.array([0, 1, 1]), np.array([2, 0, 0])),
            "test": _dataset(np.array([0]), np.array([0])),
        },
        SPEC,
        "Four rows.",
    )
    lines = SPEC.table(data).splitlines()
    assert lines[0].split() == ["group", "train", "test"]
    assert lines[1].split() == ["no", "x", "a", "0", "1"]
    assert lines[4].split() == ["yes", "x", "a", "2", "0"]
    assert lines[-1].split() == ["examples", "3", "1"]
    markdown = SPEC.table(data["train"], markdown=True).splitlines()
    assert markdown[1] == "|---|---:|"
    assert markdown[5] == "| yes x a | 2 |"


def test_group_array_needs_the_column():
    with pytest.raises(InvalidInputError, match="no 'group' column"):
        group_array(datasets.Dataset.from_dict({"label": [0]}))
