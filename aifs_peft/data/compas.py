"""COMPAS: ProPublica's table of two-year recidivism, as tabular features.

Label: rearrest within two years. Group: label x race, or label x sex. Rows are filtered as ProPublica's
notebook does (propublica/compas-analysis, "Compas Analysis.ipynb"): the screening lies within 30 days of the
arrest, recidivism is known, ordinary traffic offences and missing scores are left out; 7,214 rows become 6,172.
These are records about real persons: names, birth dates and case numbers are never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.data.groups import GroupSpec
from aifs_peft.data.reading import filled, known_values, numbers, read_csv, require_columns
from aifs_peft.data.sampling import check_share, stratified_cut, subsample
from aifs_peft.data.sources import DataCard, require_dir, require_file
from aifs_peft.data.tables import assemble, build_split, group_features, vector_column
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

CARD = DataCard(
    name="compas",
    title="two-year recidivism of defendants in Broward County, 2013-2014 (ProPublica), tabular",
    inputs=("features",),
    groups="label x race (4 with the default races) or label x sex (4)",
    source="https://github.com/propublica/compas-analysis (compas-scores-two-years.csv)",
    layout="data_dir/compas-scores-two-years.csv or compas-scores-two-years.csv.gz, with its header",
    terms="none stated by the source; records about real persons, do not try to identify anybody",
)
CLASSES = ("no rearrest", "rearrest")
NUMERIC = ("age", "priors_count", "juv_fel_count", "juv_misd_count", "juv_other_count")
CATEGORICAL = ("c_charge_degree", "age_cat")
_FILTER = ("days_b_screening_arrest", "is_recid", "c_charge_degree", "score_text", "two_year_recid")
FILES = ("compas-scores-two-years.csv", "compas-scores-two-years.csv.gz")


def load_compas(
    data_dir: str | Path | None = None,
    *,
    attribute: str = "race",
    races: Sequence[str] | None = ("African-American", "Caucasian"),
    include_protected: bool = False,
    aligned: float | None = None,
    validation_share: float = 0.2,
    test_share: float = 0.2,
    seed: int = 0,
) -> Any:
    """Load COMPAS.

    Columns: `features` (float32 vector: standardised numbers and one-hot categories, fitted on the training
    split), `label`, `attribute`, `group`, and the metadata `race`, `sex`, `age`, `decile_score`. The split is
    random, stratified by group.

    Args:
        data_dir: folder with the CSV file.
        attribute: `race` or `sex`.
        races: races to keep, in this order; None for all six. With `attribute="sex"` they only filter.
        include_protected: give race and sex to the model as features.
        aligned: subsample the cells of training and validation until this share of rows has attribute index equal
            to the label; None keeps the natural, weak correlation. Needs an attribute with two values.
        validation_share: share of rows for validation.
        test_share: share of rows for the test, which is never subsampled.
        seed: seed of the split and of the subsampling.

    Returns:
        `datasets.DatasetDict` with train, validation and test.

    Raises:
        InvalidInputError: an option is out of range, or columns are missing.
        DataNotFoundError: the file is missing.
    """
    if attribute not in ("race", "sex"):
        raise InvalidInputError(f"attribute must be 'race' or 'sex'; got {attribute!r}")
    table, total = _read(data_dir)
    known = sorted(table["race"].unique())
    kept = known if races is None else list(races)
    if not kept or set(kept) - set(known):
        raise InvalidInputError(f"races must be taken from {', '.join(known)}; got {kept}")
    table = table[table["race"].isin(kept)].reset_index(drop=True)
    values = tuple(kept) if attribute == "race" else tuple(sorted(table["sex"].unique()))
    spec = GroupSpec(f"compas: rearrest x {attribute}", CLASSES, values)
    label = table["two_year_recid"].to_numpy(dtype=np.int64)
    index = table[attribute].map({v: i for i, v in enumerate(values)}).to_numpy(dtype=np.int64)
    group = spec.encode(label, index)
    rows = stratified_cut(group, validation_share, test_share, np.random.default_rng([seed, 0]))
    if aligned is not None:
        if len(values) != 2:
            raise InvalidInputError(f"aligned needs an attribute with two values; {attribute} has {len(values)}")
        rng = np.random.default_rng([seed, 1])
        for split in ("train", "validation"):
            rows[split] = subsample(rows[split], label == index, check_share("aligned", aligned), rng)
    encoded = _encode(table, rows["train"], include_protected)
    splits = {s: _split(table, encoded, r, label, index, spec) for s, r in rows.items()}
    text = f"COMPAS, {len(table)} of {total} rows: ProPublica's filter, races {', '.join(kept)}. Seed {seed}."
    return assemble(splits, spec, text)


def _read(data_dir: str | Path | None) -> tuple[pd.DataFrame, int]:
    """The filtered table, only with the columns that are used, and how many rows the file has."""
    path = require_file(require_dir(data_dir, CARD), FILES, CARD)
    needed = list(dict.fromkeys((*_FILTER, *NUMERIC, *CATEGORICAL, "race", "sex", "decile_score")))
    # "N/A" is a value of score_text, and the filter of the source drops it like a missing one.
    table = read_csv(path, where="compas", usecols=lambda name: name in needed)
    require_columns(table, needed, path, "compas", CARD.source)
    where = f"compas: {path}"
    days = numbers(table, "days_b_screening_arrest", where, missing=True)
    recid = numbers(table, "is_recid", where, allowed=(-1, 0, 1))
    # A day that is missing lies in no range.
    with np.errstate(invalid="ignore"):
        keep = (days >= -30) & (days <= 30) & (recid != -1)
    keep &= (table["c_charge_degree"] != "O").to_numpy() & table["score_text"].notna().to_numpy()
    if not keep.any():
        raise InvalidInputError(f"compas: no row of {path} passes ProPublica's filter; is it the original file?")
    return _checked(table[keep].reset_index(drop=True), f"{where}, after ProPublica's filter"), len(table)


def _checked(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Refuse what cannot be a person's age, count or score: it would become a feature that is not finite."""
    for column, low, high in (("age", 0, 150), ("decile_score", -1, 10), *((name, 0, 10_000) for name in NUMERIC[1:])):
        table[column] = numbers(table, column, where, low=low, high=high, whole=True).astype(np.int64)
    known_values(table, "two_year_recid", (0, 1), where)
    for column in (*CATEGORICAL, "race", "sex"):
        filled(table, column, where)
        table[column] = table[column].astype(str)
    return table


def _encode(table: pd.DataFrame, train: NDArray[np.int64], include_protected: bool) -> NDArray[np.float32]:
    """Standardise and one-hot with what the training rows show; a category they lack becomes all zero."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categories = [*CATEGORICAL, *(("race", "sex") if include_protected else ())]
    encoder = ColumnTransformer(
        [
            ("numbers", StandardScaler(), list(NUMERIC)),
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), categories),
        ]
    )
    encoder.fit(table.iloc[train])
    return np.asarray(encoder.transform(table), dtype=np.float32)


def _split(
    table: pd.DataFrame,
    encoded: NDArray[np.float32],
    rows: NDArray[np.int64],
    label: NDArray[np.int64],
    index: NDArray[np.int64],
    spec: GroupSpec,
) -> Any:
    from datasets import Features, List, Value

    part = table.iloc[rows]
    features = Features(
        {
            "features": List(Value("float32"), length=encoded.shape[1]),
            **group_features(spec),
            "race": Value("string"),
            "sex": Value("string"),
            "age": Value("int64"),
            "decile_score": Value("int64"),
        }
    )
    columns = {
        "features": vector_column(encoded[rows]),
        "label": label[rows],
        "attribute": index[rows],
        "group": spec.encode(label[rows], index[rows]),
        "race": part["race"].tolist(),
        "sex": part["sex"].tolist(),
        "age": part["age"].to_numpy(dtype=np.int64),
        "decile_score": part["decile_score"].to_numpy(dtype=np.int64),
    }
    return build_split(columns, features)
