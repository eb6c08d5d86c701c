"""CivilComments in its three definitions, and the sentence templates that stand in for it."""

import datasets
import numpy as np
import pytest
from wilds_csv import write_wilds

from aifs_peft.data import group_array, group_spec, load
from aifs_peft.data.civilcomments import FILE, IDENTITIES
from aifs_peft.errors import DataNotFoundError, InvalidInputError


@pytest.fixture
def wilds(tmp_path):
    return tmp_path, write_wilds(tmp_path)


def test_sixteen_overlapping_groups_equal_a_direct_count(wilds):
    folder, table = wilds
    data = load("civilcomments", folder)
    spec = group_spec(data)
    assert spec.overlapping
    assert spec.num_groups == 16
    for split, official in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows = table[table["split"] == official]
        counts = dict(zip(spec.names, spec.counts(group_array(data[split])).tolist(), strict=True))
        for identity in IDENTITIES:
            mention = rows[identity] >= 0.5
            assert counts[f"toxic x {identity}"] == int((mention & (rows["toxicity"] >= 0.5)).sum())
            assert counts[f"nontoxic x {identity}"] == int((mention & (rows["toxicity"] < 0.5)).sum())
    assert data["train"][0]["text"] == "nan"
    assert len(data["train"][0]["group"]) == 16
    assert data["train"].features["group"].length == 16


def test_coarse_groups_are_a_partition_under_another_name(wilds):
    folder, table = wilds
    data = load("civilcomments_coarse", folder)
    spec = group_spec(data)
    assert not spec.overlapping
    assert spec.definition != group_spec(load("civilcomments", folder)).definition
    rows = table[table["split"] == "test"]
    wanted = 2 * (rows["toxicity"] >= 0.5).astype(int) + (rows["identity_any"] >= 0.5).astype(int)
    assert group_array(data["test"]).tolist() == wanted.tolist()
    assert data["test"].features["group"].names == list(spec.names)


def test_at_most_so_many_rows_per_split(wilds):
    data = load("civilcomments", wilds[0], max_per_split=7)
    assert [len(p) for p in data.values()] == [7, 7, 7]
    assert len(load("civilcomments", wilds[0], max_per_split=1000)["train"]) == 100
    with pytest.raises(InvalidInputError, match="max_per_split must be at least 1"):
        load("civilcomments", wilds[0], max_per_split=0)


def test_files_that_do_not_fit_are_named(wilds, tmp_path):
    table = wilds[1]
    with pytest.raises(DataNotFoundError, match=r"no identity columns.*civilcomments_hub"):
        load("civilcomments")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataNotFoundError, match=r"all_data_with_identities\.csv is missing"):
        load("civilcomments_coarse", empty)
    table.drop(columns=["LGBTQ"]).to_csv(empty / FILE)
    with pytest.raises(InvalidInputError, match="lacks the columns LGBTQ"):
        load("civilcomments", empty)
    table[table["split"] != "val"].to_csv(empty / FILE)
    with pytest.raises(InvalidInputError, match="no row with split 'val'"):
        load("civilcomments", empty)
    table.assign(toxicity=[np.nan, *table["toxicity"][1:]]).to_csv(empty / FILE)
    with pytest.raises(InvalidInputError, match="1 rows without toxicity"):
        load("civilcomments", empty)


def _hub():
    rows = {
        "text": ["a", "b", "c"],
        "toxicity": [0.0, 0.6, 0.5],
        "identity_attack": [0.5, 0.0, 0.7],
        "threat": [0.0] * 3,
    }
    return datasets.DatasetDict({s: datasets.Dataset.from_dict(rows) for s in ("train", "validation", "test")})


def test_hub_copy_has_its_own_name_groups_and_revision(monkeypatch):
    asked = []

    def fake(name, revision, **options):
        asked.append((name, revision))
        return _hub()

    monkeypatch.setattr(datasets, "load_dataset", fake)
    data = load("civilcomments_hub", revision="r1")
    assert asked == [("google/civil_comments", "r1")]
    assert group_array(data["test"]).tolist() == [1, 2, 3]
    assert group_spec(data).names[3] == "toxic x identity attack"


def test_hub_copy_from_local_parquet(tmp_path):
    (tmp_path / "data").mkdir()
    hub = _hub()
    for split in ("train", "validation"):
        hub[split].to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    with pytest.raises(DataNotFoundError, match=r"test-\*\.parquet is missing"):
        load("civilcomments_hub", tmp_path)
    hub["test"].to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    data = load("civilcomments_hub", tmp_path, max_per_split=2)
    assert data["train"]["text"][:] == ["a", "b"]


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_templates_reach_the_requested_share_and_the_test_is_balanced(shared_dir, share):
    data = load("jigsaw_templates", shared_dir / "data" / "jigsaw_templates", aligned=share)
    for split in ("train", "validation"):
        part = data[split]
        follows = np.asarray(part["label"][:]) == np.asarray(part["attribute"][:])
        assert abs(follows.mean() - share) <= 1 / len(part)
    test = data["test"].to_pandas()
    cells = test.groupby(["identity", "label"]).size().unstack()
    assert len(cells) == 50
    assert cells.to_numpy().max() - cells.to_numpy().min() <= 1
    assert not set(test["text"]) & set(data["train"]["text"][:])
    assert not set(data["validation"]["text"][:]) & set(data["train"]["text"][:])
    assert "none" not in set(test["identity"])


def test_tied_terms_can_be_named(shared_dir):
    folder = shared_dir / "data" / "jigsaw_templates"
    train = load("jigsaw_templates", folder, tied=("muslim", "gay"), aligned=0.9)["train"].to_pandas()
    assert set(train[train["attribute"] == 1]["identity"]) == {"muslim", "gay"}
    with pytest.raises(InvalidInputError, match="tied must be some, not all"):
        load("jigsaw_templates", folder, tied=("nobody",))
    with pytest.raises(InvalidInputError, match="leave rows to train on"):
        load("jigsaw_templates", folder, test_share=1.0)


def test_template_files_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "en_sentence_templates.csv"
    with pytest.raises(DataNotFoundError, match=r"en_sentence_templates\.csv is missing"):
        load("jigsaw_templates", tmp_path)
    path.write_text("template,toxicity,phrase\na,toxic,b\n")
    with pytest.raises(InvalidInputError, match="lacks the columns identity"):
        load("jigsaw_templates", tmp_path)
    path.write_text("template,toxicity,phrase,identity\na,bad,b,c\n")
    with pytest.raises(InvalidInputError, match="unknown values of toxicity: \\['bad'\\]"):
        load("jigsaw_templates", tmp_path)
