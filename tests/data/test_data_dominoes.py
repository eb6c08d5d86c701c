"""Dominoes from passed sources, from CIFAR's binary files, and as precomputed latents."""

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aifs_peft.data import group_array, group_spec, load
from aifs_peft.errors import DataNotFoundError, InvalidInputError


def _source(value, n_train=120, n_test=60, size=6, classes=3, colour=False):
    """Constant images: the grey level tells the source and the label, the first pixel the running number."""
    parts = {}
    for split, n in (("train", n_train), ("test", n_test)):
        label = np.arange(n) % classes
        images = np.zeros((n, size, size), dtype=np.uint8) + (value + label * 10)[:, None, None].astype(np.uint8)
        images[:, 0, 0] = np.arange(n)
        parts[split] = (np.repeat(images[..., None], 3, axis=-1) if colour else images, label)
    return parts


TOP, BOTTOM = _source(100, size=4), _source(10, size=6, colour=True)
BOTH = {"top": TOP, "bottom": BOTTOM, "top_classes": (0, 2), "bottom_classes": (2, 1)}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), test=st.floats(0, 1), seed=st.integers(0, 3))
def test_requested_share_equals_measured_and_pictures_are_stacked(share, test, seed):
    data = load("dominoes", **BOTH, aligned=share, aligned_test=test, seed=seed)
    for split, wanted in (("train", share), ("validation", share), ("test", test)):
        part = data[split]
        label, attribute = np.asarray(part["label"][:]), np.asarray(part["attribute"][:])
        assert abs((label == attribute).mean() - wanted) <= 0.5 / len(part) + 1e-9
        images = np.stack([np.asarray(i) for i in part["image"]])
        assert images.shape[1:] == (12, 6, 3)
        # The middle of each half shows which picture it is; the smaller upper one is padded with black.
        assert np.array_equal(images[:, 3, 3, 0], 100 + 10 * np.array([0, 2])[attribute])
        assert np.array_equal(images[:, 9, 3, 0], 10 + 10 * np.array([2, 1])[label])
        assert not images[:, 0].any()


def test_lower_pictures_are_used_once_and_upper_ones_stay_in_their_split():
    data = load("dominoes", **BOTH)
    images = {s: np.stack([np.asarray(i) for i in p["image"]]) for s, p in data.items()}
    lower = {s: [(a, b) for a, b in zip(x[:, 6, 0, 0], x[:, 9, 3, 0], strict=True)] for s, x in images.items()}
    upper = {s: {(a, b) for a, b in zip(x[:, 1, 1, 0], x[:, 3, 3, 0], strict=True)} for s, x in images.items()}
    assert all(len(set(rows)) == len(rows) for rows in lower.values())
    assert not set(lower["train"]) & set(lower["validation"])
    assert not upper["train"] & upper["validation"]
    assert [len(p) for p in data.values()] == [64, 16, 40]


def test_real_digits_as_both_sources(shared_dir):
    arrays = {}
    for split in ("train", "test"):
        with np.load(shared_dir / "data" / "mnist" / f"{split}.npz") as file:
            arrays[split] = (file["x"][:3000], file["y"][:3000].astype(np.int64))
    data = load(
        "dominoes", top=arrays, bottom=arrays, bottom_classes=(7, 8), bottom_names=("seven", "eight"), n_test=100
    )
    assert group_spec(data).names == ("seven x top 0", "seven x top 1", "eight x top 0", "eight x top 1")
    assert data["test"][0]["image"].size == (28, 56)
    assert len(data["test"]) == 100


@pytest.fixture
def official(tmp_path, shared_dir):
    """CIFAR's binary files with generated pictures, next to a few real digits."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        records = rng.integers(0, 256, (60, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(60) % 10
        records[:, 1:1025] = 200  # the red plane comes first
        (folder / name).write_bytes(records.tobytes())
    (tmp_path / "mnist").mkdir()
    for split in ("train", "test"):
        with np.load(shared_dir / "data" / "mnist" / f"{split}.npz") as file:
            np.savez(tmp_path / "mnist" / f"{split}.npz", x=file["x"][:500], y=file["y"][:500])
    return tmp_path


def test_cifar_binary_files_are_read(official):
    data = load("dominoes", official)
    assert group_spec(data).classes == ("automobile", "truck")
    assert [len(p) for p in data.values()] == [48, 12, 12]
    image = np.asarray(data["train"][0]["image"])
    assert image.shape == (64, 32, 3)
    assert (image[32:, :, 0] == 200).all()
    assert image[32:, :, 1].std() > 50
    (official / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(InvalidInputError, match="records of 3,073 bytes"):
        load("dominoes", official)
    (official / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(DataNotFoundError, match=r"data_batch_4\.bin is missing"):
        load("dominoes", official)


def test_the_hub_is_asked_for_both_sources(monkeypatch):
    asked = []

    def fake(name, revision, **options):
        asked.append(name)
        column = "img" if "cifar" in name else "image"
        size = 32 if "cifar" in name else 28
        features = datasets.Features({column: datasets.Image(), "label": datasets.Value("int64")})
        rows = {column: [np.full((size, size), i, np.uint8) for i in range(60)], "label": [i % 10 for i in range(60)]}
        if "cifar" in name:
            rows[column] = [np.repeat(i[..., None], 3, axis=-1) for i in rows[column]]
        part = datasets.Dataset.from_dict(rows, features=features)
        return datasets.DatasetDict(train=part, test=part)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    data = load("dominoes")
    assert asked == ["ylecun/mnist", "uoft-cs/cifar10"]
    assert data["train"][0]["image"].size == (32, 64)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"top_classes": (0,)}, "same number of different labels"),
        ({"bottom_classes": (1, 1)}, "same number of different labels"),
        ({"bottom_classes": (1, 7)}, "bottom\\['train'\\] lacks one of the labels"),
        ({"top": {"train": TOP["train"]}}, "top must hold 'train' and 'test'"),
        ({"top": {**TOP, "test": (np.zeros((3, 4, 4)), np.zeros(3))}}, "must be uint8 images"),
        ({"aligned": 2}, "aligned must be a share"),
        ({"aligned_test": 2}, "aligned test must be a share"),
        ({"validation_share": 1.0}, "validation_share must lie in"),
        ({"validation_share": 0.001}, "would be empty"),
        ({"n_train": 1000}, r"n_train must lie in 1\.\.80"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, match):
    with pytest.raises(InvalidInputError, match=match):
        load("dominoes", **{**BOTH, **options})


def test_an_exhausted_upper_source_is_refused():
    top = {**TOP, "train": (TOP["train"][0][:3], TOP["train"][1][:3])}
    with pytest.raises(InvalidInputError, match=r"no upper picture of|would be empty"):
        load("dominoes", **{**BOTH, "top": top})


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.99])
def test_latents_follow_the_chosen_attribute(shared_dir, share):
    folder = shared_dir / "data" / "dominoes_latents"
    data = load("dominoes_latents", folder, aligned=share)
    assert [len(p) for p in data.values()] == [4000, 1000, 2000]
    for split, wanted in (("train", share), ("validation", share), ("test", 0.5)):
        part = data[split]
        follows = np.asarray(part["label"][:]) == np.asarray(part["attribute"][:])
        assert abs(follows.mean() - wanted) <= 0.5 / len(part) + 1e-9
        assert np.bincount(group_array(part), minlength=4).sum() == len(part)
    if share == 0.5:
        with np.load(folder / "test.npz") as file:
            z = file["z"]
        row = data["test"][11]
        assert np.array_equal(np.asarray(row["features"], np.float32), z[11, row["attribute"]].astype(np.float32))


def test_latent_files_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"train\.npz is missing"):
        load("dominoes_latents", tmp_path)
    np.savez(tmp_path / "train.npz", z=np.zeros((3, 4)), y=np.zeros(3))
    with pytest.raises(InvalidInputError, match=r"needs z \(n, 2, d\)"):
        load("dominoes_latents", tmp_path)
    with pytest.raises(InvalidInputError, match="validation_share must lie in"):
        load("dominoes_latents", tmp_path, validation_share=0)
