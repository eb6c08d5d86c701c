"""CelebA and Waterbirds on generated trees in the official layout."""

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aifs_peft.data import celeba as celeba_module
from aifs_peft.data import group_array, group_spec, load
from aifs_peft.errors import DataNotFoundError, InvalidInputError

N = 40
NAMES = [f"Attribute_{i}" for i in range(38)] + ["Blond_Hair", "Male"]


def _write_celeba(folder, values, count=None, partition=None):
    """The official format: CRLF line ends, the count, names with a trailing space, values padded with spaces."""
    (folder / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    files = [f"{i + 1:06d}.jpg" for i in range(len(values))]
    lines = [str(len(values) if count is None else count), " ".join(NAMES) + " "]
    lines += [f"{f} " + " ".join(f"{v:2d}" for v in row) for f, row in zip(files, values, strict=True)]
    (folder / "list_attr_celeba.txt").write_bytes(("\r\n".join(lines) + "\r\n").encode())
    codes = [0] * 20 + [1] * 10 + [2] * 10 if partition is None else partition
    (folder / "list_eval_partition.txt").write_text("".join(f"{f} {c}\n" for f, c in zip(files, codes, strict=True)))
    for i, file in enumerate(files):
        Image.new("RGB", (178, 218), (i, 0, 0)).save(folder / "img_align_celeba" / file)
    return files


@pytest.fixture
def celeba(tmp_path):
    values = np.random.default_rng(0).choice([-1, 1], (N, 40))
    _write_celeba(tmp_path, values)
    return tmp_path, values


def test_celeba_groups_equal_a_direct_count(celeba):
    folder, values = celeba
    data = load("celeba", folder)
    spec = group_spec(data)
    assert spec.names == ("not blond x female", "not blond x male", "blond x female", "blond x male")
    rows = {"train": slice(0, 20), "validation": slice(20, 30), "test": slice(30, 40)}
    for split, part in data.items():
        blond, male = values[rows[split], 38] == 1, values[rows[split], 39] == 1
        assert group_array(part).tolist() == (2 * blond + male).tolist()
        assert part["Attribute_3"][:] == (values[rows[split], 3] == 1).tolist()
    assert data["test"]["file"][:][0] == "000031.jpg"


def test_celeba_other_pairs_and_a_nested_folder(celeba, tmp_path):
    values = celeba[1]
    (tmp_path / "outer").mkdir()
    nested = tmp_path / "outer" / "celeba"
    _write_celeba(nested, values)
    data = load("celeba", tmp_path / "outer", target="Attribute_0", attribute="Attribute_1")
    assert group_spec(data).names[1] == "not Attribute_0 x Attribute_1"
    wanted = 2 * (values[:20, 0] == 1) + (values[:20, 1] == 1)
    assert group_array(data["train"]).tolist() == wanted.tolist()


def test_celeba_images_are_opened_on_access(celeba):
    folder, _ = celeba
    train = load("celeba", folder)["train"]
    assert train[3]["image"].size == (178, 218)
    (folder / "img_align_celeba" / "000001.jpg").unlink()
    assert train[1]["label"] in (0, 1)
    with pytest.raises(FileNotFoundError):
        train[0]
    with pytest.raises(DataNotFoundError, match=r"000001\.jpg is missing"):
        load("celeba", folder)


def test_celeba_checksum_is_verified_for_the_official_count(celeba, monkeypatch):
    folder, _ = celeba
    monkeypatch.setattr(celeba_module, "OFFICIAL_ROWS", N)
    with pytest.raises(InvalidInputError, match=r"list_attr_celeba\.txt has MD5 .* published file has 75e246fa"):
        load("celeba", folder)
    assert len(load("celeba", folder, verify=False)["train"]) == 20


def test_celeba_files_that_do_not_fit_are_named(celeba, tmp_path):
    folder, values = celeba
    with pytest.raises(InvalidInputError, match="no attribute 'Blonde'"):
        load("celeba", folder, target="Blonde")
    with pytest.raises(InvalidInputError, match="must differ"):
        load("celeba", folder, target="Male")
    _write_celeba(folder, values, count=N + 5)
    with pytest.raises(InvalidInputError, match="announces 45 images and lists 40"):
        load("celeba", folder)
    _write_celeba(folder, np.where(values == 1, 2, values))
    with pytest.raises(InvalidInputError, match="40 columns of -1 or 1"):
        load("celeba", folder)
    _write_celeba(folder, values, partition=[0] * 30 + [2] * 10)
    with pytest.raises(InvalidInputError, match="no row for validation"):
        load("celeba", folder)
    (folder / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(InvalidInputError, match="same images"):
        load("celeba", folder)
    (folder / "list_eval_partition.txt").unlink()
    with pytest.raises(DataNotFoundError, match=r"list_eval_partition\.txt is missing.*img_align_celeba"):
        load("celeba", folder)
    (folder / "list_attr_celeba.txt").write_text("names first\n")
    (folder / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(InvalidInputError, match="must begin with the number of images"):
        load("celeba", folder)


def _as_csv(folder, target):
    """The two lists as the CSV files of robustness repositories."""
    target.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(folder / "list_attr_celeba.txt", sep=r"\s+", skiprows=1)
    table.rename_axis("image_id").to_csv(target / "list_attr_celeba.csv")
    codes = pd.read_csv(folder / "list_eval_partition.txt", sep=" ", header=None, names=["image_id", "partition"])
    codes.to_csv(target / "list_eval_partition.csv", index=False)
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        (folder / name).unlink()


@pytest.mark.parametrize("place", [".", "celeba", "celebA/data"])
def test_celeba_lists_as_csv_give_the_same_set(celeba, place):
    folder, _ = celeba
    wanted = load("celeba", folder)
    _as_csv(folder, folder / place)
    # Kaggle's archive holds the pictures one folder deeper.
    (folder / place / "img_align_celeba").mkdir(exist_ok=True)
    nested = folder / place / "img_align_celeba" / "img_align_celeba"
    (folder / "img_align_celeba").rename(folder / "aside")
    nested.parent.mkdir(exist_ok=True)
    (folder / "aside").rename(nested)
    data = load("celeba", folder)
    for split, part in data.items():
        assert part.column_names == wanted[split].column_names
        for name in ("label", "attribute", "group", "file", "Attribute_7"):
            assert part[name][:] == wanted[split][name][:]
    assert data["train"][0]["image"].size == (178, 218)
    (folder / place / "list_eval_partition.csv").unlink()
    with pytest.raises(DataNotFoundError, match=r"list_eval_partition\.csv is missing"):
        load("celeba", folder)


@pytest.mark.parametrize(("name", "file", "value"), [
    ("metadata_celeba.csv", "filename", "a"),
    ("celeba_metadata.csv", "img_filename", "place"),
    ("metadata.csv", "img_filename", "place"),
])  # fmt: skip
def test_celeba_from_one_metadata_table(celeba, name, file, value):
    folder, values = celeba
    wanted = load("celeba", folder)
    rows = {
        file: [f"{i + 1:06d}.jpg" for i in range(N)], "y": (values[:, 38] == 1).astype(int),
        value: (values[:, 39] == 1).astype(int), "split": [0] * 20 + [1] * 10 + [2] * 10,
    }  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / name, index=False)
    for list_name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        (folder / list_name).unlink()
    data = load("celeba", folder)
    for split, part in data.items():
        assert group_array(part).tolist() == group_array(wanted[split]).tolist()
        assert part["file"][:] == wanted[split]["file"][:]
    assert group_spec(data) == group_spec(wanted)
    with pytest.raises(InvalidInputError, match="no attribute 'Young' here; it has Blond_Hair, Male"):
        load("celeba", folder, target="Young")


def test_celeba_without_its_image_folder(celeba):
    folder, _ = celeba
    (folder / "img_align_celeba").rename(folder / "images")
    with pytest.raises(DataNotFoundError, match="img_align_celeba is missing"):
        load("celeba", folder)


def test_celeba_from_the_hub_keeps_images_lazy(monkeypatch):
    asked = []
    rows = {
        "image": [b"not an image"] * 3,
        "Blond_Hair": [True, False, True],
        "Male": [False, True, True],
        "celeb_id": [1, 2, 3],
    }

    def fake(name, revision, **options):
        asked.append((name, revision))
        part = datasets.Dataset.from_dict({**rows, "image": [{"bytes": b, "path": None} for b in rows["image"]]})
        return {s: part.cast_column("image", datasets.Image()) for s in ("train", "valid", "test")}

    monkeypatch.setattr(datasets, "load_dataset", fake)
    data = load("celeba", revision="r2")
    assert asked == [("flwrlabs/celeba", "r2")]
    assert group_array(data["validation"]).tolist() == [2, 1, 3]
    assert group_spec(data).attributes == ("female", "male")
    assert data["train"].features["image"] == datasets.Image()


@pytest.fixture
def waterbirds(tmp_path):
    folder = tmp_path / "waterbird_complete95_forest2water2"
    (folder / "001.Bird").mkdir(parents=True)
    rng = np.random.default_rng(0)
    n = 200
    table = pd.DataFrame(
        {
            "img_id": np.arange(n) + 1,
            "img_filename": [f"001.Bird/{i}.jpg" for i in range(n)],
            "y": rng.integers(0, 2, n),
            "split": np.repeat([0, 1, 2], [100, 50, 50]),
            "place": rng.integers(0, 2, n),
            "place_filename": [f"/b/{i}.jpg" for i in range(n)],
        }
    )
    table.to_csv(folder / "metadata.csv", index=False)
    for name in table["img_filename"]:
        Image.new("RGB", (4, 3)).save(folder / name)
    return tmp_path, folder, table


def test_waterbirds_official_split(waterbirds):
    root, folder, table = waterbirds
    data = load("waterbirds", root)
    for split, code in (("train", 0), ("validation", 1), ("test", 2)):
        rows = table[table["split"] == code]
        assert group_array(data[split]).tolist() == (2 * rows["y"] + rows["place"]).tolist()
    assert data["train"][0]["image"].size == (4, 3)
    assert group_array(load("waterbirds", folder)["test"]).tolist() == group_array(data["test"]).tolist()
    assert group_spec(data).names[1] == "landbird x water"


@pytest.mark.parametrize("outer", ["waterbirds", "cub/data", "."])
def test_waterbirds_from_an_outer_folder(waterbirds, tmp_path, outer):
    folder = waterbirds[1]
    wanted = group_array(load("waterbirds", folder)["train"]).tolist()
    (tmp_path / "outermost" / outer).mkdir(parents=True)
    folder.rename(tmp_path / "outermost" / outer / folder.name)
    assert group_array(load("waterbirds", tmp_path / "outermost")["train"]).tolist() == wanted


def test_waterbirds_under_the_name_that_wilds_gives_it(waterbirds):
    root, folder, _ = waterbirds
    folder.rename(root / "waterbirds_v1.0")
    assert len(load("waterbirds", root)["train"]) == 100


def test_waterbirds_validation_can_be_cut_from_train(waterbirds):
    data = load("waterbirds", waterbirds[0], validation_from_train=0.2)
    assert [len(data[s]) for s in ("train", "validation", "test")] == [80, 20, 50]
    ids = {s: set(data[s]["img_id"][:]) for s in data}
    assert ids["train"] | ids["validation"] == set(range(1, 101))
    counts = [np.bincount(group_array(data[s]), minlength=4) for s in ("train", "validation")]
    assert np.abs(counts[1] - 0.2 * (counts[0] + counts[1])).max() <= 1
    with pytest.raises(InvalidInputError, match="validation_from_train must lie in"):
        load("waterbirds", waterbirds[0], validation_from_train=1.0)


def test_waterbirds_from_the_hub_keep_images_lazy(monkeypatch):
    asked = []
    label, place = np.arange(40) % 2, np.arange(40) // 2 % 2

    def fake(name, revision, **options):
        asked.append((name, revision))
        rows = {"image": [{"bytes": b"not an image", "path": None}] * 40, "label": label, "place": place, "x": label}
        part = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        return dict.fromkeys(("train", "validation", "test"), part)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    data = load("waterbirds", revision="r3")
    assert asked == [("grodino/waterbirds", "r3")]
    assert data["test"].column_names == ["image", "label", "attribute", "group"]
    assert group_array(data["validation"]).tolist() == (2 * label + place).tolist()
    cut = load("waterbirds", validation_from_train=0.2)
    spec = group_spec(cut)
    assert spec.counts(group_array(cut["train"])).tolist() == [8] * 4
    assert spec.counts(group_array(cut["validation"])).tolist() == [2] * 4
    assert len(cut["test"]) == 40


def test_waterbirds_files_that_do_not_fit_are_named(waterbirds, tmp_path):
    root, folder, table = waterbirds
    (folder / "001.Bird" / "5.jpg").unlink()
    with pytest.raises(DataNotFoundError, match=r"5\.jpg is missing"):
        load("waterbirds", root)
    table[table["split"] != 1].to_csv(folder / "metadata.csv", index=False)
    Image.new("RGB", (4, 3)).save(folder / "001.Bird" / "5.jpg")
    with pytest.raises(InvalidInputError, match="no row for validation"):
        load("waterbirds", root)
    table.assign(place=2).to_csv(folder / "metadata.csv", index=False)
    with pytest.raises(InvalidInputError, match="place must be one of"):
        load("waterbirds", root)
    table.drop(columns="place").to_csv(folder / "metadata.csv", index=False)
    with pytest.raises(InvalidInputError, match="lacks the columns place"):
        load("waterbirds", root)
    (folder / "metadata.csv").unlink()
    with pytest.raises(DataNotFoundError, match=r"metadata\.csv is missing"):
        load("waterbirds", root)
