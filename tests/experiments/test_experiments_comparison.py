"""Before and after: cells, exact intervals, and sentences that are printed only where they are true."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from scipy import stats

from aifs_peft.data.groups import GroupSpec, describe_spec
from aifs_peft.experiments.comparison import (
    Cells,
    cells_of_classes,
    cells_of_groups,
    cells_of_inferred,
    compare,
    goes_with,
)

CLASSES, SCANNERS = ("healthy", "sick"), ("A", "B")


def logits_of(predictions: np.ndarray, classes: int = 2) -> np.ndarray:
    return np.eye(classes)[predictions]


def rows_of(labels: np.ndarray, values: np.ndarray, *, spec: bool = True) -> Dataset:
    """A split with the group column of own data: label x scanner, or the scanner alone."""
    made = GroupSpec("scanner", CLASSES, SCANNERS)
    names = made.names if spec else SCANNERS
    groups = made.encode(labels, values) if spec else values
    features = Features({"label": ClassLabel(names=list(CLASSES)), "group": ClassLabel(names=list(names))})
    rows = Dataset.from_dict({"label": labels, "group": groups}, features=features)
    if spec:
        rows.info.description = describe_spec(made, "scans")
    return rows


def biased(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and a scanner that is the label's own with probability `share`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return labels, np.where(rng.random(n) < share, labels, 1 - labels)


@pytest.fixture
def train() -> Dataset:
    return rows_of(*biased(1000, 0.95, 0))


def test_a_biased_test_set_hides_the_gain_and_the_sentence_says_so(train: Dataset) -> None:
    labels, values = biased(1000, 0.95, 1)
    cells = cells_of_groups(rows_of(labels, values), train)
    assert cells is not None
    plain = logits_of(values)  # reads the scanner
    careful = labels.copy()
    careful[:100] = 1 - careful[:100]  # 90 % right everywhere
    result = compare(labels, logits_of(careful), plain, cells)
    aligned, conflicting = result["rows"][:2]
    against = int((labels != values).sum())
    assert (aligned["cell"], aligned["n"]) == ("aligned", 1000 - against)
    assert (conflicting["cell"], conflicting["n"]) == ("conflicting", against)
    assert (aligned["plain"]["accuracy"], conflicting["plain"]["accuracy"]) == (1.0, 0.0)
    after = (careful == labels)[labels != values].mean()
    assert conflicting["method"]["accuracy"] == pytest.approx(after)
    low, high = stats.binomtest(int(after * against), against).proportion_ci(0.95, method="exact")
    assert (conflicting["method"]["low"], conflicting["method"]["high"]) == (pytest.approx(low), pytest.approx(high))
    assert result["sentences"][0] == f"conflicting examples: 0.00 -> {after:.2f} (n = {against})"
    assert result["sentences"][1].startswith(
        "the average falls by design: this test set has the shortcut in it (94% of"
    )
    assert [row["cell"] for row in result["rows"][2:]] == [f"{c} x {s}" for c in CLASSES for s in SCANNERS]
    assert result["worst"]["plain"]["accuracy"] == 0.0
    assert result["worst"]["method"]["cell"] in {row["cell"] for row in result["rows"][2:]}


def test_on_a_balanced_test_set_nothing_falls_by_design(train: Dataset) -> None:
    labels, values = biased(1000, 0.5, 1)
    cells = cells_of_groups(rows_of(labels, values), train)
    assert cells is not None
    worse = labels.copy()
    worse[:600] = 1 - worse[:600]
    result = compare(labels, logits_of(worse), logits_of(values), cells)
    assert result["average"]["method"]["accuracy"] < result["average"]["plain"]["accuracy"]
    assert len(result["sentences"]) == 1
    assert "design" not in result["sentences"][0]


def test_a_fall_that_helps_nobody_is_not_by_design(train: Dataset) -> None:
    labels, values = biased(1000, 0.95, 1)
    cells = cells_of_groups(rows_of(labels, values), train)
    assert cells is not None
    wrong = 1 - labels
    result = compare(labels, logits_of(wrong), logits_of(values), cells)
    assert result["average"]["method"]["accuracy"] == 0.0
    assert not any("design" in sentence for sentence in result["sentences"])


def test_an_average_that_does_not_fall_is_still_no_measure(train: Dataset) -> None:
    labels, values = biased(1000, 0.95, 1)
    cells = cells_of_groups(rows_of(labels, values), train)
    assert cells is not None
    result = compare(labels, logits_of(values), logits_of(values), cells)
    assert any("its average rewards leaning on it" in sentence for sentence in result["sentences"])


def test_without_plain_training_one_side_is_told(train: Dataset) -> None:
    labels, values = biased(200, 0.95, 1)
    cells = cells_of_groups(rows_of(labels, values), train)
    assert cells is not None
    result = compare(labels, logits_of(values), None, cells)
    assert all(row["plain"] is None for row in result["rows"])
    assert result["average"]["plain"] is None
    assert result["sentences"][0].startswith("conflicting examples: 0.00 (n = ")
    assert len(result["sentences"]) == 1


def test_groups_by_the_scanner_alone_become_cells_with_the_label() -> None:
    labels, values = biased(400, 0.9, 0)
    rows = rows_of(labels, values, spec=False)
    cells = cells_of_groups(rows, rows)
    assert cells is not None
    assert cells.source == "groups"
    assert cells.names == ("healthy x A", "healthy x B", "sick x A", "sick x B")
    np.testing.assert_array_equal(cells.aligned, labels == values)


def test_groups_that_lie_in_one_class_each_stay_as_they_are() -> None:
    rows = Dataset.from_dict(
        {"label": [0, 0, 1, 1], "group": [0, 1, 2, 3]},
        features=Features({"label": ClassLabel(names=["a", "b"]), "group": Value("int64")}),
    )
    cells = cells_of_groups(rows, rows)
    assert cells is not None
    assert cells.names == ("group 0", "group 1", "group 2", "group 3")
    assert cells.aligned is None
    result = compare(np.array([0, 0, 1, 1]), logits_of(np.array([0, 0, 1, 0])), None, cells)
    assert result["sentences"] == ["worst group: 0.00"]


def test_an_attribute_without_a_tie_to_the_label_has_nothing_conflicting() -> None:
    labels, values = biased(1000, 0.5, 3)
    rows = rows_of(labels, values)
    cells = cells_of_groups(rows, rows)
    assert cells is not None
    assert cells.aligned is None
    assert goes_with(values, labels, 2, 2) is None


def test_what_goes_with_what_is_beside_the_size_of_the_class() -> None:
    # 90 % are healthy; scanner B sees most of the few sick ones, yet more healthy than sick.
    labels = np.array([0] * 900 + [1] * 100)
    values = np.array([0] * 800 + [1] * 100 + [1] * 90 + [0] * 10)
    np.testing.assert_array_equal(goes_with(values, labels, 2, 2), [0, 1])


def test_inferred_cells_say_that_they_are_inferred() -> None:
    labels, values = biased(300, 0.95, 5)
    cells = cells_of_inferred(labels, values, CLASSES)
    result = compare(labels, logits_of(labels), logits_of(values), cells)
    assert result["cells_from"] == "inferred"
    assert any("inferred here" in sentence for sentence in result["sentences"])
    assert [row["cell"] for row in result["rows"]] == [
        "aligned", "conflicting", "healthy, aligned", "healthy, conflicting", "sick, aligned", "sick, conflicting",
    ]  # fmt: skip
    assert cells.expected == pytest.approx(0.5, abs=0.05)


def test_joint_values_of_several_attributes_conflict() -> None:
    cells = cells_of_inferred(np.array([0, 1, 1]), np.array([0, 3, 1]), CLASSES)
    assert cells.aligned is not None
    assert cells.aligned.tolist() == [True, False, True]
    assert 0 <= cells.expected <= 1


def test_classes_are_the_last_resort() -> None:
    labels = np.array([0, 0, 1])
    result = compare(labels, logits_of(np.array([0, 0, 0])), logits_of(labels), cells_of_classes(labels, CLASSES))
    assert result["cells_from"] == "classes"
    assert result["sentences"] == ["worst class: 1.00 -> 0.00"]


def test_a_cell_of_few_examples_is_named(train: Dataset) -> None:
    labels, values = np.array([0] * 30 + [1] * 30), np.array([0] * 27 + [1] * 33)
    cells = cells_of_groups(rows_of(labels, values), train)
    assert cells is not None
    warnings = compare(labels, logits_of(labels), None, cells)["warnings"]
    assert len(warnings) == 1
    assert warnings[0].startswith("under 10 test examples, too few to say much: ")
    assert "healthy x B (3)" in warnings[0]


def test_overlapping_groups_keep_their_own_rows() -> None:
    members = np.array([[True, True], [False, True], [False, False]])
    cells = Cells("groups", ("a", "b"), members)
    result = compare(np.array([0, 1, 1]), logits_of(np.array([0, 0, 1])), None, cells)
    assert [(row["cell"], row["n"]) for row in result["rows"]] == [("a", 1), ("b", 2)]
    assert result["worst"]["method"]["cell"] == "b"


def test_an_example_whose_attribute_is_missing_lies_in_no_cell(train: Dataset) -> None:
    labels, values = biased(200, 0.9, 1)
    rows = rows_of(labels, values)
    groups = np.asarray(rows["group"][:])
    groups[:50] = -1
    missing = (
        rows.remove_columns("group").add_column("group", groups.tolist()).cast_column("group", rows.features["group"])
    )
    missing.info.description = rows.info.description
    cells = cells_of_groups(missing, train)
    assert cells is not None
    assert cells.known is not None
    assert not cells.known[:50].any()
    assert not cells.members[:50].any()
    result = compare(labels, logits_of(labels), None, cells)
    assert sum(row["n"] for row in result["rows"][:2]) == 150
    assert result["average"]["method"]["accuracy"] == 1.0


def test_what_goes_with_what_can_be_given_by_name(train: Dataset) -> None:
    labels, values = biased(300, 0.5, 2)
    rows = rows_of(labels, values)
    known, told = cells_of_groups(rows, train), cells_of_groups(rows, {"A": "healthy", "B": "sick"})
    assert known is not None
    assert told is not None
    assert known.goes_with == {"A": "healthy", "B": "sick"}
    np.testing.assert_array_equal(known.aligned, told.aligned)
    nothing = cells_of_groups(rows, {})
    assert nothing is not None
    assert nothing.aligned is None
