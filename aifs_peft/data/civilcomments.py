"""CivilComments: is a comment toxic, whoever it mentions?

Borkan et al., "Nuanced Metrics for Measuring Unintended Bias" (2019); WILDS (Koh et al., 2021) fixes the split.
Three definitions of the groups are in use, and a number under one is not comparable with a number under another,
so each is a data set of its own name:

- `civilcomments`: WILDS' 16 *overlapping* groups, label x eight identities. `group` is a boolean list; a comment
  without an identity lies in no group.
- `civilcomments_coarse`: a partition in four, label x whether any identity is mentioned.
- `civilcomments_hub`: `google/civil_comments` from the Hub, which publishes no identity columns; a partition in
  four, label x whether a rater saw an attack on an identity. A different task from the other two.

A comment is toxic, and an identity is mentioned, where at least half of the raters say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.reading import known_values, numbers, read_csv, reading, require_columns
from aifs_peft.data.sources import DataCard, load_hub, require_dir, require_file
from aifs_peft.data.tables import assemble, build_split, group_features
from aifs_peft.errors import DataNotFoundError, InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

CLASSES = ("nontoxic", "toxic")
IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")
SPLITS = {"train": "train", "val": "validation", "test": "test"}
FILE = "all_data_with_identities.csv"
OVERLAPPING = GroupSpec("civilcomments: 16 overlapping, toxicity x identity (WILDS)", CLASSES, IDENTITIES, True)
COARSE = GroupSpec("civilcomments_coarse: 4, toxicity x any identity", CLASSES, ("no identity", "any identity"))
HUB = GroupSpec("civilcomments_hub: 4, toxicity x identity attack", CLASSES, ("no attack", "identity attack"))
_LAYOUT = f"data_dir/{FILE} or data_dir/civilcomments_v1.0/{FILE}, as in the archive"
_SOURCE = "https://wilds.stanford.edu/datasets/#civilcomments"
CARD = DataCard(
    name="civilcomments",
    title="toxicity of online comments, WILDS split, 16 overlapping identity groups",
    inputs=("text",),
    groups="toxicity x identity, overlapping (16): a boolean list",
    source=_SOURCE,
    layout=_LAYOUT,
    terms="CC0; contains offensive language",
)
COARSE_CARD = DataCard(
    name="civilcomments_coarse",
    title="toxicity of online comments, WILDS split, four coarse groups",
    inputs=("text",),
    groups="toxicity x whether any identity is mentioned (4)",
    source=_SOURCE,
    layout=_LAYOUT,
    terms="CC0; contains offensive language",
)
HUB_CARD = DataCard(
    name="civilcomments_hub",
    title="toxicity of online comments from the Hub, which has no identity columns",
    inputs=("text",),
    groups="toxicity x identity attack (4); not comparable with the other two",
    source="https://huggingface.co/datasets/google/civil_comments",
    layout="data_dir=None for the Hub, or data_dir/data/{train,validation,test}-*.parquet",
    terms="CC0; contains offensive language",
)


def load_civilcomments(data_dir: str | Path | None = None, *, max_per_split: int | None = None) -> Any:
    """Load CivilComments with the 16 overlapping groups of WILDS.

    Columns: `text`, `label`, `group` (16 booleans, in the order of the definition), the eight identities as
    booleans, and the metadata `toxicity` and `identity_any`.

    Args:
        data_dir: folder with the CSV file of WILDS.
        max_per_split: at most the first so many rows of each split; None for all.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        DataNotFoundError: the file is missing.
        InvalidInputError: the file lacks columns or splits.
    """
    return _load_wilds(data_dir, max_per_split, OVERLAPPING, CARD)


def load_civilcomments_coarse(data_dir: str | Path | None = None, *, max_per_split: int | None = None) -> Any:
    """Load CivilComments with four coarse groups, a partition: training methods that need one can use it.

    Columns, arguments and errors as in `load_civilcomments`, but `group` is a ClassLabel and `attribute` says
    whether any identity is mentioned.
    """
    return _load_wilds(data_dir, max_per_split, COARSE, COARSE_CARD)


def load_civilcomments_hub(
    data_dir: str | Path | None = None, *, revision: str = "main", max_per_split: int | None = None
) -> Any:
    """Load `google/civil_comments` with toxicity x identity attack.

    Args:
        data_dir: folder with a copy of the Parquet files; None for the Hub.
        revision: Hub revision.
        max_per_split: at most the first so many rows of each split; None for all.

    Returns:
        `datasets.DatasetDict` with the columns `text`, `label`, `attribute`, `group`, `toxicity`, `identity_attack`.

    Raises:
        DataNotFoundError: the Hub cannot be reached, or the folder lacks a file.
    """
    from datasets import Features, Value

    features = Features(
        {
            "text": Value("string"),
            **group_features(HUB),
            "toxicity": Value("float32"),
            "identity_attack": Value("float32"),
        }
    )
    raw = load_hub("google/civil_comments", revision, HUB_CARD) if data_dir is None else _parquet(data_dir)
    splits = {}
    for split in SPLITS.values():
        part = raw[split]
        part = part.select(range(_limit(max_per_split, len(part))))
        table = part.select_columns(["text", "toxicity", "identity_attack"]).to_pandas()
        where = f"civilcomments_hub, {split}"
        toxicity, attack = (numbers(table, name, where, low=0, high=1) for name in ("toxicity", "identity_attack"))
        if not all(isinstance(text, str) for text in part["text"][:]):
            raise InvalidInputError(f"{where}: column 'text' holds values that are no text")
        label, attribute = (toxicity >= 0.5).astype(np.int64), (attack >= 0.5).astype(np.int64)
        columns = {
            "text": part["text"][:],
            "label": label,
            "attribute": attribute,
            "group": HUB.encode(label, attribute),
        }
        splits[split] = build_split({**columns, "toxicity": toxicity, "identity_attack": attack}, features)
    return assemble(splits, HUB, f"google/civil_comments, revision {revision}.")


def _parquet(data_dir: str | Path) -> Any:
    import datasets

    folder = require_dir(data_dir, HUB_CARD)
    folder = folder / "data" if (folder / "data").is_dir() else folder
    parts = {}
    for split in SPLITS.values():
        files = sorted(folder.glob(f"{split}-*.parquet"))
        if not files:
            raise DataNotFoundError(
                f"civilcomments_hub: {folder / split}-*.parquet is missing. Get it from {HUB_CARD.source}. "
                f"Expected layout: {HUB_CARD.layout}"
            )
        parts[split] = datasets.Dataset(_arrow(files))
    return parts


def _arrow(files: list[Path]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for file in files:
        with reading(file, "a Parquet table", "civilcomments_hub"):
            tables.append(pq.ParquetFile(file).read().select(["text", "toxicity", "identity_attack"]))
    with reading(files[0].parent, "Parquet tables of the same columns", "civilcomments_hub"):
        return pa.concat_tables(tables)


def _limit(wanted: int | None, available: int) -> int:
    if wanted is not None and (not isinstance(wanted, int) or wanted < 1):
        raise InvalidInputError(f"max_per_split must be at least 1; got {wanted}")
    return available if wanted is None else min(wanted, available)


def _load_wilds(data_dir: str | Path | None, limit: int | None, spec: GroupSpec, card: DataCard) -> Any:
    if data_dir is None:
        raise DataNotFoundError(
            f"{card.name}: data_dir was not given. The copy on the Hub has no identity columns, so these groups need "
            f"the file of WILDS, from {card.source}; load('civilcomments_hub') reads the Hub's with other groups. "
            f"Expected layout: {card.layout}"
        )
    folder = require_dir(data_dir, card)
    nested = folder / "civilcomments_v1.0"
    table = _read_csv(require_file(nested if nested.is_dir() else folder, (FILE,), card), card)
    splits = {}
    for official, split in SPLITS.items():
        part = table[table["split"] == official]
        if part.empty:
            raise InvalidInputError(f"{card.name}: {FILE} has no row with split {official!r}")
        splits[split] = _wilds_split(part.iloc[: _limit(limit, len(part))], spec)
    return assemble(splits, spec, f"CivilComments, WILDS split; groups: {spec.definition}.")


def _read_csv(path: Path, card: DataCard) -> pd.DataFrame:
    scores = ["toxicity", "identity_any", *IDENTITIES]
    needed = ["comment_text", "split", *scores]
    # A comment that reads "nan" or "NA" is text.
    table = read_csv(
        path, where=card.name, usecols=lambda name: name in needed, keep_default_na=False,
        na_values={name: ["", "nan", "NaN"] for name in scores}, dtype={"comment_text": str, "split": str},
    )  # fmt: skip
    require_columns(table, needed, path, card.name, card.source)
    where = f"{card.name}: {path}"
    known_values(table, "split", tuple(SPLITS), where)
    missing = int(table["toxicity"].isna().sum())
    if missing:
        raise InvalidInputError(f"{where} has {missing} rows without toxicity")
    # An identity nobody was asked about is empty.
    for name in scores:
        table[name] = numbers(table, name, where, low=0, high=1, missing=name != "toxicity")
    return table


def _wilds_split(part: pd.DataFrame, spec: GroupSpec) -> Any:
    from datasets import ClassLabel, Features, List, Value

    label = (part["toxicity"].to_numpy() >= 0.5).astype(np.int64)
    # An identity nobody was asked about is empty, and counts as not mentioned.
    mentions: NDArray[np.bool_] = part[list(IDENTITIES)].to_numpy(dtype=np.float64) >= 0.5
    any_identity = (part["identity_any"].to_numpy(dtype=np.float64) >= 0.5).astype(np.int64)
    columns: dict[str, Any] = {
        "text": part["comment_text"].tolist(),
        "label": label,
        **{name: mentions[:, i] for i, name in enumerate(IDENTITIES)},
        "toxicity": part["toxicity"].to_numpy(dtype=np.float32),
        "identity_any": any_identity.astype(bool),
    }
    features = {
        "text": Value("string"),
        "label": ClassLabel(names=list(CLASSES)),
        **{name: Value("bool") for name in IDENTITIES},
        "toxicity": Value("float32"),
        "identity_any": Value("bool"),
    }
    if spec.overlapping:
        columns["group"] = spec.membership(label, mentions).tolist()
        features["group"] = List(Value("bool"), length=spec.num_groups)
    else:
        columns.update(attribute=any_identity, group=spec.encode(label, any_identity))
        features.update(group_features(spec))
    return build_split(columns, Features(features))
