"""Waterbirds: birds cut out of CUB-200-2011 and pasted on land or water backgrounds of Places.

Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts" (2020). In training 95 % of the birds
stand on their own background. **Validation and test are balanced within each class**, unlike training: a head
fitted or a model selected on validation receives group balance for free (`validation_from_train` cuts a validation part
with the training distribution instead).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.reading import filled, inside, known_values, numbers, read_csv, require_columns
from aifs_peft.data.sampling import exact_flips
from aifs_peft.data.sources import DataCard, load_hub, missing, require_dir, require_file
from aifs_peft.data.tables import assemble, build_split, group_features, image_column
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "waterbird_complete95_forest2water2"
HUB = "grodino/waterbirds"
"""A copy of the same images and splits, as Parquet, without the file names."""
CARD = DataCard(
    name="waterbirds",
    title="land and water birds on land and water backgrounds",
    inputs=("image",),
    groups="bird x place (4)",
    source="https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz",
    layout=(
        f"data_dir/{FOLDER}/metadata.csv with the images beside it as it names them, up to two folders further out "
        f"(data_dir/waterbirds/{FOLDER}, data_dir/cub/data/{FOLDER}) or in (data_dir/metadata.csv); or data_dir=None "
        f"for {HUB} from the Hub"
    ),
    terms="CUB-200-2011 and Places: non-commercial research",
)
SPEC = GroupSpec("waterbirds: bird x place", ("landbird", "waterbird"), ("land", "water"))
SPLITS = {"train": 0, "validation": 1, "test": 2}
_COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")


def load_waterbirds(
    data_dir: str | Path | None = None,
    *,
    validation_from_train: float | None = None,
    seed: int = 0,
    revision: str = "main",
) -> Any:
    """Load Waterbirds in its official split.

    Columns: `image` (opened on access), `label`, `attribute` (the place), `group`, and, from local files, the metadata
    `img_id`, `img_filename`, `place_filename`.

    Args:
        data_dir: folder with the extracted archive; None for a copy on the Hub.
        validation_from_train: None for the official validation split, which is balanced within each class; or the
            share of the training split, in (0, 1), to use for validation instead (the official one is then unused).
        seed: which training rows that share takes.
        revision: Hub revision.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        DataNotFoundError: the metadata or an image is missing.
        InvalidInputError: the metadata is not what it should be, or an option is out of range.
    """
    if validation_from_train is not None and not 0 < validation_from_train < 1:
        raise InvalidInputError(f"validation_from_train must lie in (0, 1); got {validation_from_train}")
    if data_dir is None:
        return _from_hub(validation_from_train, seed, revision)
    folder = _folder(require_dir(data_dir, CARD))
    table = _read(require_file(folder, ("metadata.csv",), CARD))
    codes = table["split"].to_numpy(dtype=np.int64)
    if validation_from_train is not None:
        train = np.flatnonzero(codes == SPLITS["train"])
        chosen = _held_out(table["y"].to_numpy()[train], table["place"].to_numpy()[train], validation_from_train, seed)
        codes = np.where(codes == SPLITS["validation"], -1, codes)
        codes[train[chosen]] = SPLITS["validation"]
    splits = {}
    for split, code in SPLITS.items():
        if not (codes == code).any():
            raise InvalidInputError(f"waterbirds: metadata.csv has no row for {split} (split {code})")
        splits[split] = _split(table[codes == code], folder)
    return assemble(splits, SPEC, "Waterbirds, forest2water2, 95 % aligned in training.")


def _folder(outer: Path) -> Path:
    """The folder of the table: the given one, or below it where the archive or a repository puts it."""
    if (outer / "metadata.csv").is_file():
        return outer
    # WILDS' archive has a name of its own.
    places = (outer / inner / name for name in (FOLDER, "waterbirds_v1.0") for inner in ("", "*", "*/*"))
    for place in places:
        found = sorted(outer.glob(str(place.relative_to(outer) / "metadata.csv")))
        if found:
            return found[0].parent
    return outer / FOLDER if (outer / FOLDER).is_dir() else outer


def _held_out(label: NDArray[Any], place: NDArray[Any], share: float, seed: int) -> NDArray[np.bool_]:
    """Which training rows become validation: the same share of every group."""
    return exact_flips(SPEC.encode(label, place), share, np.random.default_rng(seed))


def _from_hub(validation_from_train: float | None, seed: int, revision: str) -> Any:
    from datasets import Features, concatenate_datasets

    hub = load_hub(HUB, revision, CARD)
    parts = {}
    for split in SPLITS:
        label, place = (np.asarray(hub[split][name][:], dtype=np.int64) for name in ("label", "place"))
        columns = {"label": label, "attribute": place, "group": SPEC.encode(label, place)}
        # Side by side, so that no image is decoded here.
        own = build_split(columns, Features(group_features(SPEC)))
        parts[split] = concatenate_datasets([hub[split].select_columns(["image"]), own], axis=1)
    if validation_from_train is not None:
        train = parts["train"]
        label, place = (np.asarray(train[name][:]) for name in ("label", "attribute"))
        held = _held_out(label, place, validation_from_train, seed)
        parts["train"], parts["validation"] = train.select(np.flatnonzero(~held)), train.select(np.flatnonzero(held))
    return assemble(parts, SPEC, f"Waterbirds from {HUB}, revision {revision}, 95 % aligned in training.")


def _read(path: Path) -> pd.DataFrame:
    table = read_csv(path, where="waterbirds")
    require_columns(table, _COLUMNS, path, "waterbirds", CARD.source)
    where = f"waterbirds: {path}"
    for name, allowed in (("y", (0, 1)), ("place", (0, 1)), ("split", (0, 1, 2))):
        known_values(table, name, allowed, where)
    filled(table, "img_filename", where)
    table["img_id"] = numbers(table, "img_id", where, low=0, high=2**53, whole=True)
    return table


def _split(part: pd.DataFrame, folder: Path) -> Any:
    from datasets import Features, Image, Value

    paths = inside(folder, part["img_filename"].tolist(), f"waterbirds: {folder / 'metadata.csv'}")
    absent = next((path for path in paths if not path.is_file()), None)
    if absent is not None:
        raise missing(absent, CARD)
    label, place = part["y"].to_numpy(dtype=np.int64), part["place"].to_numpy(dtype=np.int64)
    columns = {
        "image": image_column(paths=[str(path) for path in paths]),
        "label": label,
        "attribute": place,
        "group": SPEC.encode(label, place),
        "img_id": part["img_id"].to_numpy(dtype=np.int64),
        "img_filename": part["img_filename"].tolist(),
        "place_filename": part["place_filename"].astype(object).fillna("").astype(str).tolist(),
    }
    text = {"img_id": Value("int64"), "img_filename": Value("string"), "place_filename": Value("string")}
    return build_split(columns, Features({"image": Image(), **group_features(SPEC), **text}))
