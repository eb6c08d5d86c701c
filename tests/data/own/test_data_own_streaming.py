"""Own data with a streamed training split: the same rows as `load_own` gives, held without what a model reads."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from PIL import Image

from aifs_peft.data import group_spec, load_own
from aifs_peft.data.own import streaming
from aifs_peft.data.own.streaming import stream_own
from aifs_peft.errors import DataNotFoundError, InvalidInputError

RNG = np.random.default_rng(0)
SIZES = {"train": 90, "validation": 30, "test": 100}
Z = {name: RNG.normal(size=(n, 4)).astype(np.float32) for name, n in SIZES.items()}


def table(name: str) -> pd.DataFrame:
    rng = np.random.default_rng(len(name))
    n = SIZES[name]
    return pd.DataFrame(
        {
            "text": [f"{name} {i}" for i in range(n)],
            "finding": np.array(["01", "2"])[rng.integers(0, 2, n)],
            "site": np.array(["A", "B"])[rng.integers(0, 2, n)],
            "age": rng.integers(20, 80, n),
        }
    )


def write(kind: str, folder: Path) -> dict[str, str]:
    """The tables in a folder, and the option that says what a model reads."""
    for name in SIZES:
        rows = table(name)
        if kind in ("csv", "json"):
            rows.to_csv(folder / f"{name}.csv", index=False) if kind == "csv" else rows.to_json(
                folder / f"{name}.jsonl", orient="records", lines=True
            )
        elif kind == "vectors":
            rows.assign(Z=list(Z[name])).drop(columns="text").to_parquet(folder / f"{name}.parquet")
        elif kind == "parts":
            for i in range(2):
                path = folder / f"{name}-{i:05d}-of-00002.parquet"
                rows.iloc[i * len(rows) // 2 : (i + 1) * len(rows) // 2].to_parquet(path)
        elif kind == "paths":
            (folder / "p").mkdir(exist_ok=True)
            rows["text"] = [f"p/{name}{i}.png" for i in range(len(rows))]
            for i, path in enumerate(rows["text"]):
                Image.new("RGB", (4, 3), (i, 0, 0)).save(folder / path)
            rows.rename(columns={"text": "path"}).to_csv(folder / f"{name}.csv", index=False)
    return {"vectors": {"features": "Z"}, "paths": {"image": "path"}}.get(kind, {"text": "text"})


pytestmark = pytest.mark.filterwarnings("ignore:.*fewer than 10 test examples")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several chunks for each split."""
    monkeypatch.setattr(streaming, "CHUNK", 16)
    monkeypatch.setattr(streaming, "LIGHT_CHUNK", 32)


def content(values):
    return [v.getpixel((0, 0)) if isinstance(v, Image.Image) else v for v in values]


@pytest.mark.parametrize("kind", ["csv", "json", "parts", "vectors", "paths"])
def test_the_rows_are_those_of_load_own(kind: str, tmp_path: Path) -> None:
    option = write(kind, tmp_path)
    whole = load_own(tmp_path, label="finding", attribute="site", **option)
    found = stream_own(tmp_path, label="finding", attribute="site", **option)
    modality = {"vectors": "features", "paths": "image"}.get(kind, "text")
    assert found.modality == modality
    assert modality not in found.splits["train"].column_names
    assert group_spec(found.splits) is not None
    for _ in range(2):  # from the beginning each time
        given = [value for part in found.inputs() for value in part]
        assert content(given) == content(whole["train"][modality][:])
    for name, rows in whole.items():
        streamed = found.splits[name]
        assert streamed.features["label"].names == rows.features["label"].names == ["01", "2"]
        for column in ("label", "attribute", "group", "age", "site"):
            assert streamed[column][:] == rows[column][:], (name, column)
        if name != "train":
            assert content(streamed[modality][:]) == content(rows[modality][:])


def test_a_saved_data_set_with_pictures(tmp_path: Path) -> None:
    def part(n):
        pictures = [Image.new("RGB", (4, 3), (i, 0, 0)) for i in range(n)]
        rows = Dataset.from_dict({"image": pictures, "label": [i % 2 for i in range(n)]})
        return rows.cast_column("label", ClassLabel(names=["cat", "dog"]))

    DatasetDict({"train": part(40), "valid": part(8), "test": part(8)}).save_to_disk(tmp_path / "saved")
    found = stream_own(tmp_path / "saved")
    assert [v.getpixel((0, 0))[0] for p in found.inputs() for v in p] == list(range(40))
    assert found.splits["train"].features["label"].names == ["cat", "dog"]
    assert [v.getpixel((0, 0))[0] for v in found.splits["validation"]["image"]] == list(range(8))


def test_what_is_no_set_of_splits_is_refused(tmp_path: Path) -> None:
    table("train").to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(InvalidInputError, match=r"is one file, and cutting splits from it needs all of its rows"):
        stream_own(tmp_path / "train.csv", text="text")
    with pytest.raises(InvalidInputError, match=r"lacks validation, test, which are not cut"):
        stream_own(tmp_path, text="text", label="finding")
    pictures = tmp_path / "pictures"
    (pictures / "train" / "cat").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match=r"opened one by one anyway"):
        stream_own(pictures)
    table("test").to_parquet(tmp_path / "test.parquet")
    with pytest.raises(InvalidInputError, match=r"several kinds \(CSV, Parquet\)"):
        stream_own(tmp_path, text="text")
    with pytest.raises((DataNotFoundError, InvalidInputError)):
        stream_own(tmp_path / "nothing.csv", text="text")


def test_a_damaged_picture_is_told_with_its_place(tmp_path: Path) -> None:
    option = write("paths", tmp_path)
    (tmp_path / "p" / "train40.png").write_bytes(b"no picture")
    found = stream_own(tmp_path, label="finding", **option)
    with pytest.raises(InvalidInputError, match=r"counted from row 32 of the stream: .*row 8.*train40\.png"):
        list(found.inputs())


def test_a_missing_text_is_told_with_its_row(tmp_path: Path) -> None:
    for name in SIZES:
        rows = table(name)
        rows.loc[20 if name == "train" else 200, "text"] = ""
        rows.dropna().to_csv(tmp_path / f"{name}.csv", index=False)
    found = stream_own(tmp_path, text="text", label="finding")
    with pytest.raises(InvalidInputError, match=r"'text' is missing in 1 of 16 rows \(train: row 20\)"):
        list(found.inputs())
