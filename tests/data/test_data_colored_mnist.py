"""Colored MNIST on the real digits: shares as requested, splits disjoint, images painted."""

import gzip
import hashlib
import struct

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aifs_peft.data import group_spec, load
from aifs_peft.data.colored_mnist import COLOURS, paint
from aifs_peft.data.sources import MNIST_LAYOUT
from aifs_peft.errors import DataNotFoundError, InvalidInputError

SMALL = {"n_train": 1000, "n_validation": 400, "n_test": 400}


@pytest.fixture(scope="module")
def tiny_mnist(tmp_path_factory):
    """A folder in the npz layout with 500 + 200 drawn digits: the property tests load it many times."""
    folder = tmp_path_factory.mktemp("tiny_mnist")
    rng = np.random.default_rng(0)
    for split, n in (("train", 500), ("test", 200)):
        x = rng.integers(0, 256, (n, 4, 4), dtype=np.uint8)
        np.savez(folder / f"{split}.npz", x=x, y=rng.integers(0, 10, n).astype(np.uint8))
    return folder


def _column(part, name):
    return np.asarray(part[name][:])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    aligned=st.floats(0.5, 0.995),
    test=st.floats(0, 1),
    noise=st.floats(0, 0.5),
    seed=st.integers(0, 5),
)
def test_ten_requested_shares_equal_measured(tiny_mnist, aligned, test, noise, seed):
    data = load("colored_mnist", tiny_mnist, aligned=aligned, aligned_test=test, label_noise=noise, seed=seed)
    for split, share in (("train", aligned), ("validation", aligned), ("test", test)):
        label, colour = _column(data[split], "label"), _column(data[split], "attribute")
        n = len(label)
        assert abs((label == colour).mean() - share) <= 0.5 / n + 1e-9
        assert abs((label != _column(data[split], "clean_label")).mean() - noise) <= 0.5 / n + 1e-9
        assert np.array_equal(_column(data[split], "group"), label * 10 + colour)
        assert np.array_equal(_column(data[split], "clean_label"), _column(data[split], "digit"))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.tuples(st.floats(0, 0.4), st.floats(0.41, 1)), test=st.floats(0, 1), noise=st.floats(0, 0.5))
def test_binary_requested_shares_equal_measured_in_every_environment(tiny_mnist, flips, test, noise):
    data = load("colored_mnist", tiny_mnist, variant="binary", train_flips=flips, test_flip=test, label_noise=noise)
    for split, wanted in (("train", flips), ("validation", flips), ("test", (test,))):
        part = data[split]
        environment = _column(part, "environment")
        found = []
        for value in np.unique(environment):
            rows = environment == value
            label, colour = _column(part, "label")[rows], _column(part, "attribute")[rows]
            clean = _column(part, "clean_label")[rows]
            found.append((label != colour).mean())
            assert abs((label != clean).mean() - noise) <= 0.5 / rows.sum() + 1e-9
            assert np.array_equal(clean, (_column(part, "digit")[rows] >= 5).astype(int))
        assert np.allclose(sorted(found), sorted(wanted), atol=0.5 / (len(part) // len(wanted)) + 1e-9)


def test_real_digits_have_the_right_sizes_colours_and_groups(shared_dir):
    data = load("colored_mnist", shared_dir / "data" / "mnist", **SMALL)
    assert {split: len(part) for split, part in data.items()} == {
        "train": 1000,
        "validation": 400,
        "test": 400,
    }
    spec = group_spec(data)
    assert spec.num_groups == 100
    assert data["train"].features["group"].names == list(spec.names)
    row = data["train"][0]
    image = np.asarray(row["image"], dtype=float)
    assert image.shape == (28, 28, 3)
    # The brightest pixel has the colour that the attribute names.
    brightest = image.reshape(-1, 3)[image.sum(axis=2).argmax()]
    wanted = np.array(list(COLOURS.values())[row["attribute"]], dtype=float)
    assert np.allclose(brightest / brightest.max(), wanted / wanted.max(), atol=0.02)


def test_splits_share_no_digit_image_and_seeds_decide(shared_dir):
    folder = shared_dir / "data" / "mnist"
    data = load("colored_mnist", folder, aligned=1.0, aligned_test=1.0, **SMALL)
    seen = {
        split: {hashlib.sha256(np.asarray(row["image"]).max(axis=2).tobytes()).hexdigest() for row in part}
        for split, part in data.items()
    }
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    again = load("colored_mnist", folder, aligned=1.0, aligned_test=1.0, **SMALL)
    assert again["train"]["digit"][:] == data["train"]["digit"][:]
    other = load("colored_mnist", folder, aligned=1.0, aligned_test=1.0, seed=1, **SMALL)
    assert other["train"]["digit"][:] != data["train"]["digit"][:]


def test_default_split_sizes(tiny_mnist):
    data = load("colored_mnist", tiny_mnist)
    assert [len(data[s]) for s in ("train", "validation", "test")] == [416, 84, 200]


def test_images_are_decoded_on_access_and_streaming_works(tiny_mnist):
    train = load("colored_mnist", tiny_mnist)["train"]
    stored = train.data.column("image").type
    assert str(stored).startswith("struct<bytes: binary")
    first = next(iter(train.to_iterable_dataset()))
    assert first["group"] == train[0]["group"]
    assert first["image"].size == (4, 4)


def test_paint_is_brightness_times_colour():
    grey = np.array([[[0, 128, 255]]], dtype=np.uint8)
    painted = paint(grey, np.array([1]))
    colour = np.array(list(COLOURS.values())[1], dtype=float)
    assert painted.shape == (1, 1, 3, 3)
    assert np.allclose(painted[0, 0], np.round(grey[0, 0][:, None] / 255 * colour))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"variant": "three"}, "variant must be"),
        ({"aligned": 1.5}, r"aligned must be a share in \[0, 1\]; got 1.5"),
        ({"aligned_test": -0.1}, "share"),
        ({"label_noise": 2}, "label_noise must be a share"),
        ({"n_train": 501}, r"n_train must lie in 1\.\.499"),
        ({"n_train": 400, "n_validation": 101}, r"n_validation must lie in 1\.\.100"),
        ({"variant": "binary", "train_flips": ()}, "at least one environment"),
        ({"variant": "binary", "test_flip": 7}, "test_flip must be a share"),
    ],
)
def test_options_out_of_range_are_refused(tiny_mnist, options, match):
    with pytest.raises(InvalidInputError, match=match):
        load("colored_mnist", tiny_mnist, **options)


def test_a_missing_split_and_a_wrong_file_are_named(tmp_path):
    np.savez(tmp_path / "train.npz", x=np.zeros((3, 2, 2), np.uint8), y=np.zeros(3, np.uint8))
    with pytest.raises(DataNotFoundError, match=r"test\.npz is missing\. Get it from https"):
        load("colored_mnist", tmp_path)
    np.savez(tmp_path / "test.npz", images=np.zeros(3))
    with pytest.raises(InvalidInputError, match="needs arrays x and y"):
        load("colored_mnist", tmp_path)
    np.savez(tmp_path / "test.npz", x=np.zeros((3, 2, 2)), y=np.zeros(3, np.uint8))
    with pytest.raises(InvalidInputError, match="uint8 images"):
        load("colored_mnist", tmp_path)


def _write_idx(folder):
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 60), ("t10k", 20)):
        x, y = rng.integers(0, 256, (n, 5, 5), dtype=np.uint8), rng.integers(0, 10, n).astype(np.uint8)
        images = struct.pack(">4I", 0x803, n, 5, 5) + x.tobytes()
        labels = struct.pack(">2I", 0x801, n) + y.tobytes()
        for name, raw in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(raw))
    return y


def test_original_idx_files_are_read_and_their_checksums_verified(tmp_path):
    test_digits = _write_idx(tmp_path)
    with pytest.raises(InvalidInputError, match=r"train-images-idx3-ubyte.gz has MD5 .* published file has f68b3c"):
        load("colored_mnist", tmp_path)
    data = load("colored_mnist", tmp_path, verify=False)
    assert sorted(data["test"]["digit"][:]) == sorted(test_digits.tolist())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">2I", 0x803, 1)))
    with pytest.raises(InvalidInputError, match="not an IDX file"):
        load("colored_mnist", tmp_path, verify=False)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataNotFoundError, match=r"t10k-labels-idx1-ubyte\.gz is missing"):
        load("colored_mnist", tmp_path, verify=False)


def _hub_mnist(n):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    images = [np.full((28, 28), i % 256, dtype=np.uint8) for i in range(n)]
    return datasets.Dataset.from_dict({"image": images, "label": [i % 10 for i in range(n)]}, features=features)


def test_the_hub_is_asked_by_name_and_revision(monkeypatch):
    asked = []

    def fake(name, revision, **options):
        asked.append((name, revision, options))
        return datasets.DatasetDict(train=_hub_mnist(60), test=_hub_mnist(20))

    monkeypatch.setattr(datasets, "load_dataset", fake)
    data = load("colored_mnist", revision="abc123")
    assert asked == [("ylecun/mnist", "abc123", {})]
    assert len(data["train"]) == 50
    assert np.asarray(data["test"][0]["image"]).shape == (28, 28, 3)


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    def offline(name, revision, **options):
        raise ConnectionError("offline mode is enabled")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataNotFoundError, match=r"does not give 'ylecun/mnist'.*data_dir=\.\.\.") as caught:
        load("colored_mnist")
    assert MNIST_LAYOUT in str(caught.value)
