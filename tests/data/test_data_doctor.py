"""`aifs doctor --dataset`: the group table of a sound copy, and what is missing or wrong in another."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from latents_npz import write_latents
from PIL import Image
from wilds_csv import write_wilds

from aifs_peft.cli import main
from aifs_peft.data import celeba, describe, group_spec, load
from aifs_peft.data.doctor import check_data_set
from aifs_peft.errors import InvalidInputError


def _waterbirds(folder, balanced):
    n = 240
    i = np.arange(n)
    y, split = i % 2, i // 80
    conflicting = (i // 2) % 2 if balanced else (i % 20 >= 18)
    place = np.where(split == 1, np.where(conflicting, 1 - y, y), np.where(i % 20 >= 18, 1 - y, y))
    names = [f"{k}.png" for k in range(n)]
    columns = {"img_id": i, "img_filename": names, "y": y, "split": split, "place": place, "place_filename": names}
    pd.DataFrame(columns).to_csv(folder / "metadata.csv", index=False)
    for name in names:
        Image.new("RGB", (2, 2)).save(folder / name)


def test_a_sound_copy_shows_card_and_counts(tmp_path, capsys):
    write_wilds(tmp_path)
    assert (
        main(["doctor", "--dataset", "civilcomments", "--data-dir", str(tmp_path), "--option", '{"max_per_split": 9}'])
        == 0
    )
    out = capsys.readouterr().out
    data = load("civilcomments", tmp_path, max_per_split=9)
    assert group_spec(data).table(data) in out
    card = describe("civilcomments")
    assert card.source in out
    assert card.layout in out
    assert "publishes no checksums" in out


def test_what_is_missing_is_named_and_the_status_is_one(tmp_path, capsys):
    write_latents(tmp_path)
    (tmp_path / "test.npz").unlink()
    assert main(["doctor", "--dataset", "dominoes_latents", "--data-dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"problem: dominoes_latents: {tmp_path / 'test.npz'} is missing. Get it from" in out
    assert "group  " not in out
    assert main(["doctor", "--dataset", "compas"]) == 1
    assert "data_dir was not given" in capsys.readouterr().out


def test_calls_that_cannot_be_meant(capsys):
    assert main(["doctor", "--dataset", "celeb"]) == 2
    assert "did you mean 'celeba'?" in capsys.readouterr().err
    for wrong in ("{", "[1]"):
        assert main(["doctor", "--dataset", "compas", "--option", wrong]) == 2
    assert "JSON" in capsys.readouterr().err
    assert main(["doctor", "--dataset", "spurious_scenes", "--option", json.dumps({"n_trian": 4})]) == 1
    assert "did you mean 'n_train'?" in capsys.readouterr().out


def test_published_checksums_are_compared(tmp_path, monkeypatch):
    names = {}
    rng = np.random.default_rng(0)
    for split, prefix, n in (("train", "train", 40), ("test", "t10k", 20)):
        np.savez(tmp_path / f"{split}.npz", x=rng.integers(0, 255, (n, 28, 28), dtype=np.uint8), y=np.arange(n) % 10)
        names[f"{prefix}-images-idx3-ubyte.gz"] = b"images " + split.encode()
    for name, content in names.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "train-images-idx3-ubyte.gz").rename(tmp_path / "aside")
    options = {"n_train": 20, "n_validation": 20}
    report = check_data_set("colored_mnist", tmp_path, **options)
    assert not report.ok
    assert report.table  # the .npz files are read all the same
    found = hashlib.md5(names["t10k-images-idx3-ubyte.gz"], usedforsecurity=False).hexdigest()
    assert f"t10k-images-idx3-ubyte.gz has MD5 {found}, the published file has" in report.problems[0]
    monkeypatch.setitem(describe("colored_mnist").md5, "t10k-images-idx3-ubyte.gz", found)
    report = check_data_set("colored_mnist", tmp_path, **options)
    assert report.ok
    assert "t10k-images-idx3-ubyte.gz: MD5 agrees with the published one" in report.notes


def test_the_cards_carry_what_the_sources_publish():
    assert describe("celeba").md5 == celeba.MD5
    assert len(describe("colored_mnist").md5) == len(describe("dominoes").md5) == 4
    assert all(len(value) == 32 for name in ("celeba", "dominoes") for value in describe(name).md5.values())


def test_a_picture_that_cannot_be_read_is_a_problem(tmp_path):
    _waterbirds(tmp_path, balanced=False)
    (tmp_path / "159.png").write_bytes(b"no picture")  # the last one of validation
    report = check_data_set("waterbirds", tmp_path)
    assert not report.ok
    assert "example 79 of validation cannot be read (cannot identify image file" in report.problems[0]


def test_a_validation_split_that_is_secretly_balanced_is_noted(tmp_path):
    for balanced in (False, True):
        folder = tmp_path / str(balanced)
        folder.mkdir()
        _waterbirds(folder, balanced)
        notes = check_data_set("waterbirds", folder).notes
        assert any("validation is not drawn like train (40% of it" in note for note in notes) == balanced


def test_groups_without_an_example_are_noted():
    small = {"n_train": 40, "n_validation": 20, "n_test": 20, "image_size": 16}
    assert check_data_set("spurious_scenes", aligned=0.9, **small).notes == ()
    (first, second) = check_data_set("spurious_scenes", aligned=1.0, **small).notes
    assert first == "train has no example of benign x cross mark, malignant x ring mark"
    assert second.startswith("validation has no example of")
    with pytest.raises(InvalidInputError, match="no data set"):
        check_data_set("spurious_scene_")
