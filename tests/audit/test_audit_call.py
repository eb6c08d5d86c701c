"""`audit` on latents: what it finds on planted data, what it says where there is nothing, and what it takes."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset
from planted_audit import planted, table

from aifs_peft import Audit, audit, discover
from aifs_peft.errors import InvalidConfigError, InvalidInputError


@pytest.fixture(scope="module")
def marked():
    return planted()


@pytest.fixture(scope="module")
def found(marked):
    Z, y, mark = marked
    return audit(Z, y, metadata=table(mark), class_names=["benign", "malignant"])


@pytest.fixture(scope="module")
def nothing():
    Z, y, _ = planted(contrast=0.0)
    columns = {"q": np.arange(len(y)) % 7, "goes with it": y}
    return audit(Z, y, metadata=columns, inputs=[f"{i}.png" for i in range(1000)])


def test_conflicting_examples_are_the_true_ones(marked, found):
    _, y, mark = marked
    rows, true = set(found.conflicting["row"]), set(np.flatnonzero(mark != y))
    assert len(rows & true) / len(rows) >= 0.95
    assert len(rows & true) / len(true) >= 0.95
    assert isinstance(found, Audit)
    assert found.evidence_words == "strong"


def test_conflicting_says_who_and_how_certain(marked, found):
    _, y, mark = marked
    frame = found.conflicting
    assert frame.columns[:5].tolist() == ["row", "input", "label", "inferred", "confidence"]
    assert frame["confidence"].is_monotonic_decreasing
    assert frame["confidence"].between(0.5, 1.0).all()
    names = np.array(["benign", "malignant"])
    assert (frame["label"] == names[y[frame["row"]]]).all()
    assert (frame["label"] != frame["inferred"]).all()
    right = (frame["inferred"] == names[mark[frame["row"]]]).mean()
    assert right >= 0.95
    assert frame["scanner"].tolist() == table(mark)["scanner"].iloc[frame["row"]].tolist()


def test_the_sentence_counts(found):
    assert found.sentence.startswith(f"{len(found.conflicting):,} of 1,000 examples go against the shortcut")
    assert "'scanner'" in found.sentence


def test_groups_are_all_examples(found):
    assert found.groups["n"].sum() == 1000
    assert found.groups.loc[found.groups["conflicting"], "n"].sum() == len(found.conflicting)
    assert np.allclose(found.groups.groupby("label")["share"].sum(), 1.0)


def test_projection_parts_the_attribute(marked, found):
    _, _, mark = marked
    points = found.projection
    by_mark = points["attribute_axis"].groupby(mark[points["row"]]).mean()
    assert by_mark[1] - by_mark[0] > 5.0
    assert abs(points[["class_axis", "attribute_axis"]].mean()).max() < 1e-6


def test_many_points_are_thinned_with_the_conflicting_ones_kept():
    Z, y, _ = planted(n=4000)
    points = audit(Z, y, harm=False).projection
    assert len(points) == 3000
    assert points["row"].is_monotonic_increasing
    assert (points["label"] != points["inferred"]).sum() == len(audit(Z, y, harm=False).conflicting)


def test_a_partition_beside_which_the_class_is_not_seen_is_told():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    mark = np.where(rng.random(600) < 0.94, y, 1 - y)
    Z = rng.normal(size=(600, 16))
    Z[:, 0] += 6 * mark  # the encoder sees the mark, and nothing of the class
    blind = audit(Z, y, random_state=0)
    assert not blind.found
    told = re.search(r"about (\d+) examples go against it", blind.sentence)
    assert told
    assert abs(int(told[1]) - (mark != y).sum()) <= 5
    assert "another encoder is needed" in blind.sentence


def test_nothing_found_is_an_answer(nothing):
    assert "another encoder" not in nothing.sentence
    assert not nothing.found
    assert nothing.evidence_words == "none"
    assert nothing.evidence == 0.0
    assert nothing.sentence.startswith("No shortcut was found in the latents of 1,000 images")
    assert len(nothing.conflicting) == 0
    assert nothing.harm is None
    assert nothing.model_harm is None
    assert "standard deviations was seen in" in nothing.looked_at["detectable_sentence"]
    assert nothing.associations["strength"].isna().all()
    assert not nothing.associations["significant"].any()
    # A column that is the label is the one to look at.
    assert nothing.associations["column"][0] == "goes with it"
    assert nothing.associations["with_label"][0] == pytest.approx(1.0)


def test_too_few_examples_are_told():
    Z, y, _ = planted(n=40)
    few = audit(Z, y)
    assert not few.found
    assert "too few examples to tell" in few.sentence
    assert "found by luck" in few.looked_at["detectable_sentence"]


@pytest.mark.parametrize("which", ["found", "nothing"])
def test_json_round_trip_without_nan(which, request):
    result = request.getfixturevalue(which)
    text = json.dumps(result.to_dict(), allow_nan=False)
    back = json.loads(text)
    assert back["found"] is result.found
    assert back["n_conflicting"] == len(back["conflicting"]) == len(result.conflicting)
    assert len(back["projection"]["row"]) == len(result.projection)
    assert back["groups"] == result.to_dict()["groups"]


@pytest.mark.parametrize("which", ["found", "nothing"])
def test_csv_has_every_conflicting_example(which, request, tmp_path):
    result = request.getfixturevalue(which)
    read = pd.read_csv(result.to_csv(tmp_path / "conflicting.csv"))
    assert read.columns.tolist() == result.conflicting.columns.tolist()
    assert read["row"].tolist() == result.conflicting["row"].tolist()


@pytest.mark.parametrize("which", ["found", "nothing"])
def test_text_is_short_and_says_it(which, request):
    result = request.getfixturevalue(which)
    lines = repr(result).splitlines()
    assert len(lines) < 25
    assert max(map(len, lines)) <= 110
    assert " ".join(repr(result).split()).count(" ".join(result.sentence.split())) == 1


def test_text_stays_short_with_everything_at_once():
    Z, y, mark = planted(n=1500, classes=5, width=40)
    names = [f"a class with a rather long name, number {i}" for i in range(5)]
    full = audit(Z, y, metadata=table(mark, noise=30), class_names=names, predictions=mark, inputs=["p/" * 99] * 1500)
    assert full.found
    assert len(repr(full).splitlines()) < 25


def test_string_labels_and_their_trap():
    Z, y, mark = planted()
    names = np.array(["cat", "dog"])
    result = audit(Z, names[y])
    assert set(result.conflicting["label"]) == {"cat", "dog"}
    assert (result.conflicting["inferred"] == names[mark[result.conflicting["row"]]]).mean() >= 0.95
    assert result.groups["conflicting"].sum() == 2


def test_every_kind_of_container_gives_the_same(marked):
    Z, y, _ = marked
    expected = audit(Z, y, harm=False).conflicting["row"].tolist()
    names = [f"{i}.png" for i in range(len(y))]
    column = Dataset.from_dict({"label": y.tolist()}).cast_column("label", ClassLabel(names=["n", "y"]))["label"]
    frame = pd.DataFrame(Z, index=names)
    for latents, labels in (
        (frame, pd.Series(y, index=names)),
        (torch.tensor(Z), torch.tensor(y)),
        (Z.tolist(), y.tolist()),
        (Z, column),
        (frame, pd.Series(np.array(["n", "y"])[y], index=names, dtype="category")),
    ):
        result = audit(latents, labels, harm=False)
        assert result.conflicting["row"].tolist() == expected
    assert result.conflicting["input"].tolist() == [names[i] for i in expected]


def test_more_than_two_classes_and_several_attributes():
    Z, y, mark = planted(n=3000, classes=4, width=40)
    many = audit(Z, y, metadata=table(mark), harm=False)
    assert many.found
    assert many.associations["column"][0] == "scanner"
    assert (many.conflicting["inferred"] == mark[many.conflicting["row"]]).mean() > 0.9

    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4000)
    a, b = (np.where(rng.random(4000) < 0.95, y, 1 - y) for _ in range(2))
    Z = rng.normal(size=(4000, 32))
    Z[:, 0] += 2 * y
    Z[:, 1] += 6 * a
    Z[:, 2] += 6 * b
    both = audit(Z, np.array(["cat", "dog"])[y], metadata={"a": a, "b": b})
    assert len(both.discovery.parts_) == 2
    assert {"cat & dog", "dog & cat"} & set(both.conflicting["inferred"])
    true = (a != y) | (b != y)
    assert true[both.conflicting["row"]].mean() > 0.95
    assert len(both.conflicting) > 0.9 * true.sum()
    assert both.associations["significant"].all()
    assert both.harm.leans
    json.dumps(both.to_dict(), allow_nan=False)


def test_a_given_discovery_is_used_and_metadata_never_is(marked):
    Z, y, mark = marked
    given = discover(Z, y, random_state=3)
    assert audit(Z, y, discovery=given, harm=False).discovery is given
    same = audit(Z, y, harm=False).discovery
    assert np.array_equal(same.groups_, discover(Z, y, random_state=0).groups_)
    assert np.array_equal(same.groups_, audit(Z, y, metadata={"m": mark}, harm=False).discovery.groups_)
    with pytest.raises(InvalidInputError, match="discovery is of 1000 examples"):
        audit(Z[:500], y[:500], discovery=given)


def test_one_seed_one_result_and_no_step_changes_another(marked):
    Z, y, mark = marked
    first = audit(Z, y, metadata=table(mark), predictions=mark).to_dict()
    assert first == audit(Z, y, metadata=table(mark), predictions=mark).to_dict()
    alone = audit(Z, y, metadata=table(mark), predictions=mark, harm=False).to_dict()
    assert alone == first | {"harm": None}
    by_state = audit(Z, y, random_state=np.random.RandomState(0), harm=False)
    assert by_state.found


def test_reserved_column_names_stay_apart(marked):
    Z, y, mark = marked
    result = audit(Z, y, metadata={"label": mark, "row": y, "metadata_row": y}, harm=False)
    assert {"metadata_label", "metadata_row", "metadata_metadata_row"} <= set(result.conflicting.columns)
    assert result.conflicting.columns.is_unique


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metadata": {"a": [1, 2]}}, "metadata columns have .* for 100 examples"),
        ({"metadata": pd.DataFrame({"a": [1, 2]})}, "metadata has 2 rows for 100 examples"),
        ({"metadata": 3}, "metadata of type int"),
        ({"metadata": pd.DataFrame(np.zeros((100, 2)), columns=["a", "a"])}, "several columns named 'a'"),
        ({"inputs": ["a.png"]}, "inputs of type list with 1 entries"),
        ({"predictions": np.zeros((100, 3))}, "predictions of shape"),
        ({"predictions": ["cow"] * 100}, "none of the labels"),
        ({"predictions": np.full((100, 2), np.nan)}, "NaN or infinite scores"),
        ({"class_names": ["one"]}, "1 names for the 2 labels"),
        ({"class_names": {0: "zero"}}, r"no name for the labels \[1\]"),
    ],
)
def test_mistakes_are_told(options, message):
    Z, y, _ = planted(n=100)
    with pytest.raises(InvalidInputError, match=message):
        audit(Z, y, **options)


def test_mistakes_in_labels_and_order_are_told():
    Z, y, _ = planted(n=100)
    with pytest.raises(InvalidInputError, match="1 of 100 labels are missing"):
        audit(Z, [None, *map(str, y[1:])])
    with pytest.raises(InvalidInputError, match="several types, int, str"):
        audit(Z, ["a", *y[1:].tolist()])
    with pytest.raises(InvalidConfigError, match="folds=1"):
        audit(Z, y, folds=1)
    frame = pd.DataFrame(Z, index=[f"{i}" for i in range(100)])
    with pytest.raises(InvalidInputError, match=r"metadata\.loc\[Z\.index\]"):
        audit(frame, y, metadata=pd.DataFrame({"a": y}, index=frame.index[::-1]))


def test_plots_and_pages_come_from_the_report(found, tmp_path):
    from matplotlib.figure import Figure

    page = found.to_html(tmp_path / "audit.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Is there a shortcut?" in page
    short = found._repr_html_()
    assert len(short) < len(page) / 3
    ax = Figure().subplots()
    assert found.plot(ax) is ax


ORDERS = [
    "from aifs_peft import audit",
    "import aifs_peft.audit; from aifs_peft import audit",
    "import aifs_peft.audit.scorer; from aifs_peft import audit",
    "from aifs_peft.audit import infer_groups; from aifs_peft import audit",
    "from aifs_peft import Audit; import aifs_peft; audit = aifs_peft.audit",
    "from importlib import import_module; import_module('aifs_peft.audit.names'); import aifs_peft.audit as audit",
]


def test_the_name_is_the_function_in_every_order_of_imports():
    # One process, in which this package is forgotten between two orders: what it imports takes seconds to import.
    code = f"""
import sys, types
for order in {ORDERS!r}:
    for name in [name for name in sys.modules if name == "aifs_peft" or name.startswith("aifs_peft.audit")]:
        del sys.modules[name]
    names = {{}}
    exec(order, names)
    assert isinstance(names["audit"], types.FunctionType), (order, names["audit"])
    from aifs_peft.audit import Audit, audit_model
    import aifs_peft
    assert aifs_peft.audit is names["audit"], order
assert "matplotlib" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_of_names_is_complete():
    import importlib

    package = importlib.import_module("aifs_peft.audit")
    assert set(package.__all__) == {"audit", *package._LAZY}
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
