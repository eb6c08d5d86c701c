"""Damaged files of every loader that reads some: an error of this package or a sound data set, and nothing else."""

import gzip
import shutil
import struct
import warnings
import zlib
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from latents_npz import write_latents
from mutations import damage, mutate_table
from PIL import Image
from wilds_csv import write_wilds

from aifs_peft.data import group_array, group_spec, load
from aifs_peft.data.civilcomments import FILE
from aifs_peft.errors import AIFSError

ROUNDS = 40
N = 24


def _pictures(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(folder / name)


def waterbirds(folder: Path) -> list[Path]:
    i = np.arange(N)
    names = [f"birds/{k}.png" for k in i]
    columns = {"img_id": i, "img_filename": names, "y": i % 2, "split": i % 3, "place": i // 2 % 2}
    pd.DataFrame({**columns, "place_filename": names}).to_csv(folder / "metadata.csv", index=False)
    _pictures(folder, names)
    return [folder / "metadata.csv"]


def _attributes() -> tuple[list[str], list[str], np.ndarray]:
    files = [f"{i + 1:06d}.jpg" for i in range(N)]
    names = [f"Attribute_{i}" for i in range(38)] + ["Blond_Hair", "Male"]
    return files, names, np.random.default_rng(0).choice([-1, 1], (N, 40))


def celeba_text(folder: Path) -> list[Path]:
    files, names, values = _attributes()
    lines = [str(N), " ".join(names), *(f"{f} " + " ".join(map(str, v)) for f, v in zip(files, values, strict=True))]
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (folder / "list_eval_partition.txt").write_text("".join(f"{f} {i % 3}\n" for i, f in enumerate(files)))
    _pictures(folder / "img_align_celeba", files)
    return [folder / "list_attr_celeba.txt", folder / "list_eval_partition.txt"]


def celeba_csv(folder: Path) -> list[Path]:
    files, names, values = _attributes()
    table = pd.DataFrame(values, columns=names)
    table.insert(0, "image_id", files)
    table.to_csv(folder / "list_attr_celeba.csv", index=False)
    partition = pd.DataFrame({"image_id": files, "partition": np.arange(N) % 3})
    partition.to_csv(folder / "list_eval_partition.csv", index=False)
    _pictures(folder / "img_align_celeba", files)
    return [folder / "list_attr_celeba.csv", folder / "list_eval_partition.csv"]


def celeba_metadata(folder: Path) -> list[Path]:
    files, i = _attributes()[0], np.arange(N)
    table = pd.DataFrame({"id": i, "filename": files, "split": i % 3, "y": i % 2, "a": i // 2 % 2})
    table.to_csv(folder / "metadata_celeba.csv", index=False)
    _pictures(folder / "img_align_celeba", files)
    return [folder / "metadata_celeba.csv"]


def civilcomments(folder: Path) -> list[Path]:
    write_wilds(folder)
    return [folder / "civilcomments_v1.0" / FILE]


def civilcomments_hub(folder: Path) -> list[Path]:
    rows = {"text": ["a", "b", "c"], "toxicity": [0.0, 0.6, 0.5], "identity_attack": [0.5, 0.0, 0.7]}
    paths = [folder / f"{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")]
    for path in paths:
        pd.DataFrame(rows).to_parquet(path)
    return paths


def compas(folder: Path) -> list[Path]:
    i = np.arange(60)
    table = pd.DataFrame(
        {
            "days_b_screening_arrest": i % 30, "is_recid": i % 2, "c_charge_degree": np.where(i % 3, "F", "M"),
            "score_text": "Low", "two_year_recid": i % 2, "age": 20 + i, "priors_count": i % 5, "juv_fel_count": 0,
            "juv_misd_count": 0, "juv_other_count": i % 2, "age_cat": "25 - 45",
            "race": np.where(i // 2 % 2, "Caucasian", "African-American"),
            "sex": np.where(i // 4 % 2, "Male", "Female"),
            "decile_score": 1 + i % 10,
        }
    )  # fmt: skip
    table.to_csv(folder / "compas-scores-two-years.csv", index=False)
    return [folder / "compas-scores-two-years.csv"]


def jigsaw_templates(folder: Path) -> list[Path]:
    rows = [
        f"t{i},{kind},phrase {i} {who},{who}"
        for i in range(8)
        for kind in ("toxic", "nontoxic")
        for who in ("alpha", "beta", "none")
    ]
    path = folder / "en_sentence_templates.csv"
    path.write_text("\n".join(["template,toxicity,phrase,identity", *rows]) + "\n")
    return [path]


def dominoes_latents(folder: Path) -> list[Path]:
    write_latents(folder)
    return [folder / "train.npz", folder / "test.npz"]


def mnist_npz(folder: Path) -> list[Path]:
    for split in ("train", "test"):
        np.savez(folder / f"{split}.npz", x=np.zeros((40, 28, 28), np.uint8), y=np.arange(40) % 10)
    return [folder / "train.npz", folder / "test.npz"]


def mnist_idx(folder: Path) -> list[Path]:
    paths = []
    for prefix in ("train", "t10k"):
        files = {
            f"{prefix}-images-idx3-ubyte.gz": struct.pack(">4I", 0x803, 20, 28, 28) + bytes(20 * 784),
            f"{prefix}-labels-idx1-ubyte.gz": struct.pack(">2I", 0x801, 20) + bytes(i % 10 for i in range(20)),
        }
        for name, raw in files.items():
            with gzip.open(folder / name, "wb") as stream:
                stream.write(raw)
            paths.append(folder / name)
    return paths


def dominoes(folder: Path) -> list[Path]:
    (folder / "mnist").mkdir()
    digits = mnist_npz(folder / "mnist")
    (folder / "cifar-10-batches-bin").mkdir()
    paths = [
        folder / "cifar-10-batches-bin" / f"{name}.bin"
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    ]
    for path in paths:
        path.write_bytes(b"".join(bytes([k % 10]) + bytes(3072) for k in range(20)))
    return [*digits, *paths]


def _spaced(text: str, rng: np.random.Generator) -> str:
    return mutate_table(text, rng, " ")


SMALL = {"n_train": 10, "n_validation": 5, "n_test": 10, "verify": False}
CASES = {
    "waterbirds": ("waterbirds", waterbirds, mutate_table, {}),
    "celeba, official": ("celeba", celeba_text, _spaced, {}),
    "celeba, csv": ("celeba", celeba_csv, mutate_table, {}),
    "celeba, metadata": ("celeba", celeba_metadata, mutate_table, {}),
    "civilcomments": ("civilcomments", civilcomments, mutate_table, {}),
    "civilcomments_coarse": ("civilcomments_coarse", civilcomments, mutate_table, {}),
    "civilcomments_hub": ("civilcomments_hub", civilcomments_hub, None, {}),
    "compas": ("compas", compas, mutate_table, {}),
    "jigsaw_templates": ("jigsaw_templates", jigsaw_templates, mutate_table, {}),
    "dominoes_latents": ("dominoes_latents", dominoes_latents, None, {}),
    "colored_mnist, npz": ("colored_mnist", mnist_npz, None, SMALL),
    "colored_mnist, idx": ("colored_mnist", mnist_idx, None, {**SMALL, "n_train": 5}),
    "dominoes": ("dominoes", dominoes, None, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_only_errors_of_this_package_come_out(case: str, tmp_path: Path) -> None:
    name, write, table, options = CASES[case]
    sound = tmp_path / "sound"
    sound.mkdir()
    files = [path.relative_to(sound) for path in write(sound)]
    load(name, sound, **options)
    rng = np.random.default_rng(zlib.crc32(case.encode()))
    refused = 0
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        shutil.copytree(sound, folder)
        damage(folder / files[int(rng.integers(len(files)))], rng, table)
        message = _refusal(name, folder, options)
        assert "\n" not in message
        refused += bool(message)
    assert refused > ROUNDS / 4


def _refusal(name: str, folder: Path, options: dict[str, object]) -> str:
    """The error of this package, empty where the set was accepted; any other error goes through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _check(load(name, folder, **options))
    except AIFSError as error:
        return str(error)
    return ""


def _check(data: datasets.DatasetDict) -> None:
    """What was accepted can be used: every group is one of the definition's, every number finite."""
    spec = group_spec(data)
    for part in data.values():
        spec.counts(group_array(part))
        if "features" in part.column_names:
            assert np.isfinite(np.asarray(part["features"][:])).all()
        if "image" in part.column_names:
            part[0]


PATHS = ("/etc/passwd", "../../etc/passwd", "birds/../../outside.png")


@pytest.mark.parametrize("path", PATHS)
def test_a_picture_outside_the_folder_is_not_opened(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (table,) = waterbirds(folder)
    Image.new("RGB", (2, 2)).save(tmp_path / "outside.png")
    text = table.read_text().replace("birds/4.png,0", f"{path},0")
    table.write_text(text)
    assert path in text
    with pytest.raises(AIFSError, match=rf"names the file '{path}' \(row \d+\), which lies outside"):
        load("waterbirds", folder)


@pytest.mark.parametrize(
    ("loader", "column", "cell", "match"),
    [
        ("compas", "age", "-7", r"column 'age' needs whole numbers from 0 up to 150; 1 of 60 rows.*row 3: -7"),
        ("compas", "priors_count", "", r"column 'priors_count' needs.*row 3: empty"),
        ("compas", "two_year_recid", "5", "two_year_recid must be one of 0, 1; 1 of 60 rows have '5'"),
        ("compas", "race", "", "column 'race' is empty in 1 of 60 rows"),
        (
            "civilcomments",
            "toxicity",
            "1e20",
            r"column 'toxicity' needs numbers from 0 up to 1; 1 of \d+ rows.*1e\+?20",
        ),
        ("civilcomments", "split", "holdout", "split must be one of train, val, test; 1 of .* rows have 'holdout'"),
        ("waterbirds", "split", "7", "split must be one of 0, 1, 2; 1 of 24 rows have '7'"),
    ],
)
def test_values_that_cannot_be_are_named(loader: str, column: str, cell: str, match: str, tmp_path: Path) -> None:
    (path,) = globals()[loader](tmp_path)  # the writer has the loader's name
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[3, column] = cell
    table.to_csv(path, index=False)
    with pytest.raises(AIFSError, match=match):
        load(loader, tmp_path)


def test_an_unknown_partition_of_celeba_is_named(tmp_path: Path) -> None:
    partition = celeba_text(tmp_path)[1]
    partition.write_text(partition.read_text().replace("000005.jpg 1", "000005.jpg 3"))
    with pytest.raises(AIFSError, match="partition must be one of 0, 1, 2; 1 of 24 rows have '3'"):
        load("celeba", tmp_path)
