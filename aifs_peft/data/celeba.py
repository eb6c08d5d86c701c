"""CelebA: faces with 40 attributes; by default blond hair with gender as the shortcut.

Liu et al., "Deep Learning Face Attributes in the Wild" (2015); as a group benchmark Sagawa et al. (2020). The
official files are read where they lie, and so are the CSV files that robustness repositories work with
(`celeba_lists`); images stay files on disk and are opened when a row is read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aifs_peft.data.celeba_lists import find_images, find_lists, read_lists
from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.sources import DataCard, load_hub, missing, require_dir
from aifs_peft.data.tables import assemble, build_split, group_features, image_column
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL_ROWS = 202_599
"""Rows of the official list; another count is a part of it, and has no published checksum."""
MD5 = {
    "list_attr_celeba.txt": "75e246fa4810816ffd6ee81facbd244c",
    "list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668",
}
CARD = DataCard(
    name="celeba",
    title="celebrity faces, 178 x 218, with 40 binary attributes",
    inputs=("image",),
    groups="target x attribute (4), by default Blond_Hair x Male",
    source="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (aligned and cropped images, attributes, partition)",
    layout=(
        "data_dir/list_attr_celeba.txt, data_dir/list_eval_partition.txt and data_dir/img_align_celeba/000001.jpg ... "
        "(all three also under data_dir/celeba/, data_dir/data/ or data_dir/celebA/data/), the two lists also as .csv; "
        "or metadata_celeba.csv, celeba_metadata.csv or metadata.csv with the columns filename (or img_filename), "
        "split, y and a (or place), for the default pair; or data_dir=None for flwrlabs/celeba from the Hub"
    ),
    terms="non-commercial research only, no redistribution; pictures of real persons",
    md5=MD5,
)
SPLITS = {"train": 0, "validation": 1, "test": 2}
_VALUES = {"Male": ("female", "male"), "Blond_Hair": ("not blond", "blond"), "Young": ("old", "young")}


def load_celeba(
    data_dir: str | Path | None = None,
    *,
    target: str = "Blond_Hair",
    attribute: str = "Male",
    verify: bool = True,
    revision: str = "main",
) -> Any:
    """Load CelebA in its official split.

    Columns: `image` (opened on access), `label`, `attribute`, `group`, and the 40 attributes as booleans. From
    local files also `file`.

    Args:
        data_dir: folder in the official layout; None for a copy on the Hub.
        target: attribute to predict, any of the 40.
        attribute: attribute that defines the groups with it, another of the 40.
        verify: compare the two lists with their published MD5 where the list says it has all 202,599 rows.
        revision: Hub revision.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        DataNotFoundError: a list, the folder or an image is missing.
        InvalidInputError: an unknown attribute, or a file that is not what it should be.
    """
    if target == attribute:
        raise InvalidInputError(f"target and attribute must differ; both are {target!r}")
    if data_dir is None:
        return _from_hub(target, attribute, revision)
    paths = find_lists(require_dir(data_dir, CARD), CARD)
    table, partition = read_lists(paths, CARD, OFFICIAL_ROWS if verify else None)
    _check_attributes(target, attribute, list(table.columns))
    images = find_images(paths[0].parent, CARD)
    # One scan of the folder: 200,000 separate existence checks would take far longer.
    present = {entry.name for entry in os.scandir(images)}
    absent = next((name for name in table.index if name not in present), None)
    if absent is not None:
        raise missing(images / absent, CARD)
    spec = _spec(target, attribute)
    splits = {}
    for split, code in SPLITS.items():
        part = table[partition == code]
        if part.empty:
            raise InvalidInputError(f"celeba: {paths[-1].name} has no row for {split} (code {code})")
        splits[split] = _split(part, [str(images / name) for name in part.index], spec, target, attribute)
    return assemble(splits, spec, f"CelebA, {target} x {attribute}, official split.")


def _spec(target: str, attribute: str) -> GroupSpec:
    classes, values = (_VALUES.get(name, (f"not {name}", name)) for name in (target, attribute))
    return GroupSpec(f"celeba: {target} x {attribute}", classes, values)


def _check_attributes(target: str, attribute: str, known: list[str]) -> None:
    for name in (target, attribute):
        if name not in known:
            raise InvalidInputError(f"celeba has no attribute {name!r} here; it has {', '.join(known)}")


def _columns(
    table: pd.DataFrame, spec: GroupSpec, target: str, attribute: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    from datasets import Value

    label, value = (table[name].to_numpy(dtype=np.int64) for name in (target, attribute))
    columns = {"label": label, "attribute": value, "group": spec.encode(label, value)}
    features = {**group_features(spec), **{name: Value("bool") for name in table.columns}}
    return {**columns, **{name: table[name].to_numpy() for name in table.columns}}, features


def _split(part: pd.DataFrame, paths: list[str], spec: GroupSpec, target: str, attribute: str) -> Any:
    from datasets import Features, Image, Value

    columns, features = _columns(part, spec, target, attribute)
    return build_split(
        {"image": image_column(paths=paths), **columns, "file": list(part.index)},
        Features({"image": Image(), **features, "file": Value("string")}),
    )


def _from_hub(target: str, attribute: str, revision: str) -> Any:
    from datasets import Features, concatenate_datasets

    hub = load_hub("flwrlabs/celeba", revision, CARD)
    spec = _spec(target, attribute)
    splits = {}
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        known = [c for c in hub[name].column_names if c not in ("image", "celeb_id")]
        _check_attributes(target, attribute, known)
        columns, features = _columns(hub[name].select_columns(known).to_pandas(), spec, target, attribute)
        # Side by side, so that no image is decoded here.
        splits[split] = concatenate_datasets(
            [hub[name].select_columns(["image"]), build_split(columns, Features(features))], axis=1
        )
    return assemble(splits, spec, f"CelebA from flwrlabs/celeba, revision {revision}, {target} x {attribute}.")
