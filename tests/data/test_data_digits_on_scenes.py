"""Digits on scenes: exact shares, balance, disjoint digits, determinism, independence of photograph and drawing."""

import numpy as np
import pytest

from aifs_peft.data.digits_on_scenes import (
    GROUP_NAMES,
    PER_CLASS,
    SIZE,
    compose,
    load_digits_on_scenes,
    place,
    split_rows,
)
from aifs_peft.data.groups import spec_of
from aifs_peft.errors import InvalidInputError


@pytest.fixture(scope="module")
def splits():
    return load_digits_on_scenes(seed=3)


def column(part, name):
    return np.asarray(part[name])


def test_columns_sizes_and_images(splits):
    assert list(splits) == ["train", "validation", "test"]
    assert [len(splits[s]) for s in splits] == [1200, 240, 680]
    for part in splits.values():
        assert set(part.column_names) == {"image", "label", "attribute", "group", "digit", "source"}
        assert part.features["group"].names == list(GROUP_NAMES)
        image = part[0]["image"]
        assert image.size == (SIZE, SIZE)
        assert image.mode == "RGB"
        # Nothing on disk: the image's bytes are in the table.
        assert part.data.column("image")[0].as_py()["path"] is None
    assert spec_of(splits).names == GROUP_NAMES


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 1.0])
def test_the_requested_share_is_the_measured_one_in_every_class(share):
    splits = load_digits_on_scenes(seed=1, aligned_share=share)
    for name in ("train", "validation"):
        label, attribute = column(splits[name], "label"), column(splits[name], "attribute")
        for c in range(2):
            assert (attribute[label == c] == c).mean() == pytest.approx(share, abs=0.5 / PER_CLASS[name])


def test_the_test_shows_every_digit_once_on_each_photograph(splits):
    test = splits["test"]
    assert np.bincount(column(test, "group")).tolist() == [PER_CLASS["test"]] * 4
    shown = {tuple(pair) for pair in zip(test["source"], test["attribute"], strict=True)}
    assert shown == {(s, a) for s in set(test["source"]) for a in range(2)}


def test_columns_agree_with_scikit_learns_digits(splits):
    from sklearn.datasets import load_digits

    target = load_digits().target
    for part in splits.values():
        assert (column(part, "digit") == target[column(part, "source")]).all()
        assert (column(part, "label") == (column(part, "digit") >= 5)).all()
        assert (column(part, "group") == 2 * column(part, "label") + column(part, "attribute")).all()


def test_no_handwritten_digit_is_in_two_splits(splits):
    rows = {name: set(part["source"]) for name, part in splits.items()}
    assert {name: len(r) for name, r in rows.items()} == {k: 2 * v for k, v in PER_CLASS.items()}
    assert not rows["train"] & rows["validation"]
    assert not rows["train"] & rows["test"]
    assert not rows["validation"] & rows["test"]


def test_the_seed_decides_everything(splits):
    again, other = load_digits_on_scenes(seed=3), load_digits_on_scenes(seed=4)
    for name in splits:
        table = splits[name].data.table
        assert table.equals(again[name].data.table)
        assert not table.equals(other[name].data.table)


def test_odd_against_even():
    splits = load_digits_on_scenes(task="odd")
    assert (column(splits["test"], "label") == column(splits["test"], "digit") % 2).all()
    assert splits["test"].features["label"].names == ["even digit", "odd digit"]


def test_a_digit_is_placed_inside_the_image_with_its_ink():
    digits = np.ones((200, 8, 8), dtype=np.float32)
    placed = place(digits, np.random.default_rng(0))
    assert placed.shape == (200, SIZE, SIZE)
    assert placed.min() >= 0
    assert placed.max() == pytest.approx(1.0, abs=1e-6)
    # Enlarged 2.6 to 3.2 times: an area of 64 becomes 432 to 656 (up to rounding), and nothing touches the border.
    area = placed.sum(axis=(1, 2))
    assert area.min() > 420
    assert area.max() < 665
    handwritten = np.zeros((200, 8, 8), dtype=np.float32)
    handwritten[:, 1:7, 2:6] = 1
    placed = place(handwritten, np.random.default_rng(1))
    edge = np.concatenate([placed[:, 0], placed[:, -1], placed[:, :, 0], placed[:, :, -1]], axis=1)
    assert edge.max() == 0


def test_the_photograph_lies_behind_the_digit():
    red, blue = (np.broadcast_to(np.array(c, dtype=np.float32), (50, 60, 3)) for c in ([1, 0, 0], [0, 0, 1]))
    photo = np.array([0, 1, 1, 0])
    blank = np.zeros((4, 8, 8), dtype=np.float32)
    images = compose(blank, [[red], [blue]], photo, np.random.default_rng(0), contrast=0.6)
    # Dimmed to 40 %: 255 * 0.4 = 102.
    assert images[photo == 0].reshape(-1, 3).tolist() == [[102, 0, 0]] * (2 * SIZE * SIZE)
    assert images[photo == 1].reshape(-1, 3).tolist() == [[0, 0, 102]] * (2 * SIZE * SIZE)


def test_the_digit_is_drawn_alike_on_both_photographs():
    splits = load_digits_on_scenes(seed=0, contrast=1.0)
    images = np.stack([np.asarray(x) for x in splits["test"]["image"]]).astype(float)
    on_flower = column(splits["test"], "attribute") == 1
    # With the photographs dimmed to black only the digits are left: their ink must not tell the photographs apart.
    ink = images.mean(axis=(1, 2, 3))
    error = np.sqrt(2 * ink.var() / (len(ink) / 2))
    assert abs(ink[on_flower].mean() - ink[~on_flower].mean()) < 4 * error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dir": "somewhere"}, "embedded and reads no files.*leave it out"),
        ({"aligned_share": 1.2}, r"aligned_share must be a share in \[0, 1\]"),
        ({"contrast": -0.1}, r"contrast must be a share in \[0, 1\]"),
        ({"task": "prime"}, "task must be one of .*high.*odd"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InvalidInputError, match=message):
        load_digits_on_scenes(**options)


def test_too_few_digits():
    with pytest.raises(InvalidInputError, match=r"need 890 handwritten digits of each class; got \[900, 10\]"):
        split_rows(np.repeat([0, 1], [900, 10]), np.random.default_rng(0))
