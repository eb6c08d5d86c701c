"""Examples without labels beside a run: how they are read, and what is said of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aifs_peft.data.notes import DataWarning
from aifs_peft.data.own import load_unlabelled as read
from aifs_peft.errors import InvalidInputError
from aifs_peft.experiments import FinetuneSpec
from aifs_peft.experiments.loading import load_data
from aifs_peft.experiments.telling import unlabelled_sentence
from aifs_peft.experiments.unlabelled import describe_unlabelled, load_unlabelled


def tables(folder: Path, new: pd.DataFrame) -> tuple[Path, Path]:
    """A training table with a latent in a column of a name of its own, and another table."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"latent": list(rng.normal(size=(80, 4))), "finding": ["yes", "no"] * 40})
    rows.to_parquet(folder / "train.parquet")
    new.to_parquet(folder / "new.parquet")
    return folder / "train.parquet", folder / "new.parquet"


def test_columns_are_those_of_the_training_set_and_labels_are_left_out(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(60, 4))
    new = pd.DataFrame({"latent": list(values), "finding": [None] * 60, "label": range(60)})
    train, pool = tables(tmp_path, new)
    options = {"features": "latent"}
    spec = FinetuneSpec(dataset=str(train), label="finding", unlabelled=str(pool), dataset_options=options)
    rows = load_unlabelled(spec, load_data(spec)["train"], "features")
    assert rows is not None
    assert rows.column_names == ["features"]
    np.testing.assert_allclose(np.asarray(rows["features"][:]), values, rtol=1e-5)


def test_rows_with_gaps_are_refused_or_left_out_as_those_of_the_training_set(tmp_path: Path) -> None:
    new = pd.DataFrame({"a": [*np.arange(69.0), np.nan], "b": 1.0})
    train = tmp_path / "train.csv"
    pd.DataFrame({"a": np.arange(80.0), "b": 2.0, "label": ["x", "y"] * 40}).to_csv(train, index=False)
    new.to_csv(tmp_path / "new.csv", index=False)
    for missing, n in (("error", 0), ("drop", 69)):
        options = {"features": ["a", "b"], "missing": missing}
        spec = FinetuneSpec(dataset=str(train), unlabelled=str(tmp_path / "new.csv"), dataset_options=options)
        splits = load_data(spec)
        if not n:
            with pytest.raises(InvalidInputError, match=r"missing in 1 of 70 rows \(row 69\)"):
                load_unlabelled(spec, splits["train"], "features")
            continue
        with pytest.warns(DataWarning, match="left out"):
            rows = load_unlabelled(spec, splits["train"], "features")
        assert rows is not None
        assert len(rows) == n


def test_beside_a_known_data_set_the_columns_are_those_of_the_examples(tmp_path: Path) -> None:
    pd.DataFrame({"said": [f"text {i}" for i in range(60)]}).to_csv(tmp_path / "new.csv", index=False)
    spec = FinetuneSpec(dataset="jigsaw_templates", text="said", unlabelled=str(tmp_path / "new.csv"))
    train = pd.DataFrame({"text": ["a"], "label": [0]})
    rows = load_unlabelled(spec, train, "text")  # type: ignore[arg-type]
    assert rows is not None
    assert rows[3] == {"text": "text 3"}


def test_all_splits_are_read_and_a_label_among_numbers_is_no_feature() -> None:
    frame = pd.DataFrame({"split": ["train", "test"] * 5, "y": range(10), "a": range(10), "b": 1.0, "site": range(10)})
    rows = read(frame, features="all", beside=["site"])
    assert np.asarray(rows["features"][:]).tolist() == [[float(i), 1.0] for i in range(10)]


@pytest.mark.parametrize(
    ("shares", "found", "told"),
    [
        ([1.0], True, " and used: what was found rests on them."),
        ([0.5], True, " and used: part of what was found rests on them."),
        ([0.0], True, " and not used. What was found does not rest on them."),
        ([0.0], False, " and not used. With them nothing was found either."),
        ([1.0, 0.0], False, " and not used. With them nothing was found either."),
        ([], None, ", and whether they were used was not recorded."),
    ],
)
def test_what_is_said_is_true_for_every_outcome(shares: list[float], found: bool | None, told: str) -> None:
    history = [{"loss": 1.0}, *({"rests_on_unlabelled": share} for share in shares), {"loss": 0.5}]
    summary = {"found": found, "unlabelled": describe_unlabelled("new.csv", 400, history)}
    assert unlabelled_sentence(summary) == f"400 unlabelled examples were read{told}"


def test_a_run_without_any_is_silent() -> None:
    assert unlabelled_sentence({"found": True, "unlabelled": None}) == ""
    assert unlabelled_sentence({"found": True}) == ""
