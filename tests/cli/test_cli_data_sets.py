"""`aifs finetune` on data sets whose groups overlap and on tables, offline, in this process."""

import json
from pathlib import Path

import numpy as np
import pytest
from wilds_csv import write_wilds

from aifs_peft.cli import finetune
from aifs_peft.data import group_array, group_spec, load


def run(folder: Path, *options: str) -> dict:
    """One epoch; the summary that the run leaves behind."""
    common = ["--output-dir", str(folder), "--num-train-epochs", "1", "--use-cpu"]
    assert finetune.main([*common, *options]) == 0
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("name", ["civilcomments", "civilcomments_coarse"])
def test_civilcomments_under_both_definitions(
    name: str, roberta_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "wilds"
    source.mkdir()
    write_wilds(source)
    options = ("--model", str(roberta_dir), "--adapter", "none", "--max-length", "16", "--method", "erm")
    summary = run(tmp_path / "run", *options, "--dataset", name, "--data-dir", str(source))
    data = load(name, source)
    spec = group_spec(data)
    assert list(summary["metrics"]["groups"]) == list(spec.names)
    for split, part in data.items():
        wanted = spec.counts(group_array(part)).tolist()
        assert list(summary["groups"][split].values()) == wanted
    in_test = [entry["n"] for entry in summary["metrics"]["groups"].values()]
    assert in_test == list(summary["groups"]["test"].values())
    assert summary["metrics"]["n"] == len(data["test"]) == 100
    assert (sum(in_test) > 100) == spec.overlapping
    assert np.isnan(summary["metrics"]["adjusted_average_accuracy"]) == spec.overlapping
    assert summary["metrics"]["compared_over"] == ("groups" if spec.overlapping else "attributes")
    assert spec.names[0] in capsys.readouterr().out
