"""Latents that lie in files: arrays of NumPy, Parquet in some files, saved data sets; large ones in blocks."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from aifs_peft import _rows
from aifs_peft.cli.audit import main as audit_command
from aifs_peft.data import load_own
from aifs_peft.data.own import matrices, sources
from aifs_peft.errors import InvalidInputError

RNG = np.random.default_rng(0)
N, WIDTH = 400, 6
Z = RNG.normal(size=(N, WIDTH)).astype(np.float32)
Y = RNG.integers(0, 2, N)
TABLE = pd.DataFrame({"label": np.array(["cat", "dog"])[Y], "site": np.array(["A", "B"])[RNG.integers(0, 2, N)]})


@pytest.fixture
def small(monkeypatch):
    """What counts as large, and what is kept in a file, is so small that these tests meet it."""
    monkeypatch.setattr(matrices, "LARGE", 100)
    monkeypatch.setattr(sources, "LARGE", 100)
    monkeypatch.setattr(matrices, "IN_MEMORY", 500)
    monkeypatch.setattr(_rows, "BLOCK_ROWS", 64)
    monkeypatch.setattr(matrices, "BLOCK_ROWS", 64)


def features(splits):
    """The vectors of all splits in their order, and the labels by name."""
    parts = [part.with_format("numpy") for part in splits.values()]
    labels = [splits[name].features["label"].int2str(int(i)) for name in splits for i in splits[name]["label"]]
    return np.concatenate([part["features"][:] for part in parts]), labels


@pytest.mark.parametrize("kind", ["arrays", "half precision", "arrays beside a table"])
def test_a_folder_of_arrays(kind: str, tmp_path: Path, small) -> None:
    values = Z.astype(np.float16) if kind == "half precision" else Z
    np.save(tmp_path / "Z.npy", values)
    if kind == "arrays beside a table":
        TABLE.to_csv(tmp_path / "rows.csv", index=False)
        np.save(tmp_path / "other.npy", np.zeros((3, 3)))  # of something else
    else:
        np.save(tmp_path / "y.npy", TABLE["label"].to_numpy(dtype="U3"))
        np.save(tmp_path / "site.npy", TABLE["site"].to_numpy(dtype="U1"))
    splits = load_own(tmp_path, split="none")
    found, labels = features(splits)
    assert np.array_equal(found, values.astype(np.float32))
    assert labels == TABLE["label"].tolist()
    assert splits["train"]["site"][:] == TABLE["site"].tolist()


def test_what_is_no_matrix_beside_a_table_is_left_out(tmp_path: Path) -> None:
    np.save(tmp_path / "Z.npy", Z)
    np.save(tmp_path / "notes.npy", np.array([{}], dtype=object))
    TABLE.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.warns(UserWarning, match=r"notes\.npy beside the table is left out"):
        splits = load_own(tmp_path, split="none")
    assert np.array_equal(features(splits)[0], Z)


def test_arrays_of_single_precision_are_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "Z.npy", Z)
    np.save(tmp_path / "y.npy", Y)
    column = load_own(tmp_path, split="none")["train"].data.column("features").chunk(0)
    stored = np.load(tmp_path / "Z.npy", mmap_mode="r+")
    stored[0, 0] = 77.0
    stored.flush()
    assert column[0].as_py()[0] == 77.0


@pytest.mark.parametrize("kind", ["float32", "float64", "fixed", "large lists"])
def test_large_columns_of_parquet_are_read_in_blocks(kind: str, tmp_path: Path, small) -> None:
    width = {"float64": pa.list_(pa.float64()), "fixed": pa.list_(pa.float32(), WIDTH)}.get(
        kind, pa.list_(pa.float32())
    )
    column = pa.array(Z.tolist(), type=pa.large_list(pa.float32()) if kind == "large lists" else width)
    table = pa.table({"latents": column, "label": TABLE["label"], "site": TABLE["site"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=150)
    found, labels = features(load_own(tmp_path / "a.parquet", split="none"))
    assert np.array_equal(found, Z)
    assert labels == TABLE["label"].tolist()
    # The same rows go where they go when the file is read cell by cell.
    cut = features(load_own(tmp_path / "a.parquet"))
    frame = TABLE.assign(latents=list(Z))
    wanted = features(load_own(frame))
    assert np.array_equal(cut[0], wanted[0])
    assert cut[1] == wanted[1]


def test_a_large_column_with_holes(tmp_path: Path, small) -> None:
    rows: list[list[float | None] | None] = [*Z.tolist()]
    rows[70] = [*rows[70][:-1], None]
    table = TABLE.assign(latents=rows)
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match=r"'latents' is missing in 1 of 400 rows \(row 70\)"):
        load_own(tmp_path / "a.parquet")
    with pytest.warns(UserWarning, match="1 of 400"):
        kept = load_own(tmp_path / "a.parquet", missing="drop", split="none")
    assert np.array_equal(features(kept)[0], np.delete(Z, 70, axis=0))


@pytest.mark.parametrize("row", [None, [1.0, 2.0]])
def test_a_large_column_without_one_length(row, tmp_path: Path, small) -> None:
    rows = [*Z.tolist()]
    rows[70] = row
    TABLE.assign(latents=rows).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match="vectors of one length; rows 64 to 127"):
        load_own(tmp_path / "a.parquet")


@pytest.mark.parametrize("pattern", ["latents-{:05d}-of-00003.parquet", "part_{}.parquet", "part-{}.csv"])
def test_one_table_in_several_files(pattern: str, tmp_path: Path, small, recwarn) -> None:
    table = TABLE.assign(latents=list(Z))
    if pattern.endswith("csv"):
        table = pd.concat([TABLE, pd.DataFrame(Z.astype(float), columns=[f"z{i}" for i in range(WIDTH)])], axis=1)
    for i in range(3):
        part = table.iloc[i * 150 : (i + 1) * 150]
        path = tmp_path / pattern.format(i)
        part.to_csv(path, index=False) if pattern.endswith("csv") else part.to_parquet(path)
    found, labels = features(load_own(tmp_path, split="none"))
    assert np.allclose(found, Z, atol=1e-6)
    assert labels == TABLE["label"].tolist()
    told = [str(warning.message) for warning in recwarn.list]
    assert any("read as one table" in text for text in told) == ("-of-" not in pattern)


def test_splits_in_several_files(tmp_path: Path, small) -> None:
    table = TABLE.assign(latents=list(Z))
    for i, name in enumerate(["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]):
        table.iloc[i * 130 : (i + 1) * 130].to_parquet(tmp_path / f"{name}.parquet")
    splits = load_own(tmp_path, split="none")
    assert {name: len(part) for name, part in splits.items()} == {"train": 260, "test": 130}
    assert np.array_equal(features(splits)[0], Z[:390])


def test_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    TABLE.assign(latents=list(Z)).to_parquet(tmp_path / "latents-00001-of-00003.parquet")
    with pytest.raises(InvalidInputError, match="1 of 3 files of the table 'latents' are there"):
        load_own(tmp_path)


def test_files_of_other_columns_are_no_one_table(tmp_path: Path) -> None:
    TABLE.assign(latents=list(Z)).to_parquet(tmp_path / "part-0-of-2.parquet")
    TABLE.to_parquet(tmp_path / "part-1-of-2.parquet")
    with pytest.raises(InvalidInputError, match="need the same columns; 'latents' is not in both"):
        load_own(tmp_path)


def test_a_saved_data_set_with_a_large_column(tmp_path: Path, small) -> None:
    rows = Dataset.from_dict({"latents": Z.tolist(), "label": Y.tolist(), "site": TABLE["site"].tolist()})
    rows.save_to_disk(tmp_path / "saved")
    found = load_own(tmp_path / "saved", split="none")
    assert np.array_equal(features(found)[0], Z)
    assert found["train"]["site"][:] == TABLE["site"].tolist()


def test_one_array_alone_has_no_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "Z.npy", Z)
    with pytest.raises(InvalidInputError, match=r"holds one array; needed are labels, too. .*y\.npy"):
        load_own(tmp_path / "Z.npy")


def test_arrays_of_objects_are_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "Z.npy", Z)
    np.save(tmp_path / "y.npy", np.array([{}] * N, dtype=object))
    with pytest.raises(InvalidInputError, match=r"y\.npy cannot be read as an array of NumPy"):
        load_own(tmp_path)


def test_the_command_audits_a_folder_of_arrays(tmp_path: Path, capsys) -> None:
    """What `aifs audit` says of a memory map is what it says of the same table in Parquet, to the last digit."""
    mark = np.where(RNG.random(N) < 0.92, Y, 1 - Y)
    latents = RNG.normal(size=(N, 8)).astype(np.float32)
    latents[:, 0] += 8 * mark
    latents[:, 1] += 2 * Y
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "Z.npy", latents)
    np.save(folder / "y.npy", Y)
    np.save(folder / "site.npy", mark)
    pd.DataFrame({"Z": list(latents), "y": Y, "site": mark}).to_parquet(tmp_path / "table.parquet")
    told = []
    for source in (folder, tmp_path / "table.parquet"):
        assert audit_command([str(source), "--json", "--quiet", "--output-dir", str(tmp_path / "run")]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["found"]
    assert told[0] == told[1]
