"""Data card, picture grid and push of SpuriousScenes."""

import datasets
import huggingface_hub
import numpy as np
import pytest

from aifs_peft.data import group_array, group_spec, load
from aifs_peft.data.preview import image_grid
from aifs_peft.data.spurious_scenes.__main__ import main
from aifs_peft.data.spurious_scenes.publish import data_card, push
from aifs_peft.errors import InvalidInputError

TINY = {"n_train": 60, "n_validation": 20, "n_test": 20, "image_size": 16}
COMMAND = ["--n-train", "60", "--n-validation", "20", "--n-test", "20", "--image-size", "16"]


def test_grid_shows_each_group_in_its_row():
    train = load("spurious_scenes", aligned=0.9, **TINY)["train"]
    grid = np.asarray(image_grid(train, per_group=3, size=16))
    assert grid.shape == (4 * 18, 3 * 18, 3)
    for row in range(4):
        index = int(np.flatnonzero(group_array(train) == row)[0])
        assert np.array_equal(grid[18 * row + 1 : 18 * row + 17, 1:17], np.asarray(train[index]["image"]))
    rare = int((group_array(train) == 1).sum())
    assert rare == 3
    assert (np.asarray(image_grid(train, per_group=4, size=16))[18:36, 54:] == 255).all()
    with pytest.raises(InvalidInputError, match="needs an 'image' column"):
        image_grid(train.remove_columns("image"))


@pytest.mark.parametrize("world", ["clinic", "factory", "shapes"])
def test_card_counts_what_is_in_the_data(world):
    data = load("spurious_scenes", world=world, aligned=0.8, label_noise=0.1, **TINY)
    card = data_card(data)
    spec = group_spec(data)
    counts = [spec.counts(group_array(part)) for part in data.values()]
    for i, name in enumerate(spec.names):
        assert f"| {name} | {counts[0][i]} | {counts[1][i]} | {counts[2][i]} |" in card
    assert "label noise 0.1" in card
    assert "metadata only" in card
    assert card.startswith("---\nlicense: apache-2.0\n")


def test_written_folder_is_read_by_datasets(tmp_path, capsys):
    main(["--world", "shapes", "--output-dir", str(tmp_path / "out"), *COMMAND])
    assert "wrote" in capsys.readouterr().out
    assert (tmp_path / "out" / "README.md").read_text().count("preview.png") == 1
    assert (tmp_path / "out" / "preview.png").read_bytes().startswith(b"\x89PNG")
    read = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    direct = load("spurious_scenes", world="shapes", **TINY)
    assert group_spec(read).names == group_spec(direct).names
    for split in ("train", "validation", "test"):
        assert read[split]["scene_seed"][:] == direct[split]["scene_seed"][:]
    assert np.array_equal(np.asarray(read["test"][3]["image"]), np.asarray(direct["test"][3]["image"]))


def test_push_uploads_the_folder_in_one_commit(monkeypatch):
    calls = []

    class Commit:
        commit_url = "https://hub/commit/1"

    class Api:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, repo_id, **options):
            calls.append(("create", repo_id, options["repo_type"], options["private"]))

        def upload_folder(self, *, repo_id, folder_path, repo_type, commit_message):
            from pathlib import Path

            files = sorted(str(p.relative_to(folder_path)) for p in Path(folder_path).rglob("*") if p.is_file())
            calls.append(("upload", repo_id, repo_type, files))
            return Commit()

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push(load("spurious_scenes", **TINY), "me/scenes", token="t") == "https://hub/commit/1"
    assert calls[0] == ("token", "t")
    assert calls[1] == ("create", "me/scenes", "dataset", True)
    assert calls[2][3][:2] == ["README.md", "data/test-00000-of-00001.parquet"]
    assert len(calls[2][3]) == 5


def test_command_needs_a_destination():
    with pytest.raises(SystemExit):
        main([])
