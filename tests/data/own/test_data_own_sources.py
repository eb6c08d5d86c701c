"""Own data of every kind: the same rows come out, whatever they came in as."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from own_data import own_frame, write_pictures
from PIL import Image

from aifs_peft.data import from_table, group_array, group_spec, is_own, load, load_own
from aifs_peft.data.doctor import check_data_set
from aifs_peft.data.notes import DataWarning
from aifs_peft.data.tables import encode_png
from aifs_peft.errors import AIFSError, DataNotFoundError, InvalidInputError

FRAME = own_frame()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def _packed(path: Path) -> Path:
    with gzip.open(path, "wt") as stream:
        FRAME.to_csv(stream, index=False)
    return path


def _saved(path: Path) -> Path:
    Dataset.from_pandas(FRAME).save_to_disk(path)
    return path


def _written(method: str, **options: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        getattr(FRAME, method)(path, **options)
        return path

    return write


TEXTS = {
    "frame": ("", lambda _: FRAME),
    "frame with another index": ("", lambda _: FRAME.set_index(FRAME.index[::-1])),
    "csv": ("scans.csv", _written("to_csv", index=False)),
    "csv with its index": ("scans.csv", _written("to_csv")),
    "csv with a byte-order mark": ("scans.csv", _written("to_csv", index=False, encoding="utf-8-sig")),
    "tsv": ("scans.tsv", _written("to_csv", index=False, sep="\t")),
    "csv, packed": ("scans.csv.gz", _packed),
    "parquet": ("scans.parquet", _written("to_parquet")),
    "json, records": ("scans.json", _written("to_json", orient="records")),
    "json, columns": ("scans.json", _written("to_json")),
    "json, lists": ("scans.json", _written("to_json", orient="records", lines=True)),
    "json lines": ("scans.jsonl", _written("to_json", orient="records", lines=True)),
    "dataset": ("", lambda _: Dataset.from_pandas(FRAME)),
    "saved": ("saved", _saved),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_of_every_kind(kind: str, tmp_path: Path) -> None:
    name, make = TEXTS[kind]
    source = make(tmp_path / name)
    wanted = load_own(FRAME, text="report", label="finding", attribute="scanner", test_share=0.3)
    splits = load_own(source, text="report", label="finding", attribute="scanner", test_share=0.3)
    assert list(splits) == ["train", "validation", "test"]
    for split, rows in splits.items():
        for column in ("text", "label", "attribute", "group", "age", "case", "scanner"):
            assert rows[column][:] == wanted[split][column][:], (split, column)
    assert group_spec(splits).names == ("benign x A", "benign x B", "malignant x A", "malignant x B")
    if not isinstance(source, Dataset | pd.DataFrame):
        again = load(str(source), text="report", label="finding", attribute="scanner", test_share=0.3)
        assert again["test"]["text"][:] == splits["test"]["text"][:]


def test_the_values_are_those_of_the_table() -> None:
    splits = from_table(FRAME, text="report", label="finding", attribute="scanner", test_share=0.3)
    rows = pd.concat([part.to_pandas() for part in splits.values()]).sort_values("case").reset_index(drop=True)
    assert rows["text"].tolist() == FRAME["report"].tolist()
    names = splits["train"].features["label"].names
    assert [names[i] for i in rows["label"]] == FRAME["finding"].tolist()
    assert rows["scanner"].tolist() == FRAME["scanner"].tolist()
    groups = splits["train"].features["group"].names
    assert [groups[i] for i in rows["group"]] == (FRAME["finding"] + " x " + FRAME["scanner"]).tolist()
    assert rows["age"].tolist() == FRAME["age"].tolist()


def _one(splits: DatasetDict) -> list[tuple[str, int]]:
    """Red channel and label of every picture."""
    rows = [row for part in splits.values() for row in part]
    return sorted((row["image"].getpixel((0, 0))[0], row["label"]) for row in rows)


WANTED = [(i, i % 2) for i in range(200)]


@pytest.mark.parametrize("name", ["scans.csv", "labels.parquet", "metadata.csv", "anything.jsonl"])
def test_a_folder_with_a_table_beside_the_pictures_whatever_its_name(name: str, tmp_path: Path) -> None:
    write_pictures(tmp_path, FRAME["path"].tolist())
    write = {"csv": FRAME.to_csv, "parquet": FRAME.to_parquet, "jsonl": FRAME.to_json}[name.partition(".")[2]]
    write(tmp_path / name, **({"orient": "records", "lines": True} if name.endswith("l") else {"index": False}))
    splits = load_own(tmp_path, image="path", label="finding", attribute="scanner", test_share=0.3)
    assert _one(splits) == WANTED
    assert splits["train"]["path"][0] in FRAME["path"].tolist()


@pytest.mark.parametrize("form", ["relative", "below", "absolute in a frame", "relative in a frame", "another root"])
def test_where_paths_start(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, FRAME["path"].tolist())
    options: dict[str, Any] = {}
    source: Any = tmp_path / "scans.csv"
    frame = FRAME
    if form == "below":  # the table names the files, and one folder beside it holds them
        (tmp_path / "other").mkdir()
        frame = FRAME.assign(path=FRAME["path"].str.removeprefix("images/"))
    elif form == "another root":
        (tmp_path / "tables").mkdir()
        source, options = tmp_path / "tables" / "scans.csv", {"root": tmp_path}
        frame = FRAME.assign(path=[str(tmp_path / name) for name in FRAME["path"]])
    elif form == "absolute in a frame":
        source = FRAME.assign(path=[tmp_path / name for name in FRAME["path"]])
    elif form == "relative in a frame":
        monkeypatch.chdir(tmp_path)
        source = FRAME
    if not isinstance(source, pd.DataFrame):
        frame.to_csv(source, index=False)
    splits = load_own(source, image="path", label="finding", **options)
    monkeypatch.chdir("/")
    assert _one(splits) == WANTED


@pytest.mark.parametrize("given", [False, True])
def test_class_folders(given: bool, tmp_path: Path) -> None:
    names = []
    for i in range(60):
        split = ("train/", "val/", "test/")[i % 3] if given else ""
        names.append(f"{split}{('dog', 'cat')[i // 3 % 2]}/more/{i}.png")
    write_pictures(tmp_path, names)
    (tmp_path / "notes.txt").write_text("no picture")
    splits = load_own(tmp_path)
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert {name: len(rows) for name, rows in splits.items()} == (
        {"train": 20, "validation": 20, "test": 20} if given else {"train": 44, "validation": 4, "test": 12}
    )
    for rows in splits.values():
        for row in rows:
            number = row["image"].getpixel((0, 0))[0]
            assert row["label"] == (number // 3 % 2 == 0)
            assert row["file"] == names[number]
    assert "group" not in splits["test"].column_names


def test_one_table_per_split(tmp_path: Path) -> None:
    for name, rows in (("train", slice(0, 120)), ("valid", slice(120, 160)), ("test", slice(160, 200))):
        FRAME[rows].to_csv(tmp_path / f"{name}.csv", index=False)
    splits = load_own(tmp_path, text="report", label="finding")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 120, "validation": 40, "test": 40}
    assert splits["test"]["text"][:] == FRAME["report"][160:].tolist()
    (tmp_path / "valid.csv").unlink()
    splits = load_own(tmp_path, text="report", label="finding", validation_share=0.25)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 90, "validation": 30, "test": 40}
    FRAME.drop(columns="age").to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(InvalidInputError, match="'age' is not in all of them"):
        load_own(tmp_path, text="report", label="finding")
    (tmp_path / "test.csv").rename(tmp_path / "more.csv")
    with pytest.warns(DataWarning, match=r"more\.csv left out"):
        load_own(tmp_path, text="report", label="finding")
    (tmp_path / "train.csv").rename(tmp_path / "most.csv")
    with pytest.raises(InvalidInputError, match=r"several tables \(more\.csv, most\.csv\): name the one"):
        load_own(tmp_path, text="report", label="finding")


@pytest.mark.parametrize("name", ["split", "fold"])
@pytest.mark.parametrize("words", [["train", "val", "test"], ["Training", "dev", "TEST"], [0, 1, 2]])
def test_a_column_of_splits_is_respected(name: str, words: list[Any], tmp_path: Path) -> None:
    FRAME.assign(**{name: [words[min(i % 10 // 7, 2) if i % 10 < 9 else 2] for i in range(200)]}).to_csv(
        tmp_path / "scans.csv", index=False
    )
    options = {} if name == "split" else {"split": name}
    splits = load_own(tmp_path / "scans.csv", text="report", label="finding", **options)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 140, "validation": 40, "test": 20}
    assert splits["test"]["text"][:] == FRAME["report"][9::10].tolist()
    assert name not in splits["test"].column_names


Z = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)


def _latents(kind: str, folder: Path) -> Any:
    y = FRAME["finding"].to_numpy(dtype="U9")
    if kind == "npz":
        np.savez(folder / "latents.npz", Z=Z, y=y, scanner=FRAME["scanner"].to_numpy(dtype="U1"))
        return folder / "latents.npz"
    frame = pd.DataFrame({"y": y, "scanner": FRAME["scanner"]})
    if kind == "parquet, vectors":
        frame.assign(Z=list(Z)).to_parquet(folder / "latents.parquet")
        return folder / "latents.parquet"
    columns = pd.concat([frame, pd.DataFrame(Z, columns=[f"z{i}" for i in range(6)])], axis=1)
    if kind == "parquet, columns":
        columns.to_parquet(folder / "latents.parquet")
        return folder / "latents.parquet"
    if kind == "csv, columns":
        columns.to_csv(folder / "latents.csv", index=False)
        return folder / "latents.csv"
    return Dataset.from_dict({"y": y.tolist(), "scanner": FRAME["scanner"].tolist(), "features": Z.tolist()})


@pytest.mark.parametrize("kind", ["npz", "parquet, vectors", "parquet, columns", "csv, columns", "dataset"])
def test_latents_of_every_kind(kind: str, tmp_path: Path) -> None:
    splits = load_own(_latents(kind, tmp_path), attribute="scanner", test_share=0.3)
    rows = np.concatenate([np.asarray(part["features"][:], dtype=np.float32) for part in splits.values()])
    assert rows.shape == (200, 6)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, Z.tolist()))
    assert splits["train"].features["features"].length == 6
    assert splits["train"].features["label"].names == ["benign", "malignant"]


def test_numeric_columns_as_features() -> None:
    frame = FRAME.assign(dose=np.linspace(0, 1, 200), smoker=np.arange(200) % 3 == 0)
    named = load_own(frame, label="finding", features=["age", "smoker"])["train"]
    assert np.asarray(named["features"][:]).shape[1] == 2
    assert set(np.asarray(named["features"][:])[:, 1]) == {0.0, 1.0}
    every = load_own(frame.drop(columns="case"), label="finding", features="all")["train"]
    assert every.features["features"].length == 3  # age, dose, smoker
    assert "dose" not in every.column_names


def test_objects_of_datasets_keep_their_names_and_their_pictures_closed() -> None:
    opened = {"bytes": b"not an image", "path": None}
    rows = {"picture": [opened] * 60, "verdict": [i % 2 for i in range(60)], "kind": [i // 2 % 2 for i in range(60)]}
    part = Dataset.from_dict(rows).cast_column("picture", datasets.Image())
    part = part.cast_column("verdict", ClassLabel(names=["z last", "a first"]))
    data = load_own(part, image="picture", label="verdict", attribute="kind", test_share=0.7)
    assert data["train"].features["label"].names == ["z last", "a first"]
    assert data["train"].features["image"] == datasets.Image()
    assert load_own(part, label="verdict")["train"].features["image"] == datasets.Image()
    splits = DatasetDict({"train": part, "valid": part, "test": part, "unsupervised": part})
    with pytest.warns(DataWarning, match="unsupervised are neither train, validation nor test"):
        loaded = load_own(splits, image="picture", label="verdict")
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 60, "validation": 60, "test": 60}


@pytest.mark.parametrize("form", ["arrays", "deep arrays", "lists", "Pillow", "bytes", "bytes and path"])
def test_pictures_in_the_table_itself(form: str) -> None:
    arrays = [np.full((2, 3, 3), i, np.uint8) for i in range(200)]
    ramps = [np.array([[0, 500, 1000 + i]], np.uint16) for i in range(200)]
    files = encode_png(arrays)
    column: list[Any] = {
        "arrays": arrays,
        "deep arrays": ramps,
        "lists": [array.tolist() for array in arrays],
        "Pillow": [Image.fromarray(array) for array in arrays],
        "bytes": files,
        "bytes and path": [{"bytes": file, "path": None} for file in files],
    }[form]
    splits = load_own(FRAME.assign(path=column), image="path", label="finding")
    assert "path" not in splits["train"].column_names
    if form == "deep arrays":
        assert np.asarray(splits["test"][0]["image"])[0, :, 0].max() == 255
    else:
        assert _one(splits) == WANTED


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(name: str, **options: Any) -> DatasetDict:
        asked.append((name, options))
        return DatasetDict({"train": Dataset.from_pandas(FRAME)})

    monkeypatch.setattr(datasets, "load_dataset", fake)
    splits = load("somebody/scans", "inner", text="report", label="finding", revision="r1")
    assert asked == [("somebody/scans", {"data_dir": "inner", "revision": "r1"})]
    assert sum(map(len, splits.values())) == 200


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(DataNotFoundError, match=r"scans\.csv is missing"):
        load_own("scans.csv")
    columns = r"'file' \(pictures\), 'finding' \(classes\), 'fold'"
    wanted = rf"scans\.csv is missing; wanted is a table with the columns {columns}"
    with pytest.raises(DataNotFoundError, match=wanted):
        load_own("scans.csv", image="file", label="finding", split="fold")
    with pytest.raises(
        DataNotFoundError, match=r"'no/such-data': it is no local folder or file .* and the Hub did not"
    ):
        load_own("no/such-data")
    with pytest.raises(InvalidInputError, match="got list"):
        load_own([1, 2])
    with pytest.raises(InvalidInputError, match=r"IterableDataset.*stream must be read first"):
        load_own(Dataset.from_pandas(FRAME).to_iterable_dataset())
    with pytest.raises(InvalidInputError, match="is a folder"):
        from_table(os.fspath(Path(__file__).parent), label="x")


def test_a_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AIFSError, match="Needed is a table"):
        load_own(tmp_path / "empty")


def test_what_is_own() -> None:
    assert is_own(FRAME)
    assert is_own("owner/name")
    assert is_own("scans.csv.gz")
    assert is_own(os.fspath(Path(__file__).parent))
    assert not is_own("celeba")
    assert not is_own("celebb")
    with pytest.raises(InvalidInputError, match="did you mean 'label'"):
        load("scans.csv", lable="x")


def test_the_doctor_reads_own_tables(tmp_path: Path) -> None:
    write_pictures(tmp_path, FRAME["path"].tolist())
    FRAME.assign(scanner=FRAME["scanner"].mask(FRAME.index == 3)).to_csv(tmp_path / "scans.csv", index=False)
    options = {"image": "path", "label": "finding", "attribute": "scanner"}
    report = check_data_set(str(tmp_path / "scans.csv"), **options)
    assert report.ok
    assert "malignant x B" in report.table
    assert any("missing in 1 of 200 rows (row 3)" in note for note in report.notes)
    assert any("fewer than 10 test examples" in note for note in report.notes)
    assert any("all 200 pictures can be read" in note for note in report.notes)
    raw = (tmp_path / "images" / "007.png").read_bytes()
    (tmp_path / "images" / "007.png").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "images" / "011.png").write_text("no picture")
    report = check_data_set(str(tmp_path / "scans.csv"), **options)
    assert len(report.problems) == 2
    assert all(re in " ".join(report.problems) for re in ("007.png", "011.png"))
    plain = check_data_set(str(tmp_path), text="report", label="finding")
    assert plain.table.splitlines()[0].split() == ["class", "train", "validation", "test"]
    (tmp_path / "images" / "012.png").unlink()
    missing = check_data_set(str(tmp_path), **options)
    assert "missing in 1 of 200 rows (row 12)" in missing.problems[0]


def test_groups_are_as_before_where_they_are_ready_made() -> None:
    frame = FRAME.assign(kind=np.arange(200) % 3)
    splits = load_own(frame, text="report", label="finding", group="kind", test_share=0.3)
    assert set(np.concatenate([group_array(part) for part in splits.values()])) == {0, 1, 2}
    assert splits["train"].features["group"].names == ["0", "1", "2"]
    assert "attribute" not in splits["train"].column_names
    with pytest.raises(InvalidInputError, match="attribute or group"):
        load_own(frame, text="report", label="finding", group="kind", attribute="scanner")
