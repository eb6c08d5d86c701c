"""Jigsaw's synthetic sentences: a text stand-in for CivilComments that needs no download of comments.

Sentences such as "Being <identity> is <adjective>" (Dixon et al., "Measuring and Mitigating Unintended Bias in
Text Classification", 2018). Toxicity is tied to a set of identity terms for a chosen share of the training rows
by leaving rows out; the test holds every identity equally often in both classes. Contains offensive language.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.reading import read_csv, require_columns
from aifs_peft.data.sampling import check_cut, check_share, exact_flips, subsample
from aifs_peft.data.sources import DataCard, require_dir, require_file
from aifs_peft.data.tables import assemble, build_split, group_features
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

FILES = ("en_sentence_templates.csv", "en_sentence_templates.csv.gz")
CLASSES = ("nontoxic", "toxic")
_COLUMNS = ("template", "toxicity", "phrase", "identity")
CARD = DataCard(
    name="jigsaw_templates",
    title="synthetic toxic and nontoxic sentences about identity terms",
    inputs=("text",),
    groups="toxicity x whether the identity is one of the tied terms (4)",
    source="https://github.com/conversationai/unintended-ml-bias-analysis (sentence_templates)",
    layout="data_dir/en_sentence_templates.csv(.gz) with the columns template, toxicity, phrase, identity",
    terms="CC BY 4.0 (Conversation AI / Jigsaw); contains offensive language",
)


def load_jigsaw_templates(
    data_dir: str | Path | None = None,
    *,
    tied: Sequence[str] | None = None,
    aligned: float = 0.95,
    validation_share: float = 0.15,
    test_share: float = 0.3,
    seed: int = 0,
) -> Any:
    """Load the sentence templates with a planted correlation.

    Columns: `text`, `label`, `attribute`, `group`, and the metadata `identity` and `template`.

    Args:
        data_dir: folder with the CSV file.
        tied: identity terms that go with toxicity; None for the first half of the terms in alphabetical order.
        aligned: share of training and validation rows that are toxic and tied, or nontoxic and not tied. Rows are
            left out, none is invented; rows without an identity are not used.
        validation_share: share of the sentences for validation.
        test_share: share of the sentences for the test, which stays balanced.
        seed: seed of the split and of the subsampling.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        DataNotFoundError: the file is missing.
        InvalidInputError: an option is out of range, or columns are missing.
    """
    table = _read(data_dir)
    terms = sorted(table["identity"].unique())
    chosen = terms[: len(terms) // 2] if tied is None else list(tied)
    if not chosen or set(chosen) - set(terms) or set(chosen) == set(terms):
        raise InvalidInputError(f"tied must be some, not all, of {', '.join(terms)}; got {chosen}")
    label = (table["toxicity"] == "toxic").to_numpy(dtype=np.int64)
    attribute = table["identity"].isin(chosen).to_numpy(dtype=np.int64)
    spec = GroupSpec("jigsaw_templates: toxicity x tied identity", CLASSES, ("other identity", "tied identity"))
    rng = np.random.default_rng(seed)
    rows = _split_rows(table, validation_share, test_share, rng)
    for split in ("train", "validation"):
        rows[split] = subsample(rows[split], label == attribute, check_share("aligned", aligned), rng)
    splits = {s: _split(table.iloc[r], label[r], attribute[r], spec) for s, r in rows.items()}
    used = sum(map(len, rows.values()))
    text = (
        f"Jigsaw sentence templates, aligned {aligned}: {used} of {len(table)} sentences with an identity. Seed {seed}."
    )
    return assemble(splits, spec, text)


def _read(data_dir: str | Path | None) -> pd.DataFrame:
    path = require_file(require_dir(data_dir, CARD), FILES, CARD)
    table = read_csv(path, where="jigsaw_templates", dtype=str, keep_default_na=False, na_values=[])
    require_columns(table, _COLUMNS, path, "jigsaw_templates", CARD.source)
    for column in _COLUMNS:
        empty = np.flatnonzero(table[column].isna() | (table[column].str.strip() == ""))
        if len(empty):
            raise InvalidInputError(
                f"jigsaw_templates: {path}: column {column!r} is empty in {len(empty)} rows (the first is {empty[0]})"
            )
    wrong = set(table["toxicity"]) - set(CLASSES)
    if wrong:
        raise InvalidInputError(f"jigsaw_templates: {path} has unknown values of toxicity: {sorted(wrong)}")
    return table[table["identity"] != "none"].reset_index(drop=True)


def _split_rows(
    table: pd.DataFrame, validation: float, test: float, rng: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """Split within each cell of toxicity x identity, so that the test stays balanced."""
    check_cut(validation, test)
    cells = table.groupby(["toxicity", "identity"]).ngroup().to_numpy(dtype=np.int64)
    in_test = exact_flips(cells, test, rng)
    rest = np.flatnonzero(~in_test)
    in_validation = exact_flips(cells[rest], validation / (1 - test), rng)
    return {"train": rest[~in_validation], "validation": rest[in_validation], "test": np.flatnonzero(in_test)}


def _split(part: pd.DataFrame, label: NDArray[np.int64], attribute: NDArray[np.int64], spec: GroupSpec) -> Any:
    from datasets import Features, Value

    features = Features(
        {"text": Value("string"), **group_features(spec), "identity": Value("string"), "template": Value("string")}
    )
    columns = {
        "text": part["phrase"].tolist(),
        "label": label,
        "attribute": attribute,
        "group": spec.encode(label, attribute),
        "identity": part["identity"].tolist(),
        "template": part["template"].tolist(),
    }
    return build_split(columns, features)
