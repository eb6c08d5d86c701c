"""The user's own data: columns renamed, labels encoded, missing splits cut, errors with a remedy."""

from pathlib import Path

import numpy as np
import pytest
from datasets import disable_progress_bars
from PIL import Image

from aifs_peft.data.custom import load_custom
from aifs_peft.errors import InvalidInputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write_texts(folder: Path, n: int = 60) -> Path:
    folder.mkdir()
    rows = [f"text {i},{'yes' if i % 3 else 'no'},{i % 2}" for i in range(n)]
    (folder / "train.csv").write_text("\n".join(["sentence,verdict,kind", *rows]) + "\n")
    return folder


def test_texts_with_own_column_names(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "texts")
    splits = load_custom(folder, text="sentence", label="verdict", group="kind")
    assert set(splits) == {"train", "validation", "test"}
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 43, "validation": 5, "test": 12}
    assert splits["train"].features["label"].names == ["no", "yes"]
    texts = [text for rows in splits.values() for text in rows["text"]]
    assert sorted(texts) == sorted(f"text {i}" for i in range(60))
    for rows in splits.values():
        for text, label, group in zip(rows["text"], rows["label"], rows["group"], strict=True):
            number = int(text.split()[1])
            assert label == int(number % 3 != 0)
            assert group == number % 2


def test_images_in_class_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / "train" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / "train" / name / f"{i}.png")
    splits = load_custom(tmp_path / "images", validation_share=0.25)
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert splits["test"][0]["image"].size == (8, 8)


def test_missing_column_names_what_there_is(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "texts")
    with pytest.raises(InvalidInputError, match=r"no column 'label'.*sentence.*--dataset-options"):
        load_custom(folder, text="sentence")
    with pytest.raises(InvalidInputError, match="for the group"):
        load_custom(folder, text="sentence", label="verdict", group="nothing")


def test_a_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"no local folder that datasets\.load_dataset reads"):
        load_custom(tmp_path / "empty")
