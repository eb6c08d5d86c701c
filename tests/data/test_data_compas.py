"""COMPAS on the real table: ProPublica's filter, the known cell counts, the encoding."""

import numpy as np
import pandas as pd
import pytest

from aifs_peft.data import group_array, group_spec, load
from aifs_peft.data.sampling import subsample
from aifs_peft.errors import DataNotFoundError, InvalidInputError

COUNTS = {  # after the filter: two_year_recid 0 and 1, from the source's README
    "African-American": (1514, 1661),
    "Caucasian": (1281, 822),
    "Hispanic": (320, 189),
    "Other": (219, 124),
    "Asian": (23, 8),
    "Native American": (6, 5),
}


@pytest.fixture(scope="module")
def folder(shared_dir):
    return shared_dir / "data" / "compas"


def _total(data):
    spec = group_spec(data)
    return dict(zip(spec.names, sum(spec.counts(group_array(part)) for part in data.values()).tolist(), strict=True))


def test_race_cells_are_the_published_ones(folder):
    counts = _total(load("compas", folder, races=None))
    assert sum(counts.values()) == 6172
    for race, (none, rearrest) in COUNTS.items():
        assert counts[f"no rearrest x {race}"] == none
        assert counts[f"rearrest x {race}"] == rearrest


def test_sex_cells_and_the_default_races(folder):
    counts = _total(load("compas", folder, attribute="sex", races=None))
    assert list(counts.values()) == [762, 2601, 413, 2396]
    default = _total(load("compas", folder))
    assert sum(default.values()) == 5278
    assert list(default.values()) == [1514, 1281, 1661, 822]


def test_features_are_standardised_on_train_and_hold_no_protected_column(folder):
    data = load("compas", folder)
    train = np.asarray(data["train"].with_format("numpy")["features"][:])
    assert train.dtype == np.float32
    assert train.shape[1] == 5 + 2 + 3  # numbers, charge degree, age category
    assert np.abs(train[:, :5].mean(axis=0)).max() < 1e-5
    assert np.abs(train[:, :5].std(axis=0) - 1).max() < 1e-4
    assert np.array_equal(train[:, 5:7].sum(axis=1), np.ones(len(train)))
    wide = load("compas", folder, include_protected=True)
    assert len(wide["train"][0]["features"]) == 10 + 2 + 2


def test_the_split_is_stratified_disjoint_and_seeded(folder):
    data = load("compas", folder, validation_share=0.25, test_share=0.25)
    spec = group_spec(data)
    counts = {s: spec.counts(group_array(p)) for s, p in data.items()}
    total = sum(counts.values())
    assert np.abs(counts["test"] - 0.25 * total).max() <= 1
    assert np.abs(counts["validation"] - 0.25 * total).max() <= 1
    assert sum(len(p) for p in data.values()) == 5278
    assert data["test"]["age"][:] == load("compas", folder, validation_share=0.25, test_share=0.25)["test"]["age"][:]
    assert data["test"]["age"][:] != load("compas", folder, test_share=0.25, seed=1)["test"]["age"][:]


@pytest.mark.parametrize("share", [0.6, 0.8, 0.95, 1.0])
def test_subsampling_reaches_the_requested_share(folder, share):
    data = load("compas", folder, aligned=share)
    for split in ("train", "validation"):
        part = data[split]
        follows = np.asarray(part["label"][:]) == np.asarray(part["attribute"][:])
        assert abs(follows.mean() - share) <= 1 / len(part)
    assert len(data["test"]) == len(load("compas", folder)["test"])


def test_subsample_keeps_as_many_rows_as_possible():
    follows = np.arange(100) < 70
    kept = subsample(np.arange(100), follows, 0.5, np.random.default_rng(0))
    assert len(kept) == 60
    assert subsample(np.arange(100), follows, 0.0, np.random.default_rng(0)).tolist() == list(range(70, 100))
    with pytest.raises(InvalidInputError, match="no row is left"):
        subsample(np.arange(70, 100), follows, 1.0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attribute": "age"}, "attribute must be 'race' or 'sex'"),
        ({"races": ("Martian",)}, "races must be taken from African-American"),
        ({"races": None, "aligned": 0.9}, "two values; race has 6"),
        ({"test_share": 0.9, "validation_share": 0.1}, "leave rows to train on"),
        ({"aligned": 1.5}, "aligned must be a share"),
    ],
)
def test_options_out_of_range_are_refused(folder, options, match):
    with pytest.raises(InvalidInputError, match=match):
        load("compas", folder, **options)


def test_files_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"compas-scores-two-years\.csv is missing\. Get it from https"):
        load("compas", tmp_path)
    with pytest.raises(DataNotFoundError, match="data_dir was not given"):
        load("compas")
    pd.DataFrame({"age": [1], "race": ["x"]}).to_csv(tmp_path / "compas-scores-two-years.csv", index=False)
    with pytest.raises(InvalidInputError, match="lacks the columns days_b_screening_arrest"):
        load("compas", tmp_path)


def test_a_table_that_the_filter_empties_is_refused(tmp_path, folder):
    table = pd.read_csv(folder / "compas-scores-two-years.csv.gz").head(20)
    table["is_recid"] = -1
    table.to_csv(tmp_path / "compas-scores-two-years.csv", index=False)
    with pytest.raises(InvalidInputError, match=r"no row of .* passes ProPublica's filter"):
        load("compas", tmp_path)
