"""`load(..., streaming=True)`: the same examples in the same order, with their groups, decoded when they are read."""

import datasets
import numpy as np
import pandas as pd
import pytest
from datasets import IterableDataset, IterableDatasetDict
from latents_npz import write_latents
from PIL import Image
from wilds_csv import write_wilds

from aifs_peft.data import describe, group_array, group_spec, load
from aifs_peft.data.spurious_scenes import rows
from aifs_peft.errors import InvalidInputError
from aifs_peft.training.labels import read_labels


def _mnist(folder):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        y = np.arange(200) % 10
        np.savez(folder / f"{split}.npz", x=rng.integers(0, 256, (200, 28, 28), dtype=np.uint8), y=y.astype(np.uint8))


def _waterbirds(folder):
    n = 24
    names = [f"{i}.png" for i in range(n)]
    table = pd.DataFrame({"img_id": np.arange(n), "img_filename": names, "y": np.arange(n) % 2})
    table["split"], table["place"], table["place_filename"] = np.arange(n) % 3, np.arange(n) // 2 % 2, names
    table.to_csv(folder / "metadata.csv", index=False)
    for i, name in enumerate(names):
        Image.new("RGB", (4, 3), (i, 0, 0)).save(folder / name)


SETS = {
    "civilcomments": (write_wilds, {}),
    "civilcomments_coarse": (write_wilds, {}),
    "colored_mnist": (_mnist, {"n_train": 100, "n_validation": 50}),
    "dominoes_latents": (write_latents, {}),
    "spurious_scenes": (None, {"n_train": 300, "n_validation": 20, "n_test": 20, "image_size": 16, "world": "shapes"}),
    "waterbirds": (_waterbirds, {}),
}


@pytest.mark.parametrize("name", SETS)
def test_a_stream_gives_the_same_examples_in_the_same_order(name, tmp_path):
    write, options = SETS[name]
    if write is not None:
        write(tmp_path)
    folder = None if write is None else tmp_path
    whole, streamed = load(name, folder, **options), load(name, folder, streaming=True, **options)
    assert isinstance(streamed, IterableDatasetDict)
    assert list(streamed) == list(whole)
    assert group_spec(streamed) == group_spec(whole) == group_spec(streamed["test"])
    for split, part in streamed.items():
        assert isinstance(part, IterableDataset)
        assert part.features == whole[split].features
        assert part.info.description == whole[split].info.description
        rows_seen = list(part)
        assert len(rows_seen) == len(whole[split])
        assert rows_seen == list(whole[split])  # pictures compare by their pixels


def test_a_long_stream_starts_at_once_and_splits_among_workers(monkeypatch):
    drawn = []
    render = rows.render
    monkeypatch.setattr(
        rows, "render", lambda config, core, *rest: drawn.append(len(core)) or render(config, core, *rest)
    )
    train = load("spurious_scenes", streaming=True, n_train=20_000, n_test=10, n_validation=10, image_size=16)["train"]
    drawn.clear()
    next(iter(train))
    assert sum(drawn) == 256
    assert train.num_shards == 79
    assert sum(1 for _ in train.shard(79, 78)) in (253, 254)


def test_pictures_on_disk_are_not_opened_before_they_are_read(tmp_path):
    _waterbirds(tmp_path)
    streamed = load("waterbirds", tmp_path, streaming=True)
    for file in tmp_path.glob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(OSError, match="cannot identify image"):
        next(iter(streamed["train"]))
    assert next(iter(streamed["train"].decode(False)))["image"]["bytes"] is None


def test_streaming_is_no_option_of_a_set():
    assert "streaming" not in describe("spurious_scenes").options


def test_what_needs_every_example_refuses_a_stream(tmp_path):
    write_latents(tmp_path)
    streamed = load("dominoes_latents", tmp_path, streaming=True)
    with pytest.raises(InvalidInputError, match="has no length, so its groups cannot be listed"):
        group_array(streamed["train"])
    with pytest.raises(InvalidInputError, match="load it without streaming=True"):
        group_spec(streamed).table(streamed)
    with pytest.raises(InvalidInputError, match="load it without streaming=True"):
        read_labels(streamed["train"])


def test_a_foreign_stream_says_that_it_has_no_groups():
    plain = datasets.Dataset.from_dict({"label": [0, 1]}).to_iterable_dataset()
    with pytest.raises(InvalidInputError, match="does not say what its groups mean"):
        group_spec(plain)
