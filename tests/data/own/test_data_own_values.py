"""Labels and attributes of every form, and what is missing: never a class, never a group, and told."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from own_data import own_frame, write_pictures

from aifs_peft.data import from_table, group_array, group_spec, load_own
from aifs_peft.data.notes import DataWarning
from aifs_peft.errors import InvalidInputError

FRAME = own_frame(400)
N = len(FRAME)
ODD = np.arange(N) % 2
FORMS = {
    "strings": (np.array(["no", "yes"])[ODD], ["no", "yes"]),
    "integers": (np.array([10, 9])[ODD], ["9", "10"]),
    "minus one and one": (np.array([-1, 1])[ODD], ["-1", "1"]),
    "booleans": (ODD == 1, ["False", "True"]),
    "whole floats": (ODD.astype(float), ["0", "1"]),
    "codes": (np.array(["01", "1"])[ODD], ["01", "1"]),
    "a word that others read as missing": (np.array(["None", "Some"])[ODD], ["None", "Some"]),
    "spaces around": (np.array([" a", "b "])[ODD], ["a", "b"]),
    "categories": (pd.Categorical(np.array(["x", "w"])[ODD]), ["w", "x"]),
    "uint8": (ODD.astype(np.uint8), ["0", "1"]),
    "nullable": (pd.array(ODD, dtype="Int64"), ["0", "1"]),
}


@pytest.mark.parametrize("role", ["label", "attribute"])
@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_values_keep_their_names(form: str, kind: str, role: str, tmp_path: Path) -> None:
    values, names = FORMS[form]
    frame = FRAME.assign(value=values)
    source: Any = frame
    if kind == "csv":
        frame.to_csv(tmp_path / "t.csv", index=False)
        source = tmp_path / "t.csv"
    elif kind == "parquet":
        frame.to_parquet(tmp_path / "t.parquet")
        source = tmp_path / "t.parquet"
    options = {"label": "value"} if role == "label" else {"label": "scanner", "attribute": "value"}
    splits = load_own(source, text="report", **options)
    assert splits["train"].features[role].names == names
    for part in splits.values():
        found = [names[i] for i in part[role][:]]
        row = [int(case) for case in part["case"][:]]
        assert found == [names[k] for k in (_numbers(form, names)[row]).tolist()]


def _numbers(form: str, names: list[str]) -> np.ndarray:
    given = [str(v).strip() for v in np.asarray(FORMS[form][0], dtype=object)]
    given = [v.removesuffix(".0") for v in given]
    return np.array([names.index(v) for v in given])


ABSENT = np.arange(N) % 10 == 4
MISSING = {
    "empty": lambda v: np.where(ABSENT, "", v),
    "NaN as a word": lambda v: np.where(ABSENT, "NaN", v),
    "NA": lambda v: np.where(ABSENT, "NA", v),
    "None": lambda v: np.where(ABSENT, None, v.astype(object)),
    "NaN": lambda v: pd.Series(v).mask(ABSENT).to_numpy(),
    "-1 as a word": lambda v: np.where(ABSENT, "-1", v),
    "-1": lambda v: np.where(ABSENT, -1, np.where(v == "A", 0, 1)),
    "-100": lambda v: np.where(ABSENT, -100, np.where(v == "A", 0, 1)),
    "NaN beside whole numbers": lambda v: np.where(ABSENT, np.nan, np.where(v == "A", 0, 1)),
}


@pytest.mark.parametrize("through_csv", [False, True])
@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_attribute_is_no_group_and_is_told(kind: str, through_csv: bool, tmp_path: Path) -> None:
    source: Any = FRAME.assign(scanner=MISSING[kind](FRAME["scanner"].to_numpy(dtype=object).astype(str)))
    if through_csv:
        source.to_csv(tmp_path / "t.csv", index=False)
        source = tmp_path / "t.csv"
    with pytest.warns(DataWarning, match=r"'scanner', the attribute, is missing in 40 of 400 rows \(rows 4, 14, 24"):
        splits = load_own(source, text="report", label="finding", attribute="scanner")
    spec = group_spec(splits)
    assert len(spec.attributes) == 2
    counts = sum(spec.counts(group_array(part)) for part in splits.values())
    assert counts.sum() == 360
    for part in splits.values():
        cases = np.array([int(case) for case in part["case"][:]])
        assert ((group_array(part) == -1) == ABSENT[cases]).all()
        assert ((np.asarray(part["attribute"][:]) == -1) == ABSENT[cases]).all()
    assert sum(map(len, splits.values())) == N  # they are trained on
    assert "in no group" in spec.table(splits)


@pytest.mark.parametrize("column", ["finding", "report", "path", "age"])
def test_a_missing_label_or_input_is_refused_or_left_out_and_counted(column: str, tmp_path: Path) -> None:
    write_pictures(tmp_path, FRAME["path"].tolist())
    frame = FRAME.astype({column: object})
    frame.loc[[5, 17, 88], column] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    inputs = {"report": {"text": "report"}, "age": {"features": ["age"]}}.get(column, {"image": "path"})
    with pytest.raises(
        InvalidInputError, match=rf"'{column}' is missing in 3 of 400 rows \(rows 5, 17, 88\).*missing=\"drop\""
    ):
        load_own(tmp_path / "t.csv", label="finding", **inputs)
    with pytest.warns(DataWarning, match=rf"'{column}' is missing in 3 of 400 rows .*they were left out"):
        splits = load_own(tmp_path / "t.csv", label="finding", missing="drop", **inputs)
    assert sum(map(len, splits.values())) == 397
    assert splits["train"].features["label"].names == ["benign", "malignant"]


def test_the_split_of_a_missing_value_is_named() -> None:
    parts = {}
    for split, rows in (("train", slice(0, 300)), ("test", slice(300, 400))):
        frame = FRAME[rows].astype({"finding": object}).reset_index(drop=True)
        frame.loc[[2, 3] if split == "train" else range(100), "finding"] = None
        parts[split] = Dataset.from_pandas(frame)
    with pytest.raises(
        InvalidInputError, match=r"102 of 400 rows \(train: rows 2, 3; test: rows 0, 1, .* and 95 more\)"
    ):
        load_own(DatasetDict(parts), text="report", label="finding")


def test_words_such_as_nan_are_texts() -> None:
    frame = FRAME.assign(report=np.where(ABSENT, "nan", FRAME["report"]))
    splits = load_own(frame, text="report", label="finding")
    assert sum(text == "nan" for part in splits.values() for text in part["text"]) == 40


def test_metadata_keep_their_kind(tmp_path: Path) -> None:
    frame = FRAME.assign(dose=np.where(ABSENT, "", "1.5"), smoker=ODD == 1, group="x", note=None)
    frame.to_csv(tmp_path / "t.csv", index=False)
    train = from_table(tmp_path / "t.csv", text="report", label="finding")["train"]
    kinds = {name: getattr(feature, "dtype", "") for name, feature in train.features.items()}
    assert kinds["age"] == "int64"
    assert kinds["dose"] == "float64"
    assert kinds["smoker"] == "bool"
    assert kinds["case"] == "string"  # 00012 would lose its zeros
    assert kinds["column_group"] == "string"  # `group` is the name of a role
    assert None in train["dose"][:]
    odd = FRAME.assign(what=[{"a": 1} if i % 2 else "text" for i in range(N)], when=pd.Timestamp("2024-01-01"))
    train = from_table(odd, text="report", label="finding")["train"]
    assert "what" in train.column_names
    assert "timestamp" in train.features["when"].dtype


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({"finding": np.linspace(0, 1, N)}, {}, "'finding' holds 398 values that are no name"),
        ({"finding": [str(v) for v in np.linspace(0, 1, N)]}, {}, "holds numbers with fractions"),
        ({"finding": [[i % 2] for i in range(N)]}, {}, "no name, whole number or boolean"),
        ({"finding": "benign"}, {}, "needs at least two classes; all 400 rows are 'benign'"),
        ({"finding": None}, {}, "'finding', the label, holds no value at all"),
        ({"finding": ["rare" if i == 17 else "benign" for i in range(N)]}, {}, r"'rare' \(1, row 17\); add examples"),
        ({"finding": [f"case {i}" for i in range(N)]}, {}, r"fewer than 3 .*'case 0' \(1, row 0\).* and 395 more"),
        ({"scanner": [f"id {i}" for i in range(N)]}, {"attribute": "scanner"}, "400 different values, more than 100"),
        ({"scanner": np.linspace(0, 1, N)}, {"attribute": "scanner"}, "the attribute needs one such value"),
        ({"split": "holdout"}, {}, "and holds holdout in 400 of 400 rows; known are train"),
        ({"split": "test"}, {}, r"has the splits \['test'\]; needed is at least train"),
        ({}, {"split": "fold"}, "has no column 'fold' for the split"),
        ({"report": [i if i == 3 else "x" for i in range(N)]}, {}, r"holds 1 values that are no text \(row 3; for"),
        ({}, {"test_share": "equal"}, 'test_share must be a share in .* or "balanced"'),
        ({}, {"test_share": 0.95, "validation_share": 0.1}, "leave rows to train on"),
        ({}, {"test_share": 0}, "must be positive"),
        ({}, {"seed": -1}, "seed must be an integer of at least 0"),
        ({}, {"missing": "dropp"}, "did you mean 'drop'"),
        ({}, {"label": "findng"}, r"'findng' for the label .did you mean 'finding'\?.; it has .*--dataset-options"),
        ({}, {"attribute": "nothing"}, "for the attribute"),
        ({}, {"text": None, "features": ["age", "scanner"]}, "'scanner', a feature, holds 400 values that are no"),
        ({}, {"text": None, "features": []}, "features need columns of their own; got none"),
        ({}, {"text": None, "features": ["finding"]}, "columns of their own; got finding"),
        ({"age": [[1.0] * (1 + (i == 7)) for i in range(N)]}, {"text": None, "features": "age"}, "of one length"),
        ({"age": [["a"]] * N}, {"text": None, "features": "age"}, "vectors of numbers"),
        ({"age": [[]] * N}, {"text": None, "features": "age"}, "vectors of length 0"),
        ({}, {"text": None, "image": "path", "root": "/no/such/folder"}, "root must be the folder"),
        ({"path": "https://a.b/c.png"}, {"text": None, "image": "path"}, "addresses of the web"),
        ({"path": [3] * N}, {"text": None, "image": "path"}, r"'path' holds no picture \(row 0: int\)"),
        ({"path": ["a.png", 3] * (N // 2)}, {"text": None, "image": "path"}, "holds 200 paths and 200 other values"),
    ],
)  # fmt: skip
def test_what_cannot_be_worked_with_is_named(change: dict[str, Any], options: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        load_own(FRAME.assign(**change), **{"text": "report", "label": "finding", **options})
    assert "\n" not in str(caught.value)


def test_columns_without_a_usual_name_are_asked_for() -> None:
    with pytest.raises(
        InvalidInputError, match=r"no column 'label' for the label; it has .*'finding'.*--label my_column"
    ):
        load_own(FRAME, text="report")
    with pytest.raises(InvalidInputError, match="no column of pictures, texts or latents by a usual name"):
        load_own(FRAME[["age", "finding"]], label="finding")
    doubled = pd.concat([FRAME, FRAME[["age"]]], axis=1)
    with pytest.raises(InvalidInputError, match="the columns age more than once"):
        load_own(doubled, text="report", label="finding")
    with pytest.raises(InvalidInputError, match="has no row"):
        load_own(FRAME[:0], text="report", label="finding")


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.png", "images/../../outside.png"])
def test_a_table_opens_no_file_outside_its_folder(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    write_pictures(folder, FRAME["path"].tolist())
    write_pictures(tmp_path, ["outside.png"])
    FRAME.assign(path=[path if i == 9 else name for i, name in enumerate(FRAME["path"])]).to_csv(
        folder / "t.csv", index=False
    )
    with pytest.raises(InvalidInputError, match=r"names the file .* \(row 9\), which lies outside .*root="):
        load_own(folder / "t.csv", image="path", label="finding")
