"""Associations with columns of metadata: which are found, how many by chance, against SciPy, and what is skipped."""

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from planted_audit import planted, table
from scipy import stats

from aifs_peft import audit
from aifs_peft.audit.associations import associations, holm
from aifs_peft.audit.columns import as_frame, metadata_columns, read_column, read_columns


def compared(frame, y, inferred, seed=0):
    names = [str(i) for i in range(int(max(y.max(), inferred.max())) + 1)]
    return associations(read_columns(frame), y, inferred, names, rng=np.random.default_rng(seed))


def test_true_attribute_first_and_noise_columns_not():
    Z, y, mark = planted()
    found = audit(Z, y, metadata=table(mark, noise=40), harm=False).associations
    assert found["column"][0] == "scanner"
    assert set(found["column"][found["significant"]]) == {"scanner", "dose"}
    assert (found["strength"][:2] > found["null_high"][:2]).all()
    assert found["shared"][0].startswith("B: 100 %") or found["shared"][0].startswith("A: 100 %")


def test_false_positives_over_null_columns():
    p_values, alarms = [], 0
    for seed in range(5):
        _, y, mark = planted(n=500, seed=seed)
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({f"c{i}": rng.normal(size=500) for i in range(20)})
        for i in range(20):
            frame[f"k{i}"] = rng.integers(0, 2 + i % 4, 500).astype(str)
        result = compared(frame, y, mark, seed)
        p_values += result["p_value"].tolist()
        alarms += int(result["significant"].any())
        # About 95 % of the null columns stay below what chance gives in 95 of 100 cases.
        assert (result["strength"] <= result["null_high"]).mean() > 0.8
    assert alarms <= 1
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_what_is_beyond_chance_is_above_the_number_that_is_printed_for_chance():
    by_itself, beyond = [], []
    for seed in range(16):
        _, y, mark = planted(n=300, seed=seed)
        rng = np.random.default_rng(seed)
        leaning = np.where(rng.random(300) < 0.35, mark, rng.integers(0, 2, 300))  # near the border of significance
        frame = pd.DataFrame({"leaning": leaning.astype(str)})
        alone = compared(frame, y, mark, seed).iloc[0]
        by_itself.append(bool(alone["significant"]) == bool(alone["strength"] > alone["null_high"]))
        many = compared(frame.assign(**{f"c{i}": rng.normal(size=300) for i in range(4)}), y, mark, seed)
        beyond.append(many[many["significant"]])
    assert np.mean(by_itself) > 0.9  # the quantile and the p-value may differ by one draw
    found = pd.concat(beyond)
    assert 3 < len(found) < 16
    assert (found["strength"] > found["null_high"]).all()


def test_a_column_that_is_the_label_is_not_taken_for_the_attribute():
    _, y, mark = planted()
    noisy = np.where(np.random.default_rng(0).random(len(y)) < 0.9, y, 1 - y)
    result = compared(pd.DataFrame({"label again": y, "nearly": noisy}), y, mark).set_index("column")
    assert np.isnan(result.loc["label again", "strength"])
    assert "within each class" in result.loc["label again", "note"]
    assert result.loc["label again", "with_label"] == pytest.approx(1.0)
    assert not result.loc["nearly", "significant"]
    assert result.loc["nearly", "with_label"] > 0.7


def test_strength_is_scipys():
    rng = np.random.default_rng(0)
    y = np.zeros(300, dtype=np.int64)
    y[-1] = 1
    inferred = rng.integers(0, 3, 300)
    inferred[-1] = 1
    frame = pd.DataFrame({"site": rng.choice(list("abcd"), 300), "age": rng.normal(size=300) + 0.3 * inferred})
    result = compared(frame, y, inferred).set_index("column")
    own = y == 0
    expected = stats.contingency.association(pd.crosstab(frame["site"][own], inferred[own]).to_numpy(), method="cramer")
    assert result.loc["site", "strength"] == pytest.approx(expected, abs=1e-5)
    groups = [frame["age"][own & (inferred == a)] for a in range(3)]
    h = stats.kruskal(*groups)
    assert result.loc["age", "strength"] == pytest.approx(np.sqrt(h.statistic / (own.sum() - 1)), abs=1e-5)
    assert result.loc["age", "p_value"] == pytest.approx(h.pvalue, abs=0.02)


def test_many_columns_can_still_be_significant():
    _, y, mark = planted(n=400)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{i}": rng.integers(0, 2, 400) for i in range(150)} | {"mark": mark})
    result = compared(frame, y, mark).set_index("column")
    assert result.loc["mark", "significant"]
    assert result["significant"].sum() == 1


def test_conflicting_at_all_is_another_question_with_many_classes():
    _, y, mark = planted(n=3000, classes=4)
    side = (mark != y).astype(int)
    result = compared(pd.DataFrame({"conflict": side, "mark": mark}), y, mark).set_index("column")
    assert result.loc["conflict", "conflicting"] == pytest.approx(1.0, abs=1e-4)
    assert result.loc["mark", "strength"] == pytest.approx(1.0, abs=1e-4)


def test_shared_describes_numbers_by_their_medians():
    _, y, mark = planted()
    result = compared(pd.DataFrame({"dose": 10.0 * mark + np.random.default_rng(0).normal(size=1000)}), y, mark)
    assert result["shared"][0].startswith("median ")
    assert "where the inferred value is" in result["shared"][0]


def test_holm_is_monotone_and_keeps_what_is_no_test():
    assert holm(np.array([0.01, np.nan, 0.02, 0.5])).tolist() == pytest.approx([0.03, np.nan, 0.04, 0.5], nan_ok=True)
    assert holm(np.array([])).tolist() == []


@pytest.mark.parametrize(
    ("values", "kind", "note"),
    [
        ([1] * 20, "skipped", "one value only"),
        ([None] * 20, "skipped", "one value only"),
        ([f"f{i}" for i in range(20)], "skipped", "all values differ: an identifier"),
        (list(range(100, 120)), "skipped", "all values differ: an identifier"),
        ([[1, 2]] * 20, "skipped", "values of type list cannot be compared"),
        (np.linspace(0.1, 0.9, 20).tolist(), "numeric", ""),
        (pd.date_range("2020", periods=20).tolist(), "numeric", ""),
        ([0, 1] * 10, "categorical", ""),
        ([True, False] * 10, "categorical", ""),
        (["a", "b", None, None] * 5, "categorical", "10 missing: a value of its own"),
        ([None, *np.linspace(0, 1.5, 19)], "categorical", "1 missing: cut into 3 ranges, with missing"),
        (["a"] * 10 + ["b"] * 8 + ["c", "d"], "categorical", "2 rare values taken together"),
        (["a", "b"] * 5 + [f"x{i}" for i in range(10)], "categorical", "10 rare values taken together"),
        ([f"x{i // 2}" for i in range(20)], "skipped", "nearly all values differ: an identifier"),
    ],
)
def test_columns_are_read(values, kind, note):
    column = read_column("c", pd.Series(values))
    assert column.kind == kind
    assert column.note.startswith(note)
    assert column.testable is (kind != "skipped")


def test_missing_and_infinite_numbers_are_a_value():
    column = read_column("c", pd.Series([np.inf, np.nan, *np.linspace(0, 1.5, 38)]))
    assert column.levels[0] == "(missing)" or "(missing)" in column.levels or "(other)" in column.levels
    assert column.note.startswith("2 missing")


def test_no_metadata_and_empty_metadata():
    Z, y, _ = planted(n=300)
    for metadata in (None, {}, pd.DataFrame(index=range(300))):
        result = audit(Z, y, metadata=metadata, harm=False)
        assert len(result.associations) == 0
        assert result.looked_at["metadata"] == {"tested": [], "skipped": {}}


def test_a_dataset_gives_its_scalar_columns_with_names():
    features = Features({"image": Image(), "site": ClassLabel(names=["north", "south"]), "age": Value("float32")})
    columns = {"image": [None] * 4, "site": [0, 1, 0, 1], "age": [1.0, 2.0, 3.0, 4.0]}
    rows = Dataset.from_dict(columns, features=features)
    frame = as_frame(rows, 4)
    assert frame.columns.tolist() == ["site", "age"]
    assert frame["site"].tolist() == ["north", "south", "north", "south"]


COLUMNS = {
    "the user's name for the attribute": ({"scanner": ["A", "A", "B", "B"]}, ["scanner"]),
    "a column that tells other rows apart": ({"scanner": ["A", "B", "B", "A"]}, ["attribute", "scanner"]),
    "numbers": ({"age": [20.5, 20.5, 61.0, 61.0]}, ["age"]),
    "lists are no name for it": ({"box": [[0], [0], [1], [1]]}, ["attribute", "box"]),
    "nothing else": ({}, ["attribute"]),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_an_attribute_and_its_groups_are_compared_once(case):
    extra, expected = COLUMNS[case]
    columns = {"text": list("abcd"), "label": [0, 1, 0, 1], "attribute": [0, 0, 1, 1], "group": [0, 2, 1, 3]}
    assert metadata_columns(Dataset.from_dict({**columns, **extra}), ("text", "label")) == expected


def test_an_attribute_that_is_missing_in_places_is_known_by_the_others():
    rows = Dataset.from_dict({"label": [0, 1, 0], "attribute": [0, -1, 1], "scanner": ["A", "", "B"]})
    assert metadata_columns(rows, ["label"]) == ["scanner"]
    without = rows.remove_columns("attribute").add_column("group", [0, 1, 2])
    assert metadata_columns(without, ["label"]) == ["scanner", "group"]
