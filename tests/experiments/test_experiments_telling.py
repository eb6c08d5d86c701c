"""Sentences about a run are true for every method: what it was told, what chose the model, what was found."""

import json
from pathlib import Path
from typing import Any

import pytest

from aifs_peft._plain import plain
from aifs_peft.experiments.baseline import NOTES, nothing_plain
from aifs_peft.experiments.describe import needs, selection, shortcut_found, supervision
from aifs_peft.experiments.telling import comparison_table, finish_text, found_sentence
from aifs_peft.methods import get, make, names
from aifs_peft.training import AIFSTrainingArguments

COLUMNS = ["image", "label", "group", "environment", "attributes"]
VALUE = {"accuracy": 0.5, "low": 0.25, "high": 0.75}


def comparison(plain: bool = True, cells: str = "attribute") -> dict[str, Any]:
    before = VALUE if plain else None
    sides = {"plain": before, "method": VALUE}
    worst = {name: None if side is None else {**side, "cell": "sick x B", "n": 12} for name, side in sides.items()}
    rows = [{"cell": name, "n": 40, **sides} for name in ("aligned", "conflicting", "sick x B")]
    return {"cells_from": cells, "confidence": 0.95, "rows": rows, "average": sides, "worst": worst,
            "sentences": ["conflicting examples: 0.50 -> 0.50 (n = 40)"], "warnings": []}  # fmt: skip


def stub(name: str, folder: Path, found: bool | None = None, columns: list[str] = COLUMNS, **options: Any) -> dict:
    """The summary of a run of a method, without the run."""
    method = make(name, method_options=options)
    args = AIFSTrainingArguments(output_dir=str(folder), load_best_model_at_end=True, eval_strategy="epoch",
                                 save_strategy="epoch", use_cpu=True)  # fmt: skip
    plain = name != "erm"
    return {
        "method": name, "title": method.title, "dataset": "scans", "metrics": {"n": 120}, "found": found,
        "conflicting": {"n": 29, "of": 432} if found else None,
        "supervision": supervision(method, columns), "needs": needs(method, columns),
        "selection": selection(method, args, found=found), "comparison": comparison(plain),
        "baseline": {"kind": "erm" if plain else "none", "note": NOTES["erm"] if plain else nothing_plain(name).note},
    }  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_every_method_is_told_of_truly(name: str, tmp_path: Path) -> None:
    method = get(name)
    summary = stub(name, tmp_path)
    text = finish_text(summary)
    assert json.loads(json.dumps(plain(summary), allow_nan=False))
    oracle = method.supervision == "groups"
    assert ("an oracle" in text) == oracle
    assert ("attribute values are read for the table alone" in text) == (not oracle)
    assert summary["selection"]["reads_group_labels"] == ("group" in make(name).validation_columns())
    assert ("reads group labels of the validation split" in text) == summary["selection"]["reads_group_labels"]
    if oracle:
        assert "group labels" in text
    if summary["supervision"] == "hints":
        assert "hints" in text
    assert not text.startswith(("found", "nothing found"))
    assert ("this run is plain training (ERM) itself" in text) == (name == "erm")
    assert "worst class" in text
    assert "worst inferred group was asked for, and no groups were inferred" in text


def test_only_dfr_chooses_by_group_labels(tmp_path: Path) -> None:
    reading = {name for name in names() if stub(name, tmp_path)["selection"]["reads_group_labels"]}
    assert reading == {"dfr-oracle"}


def test_what_was_found_is_the_first_line(tmp_path: Path) -> None:
    lines = finish_text(stub("aifs", tmp_path, found=True)).splitlines()
    assert lines[0] == "found: 29 of 432 training examples go against a shortcut"
    assert any("accuracy of the worst inferred group" in line for line in lines)
    nothing = finish_text(stub("aifs", tmp_path, found=False))
    assert nothing.startswith("nothing found: no shortcut stood out")
    assert "accuracy of the worst inferred group" not in nothing
    assert found_sentence(stub("jtt", tmp_path)) == ""


def test_given_environments_and_hints_are_hints(tmp_path: Path) -> None:
    assert stub("irm", tmp_path, environments="given")["supervision"] == "hints"
    assert stub("aifs", tmp_path, columns=[*COLUMNS, "hint_groups"])["supervision"] == "hints"
    text = finish_text(stub("aifs", tmp_path, columns=[*COLUMNS, "hint_groups"]))
    assert "class labels and hints (column `hint_groups`)" in text


def test_the_last_discovery_counts() -> None:
    assert shortcut_found([{"spurious_direction_found": 0.0}, {"loss": 1.0}, {"spurious_direction_found": 1.0}]) is True
    assert shortcut_found([{"loss": 1.0}]) is None


def test_the_last_model_is_no_choice(tmp_path: Path) -> None:
    args = AIFSTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    told = selection(make("erm"), args, found=None)
    assert told == {"rule": "last", "applied": "last", "reads_group_labels": False}
    text = finish_text({**stub("erm", tmp_path), "selection": told})
    assert "the model after the last step was kept" in text


def test_the_table_has_no_plain_column_without_plain_training() -> None:
    assert "plain" not in comparison_table(comparison(plain=False), "erm")
    lines = comparison_table(comparison(), "aifs").splitlines()
    assert lines[0].split() == ["n", "plain", "[95%", "interval]", "aifs", "[95%", "interval]"]
    assert lines[1].startswith("aligned")
    assert "0.500 [0.250, 0.750]" in lines[1]
    assert set(lines[4]) == {"-"}
    assert lines[-1].startswith("worst")
    assert lines[-1].endswith("sick x B")


def test_a_long_table_is_cut_and_says_so() -> None:
    long = comparison()
    long["rows"] = [{"cell": f"cell {i}", "n": 20, "plain": VALUE, "method": VALUE} for i in range(30)]
    assert comparison_table(long, "aifs").endswith("(6 more cells in summary.json)")


def test_the_metric_that_was_asked_for_is_told(tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
    args = AIFSTrainingArguments(output_dir=str(tmp_path), use_cpu=True, metric_for_best_model="loss", **best)
    told = selection(make("erm"), args, found=None)
    assert told == {"rule": "loss", "applied": "loss", "reads_group_labels": False}
    assert "model chosen by: loss on the validation split" in finish_text({**stub("erm", tmp_path), "selection": told})


def test_hints_for_discovery_are_hints() -> None:
    method = make("aifs")
    assert supervision(method, [], {"max_attributes": 1}) == "none"
    assert supervision(method, [], {"metadata": {"site": [0, 1]}}) == "hints"
    assert needs(method, [], {"metadata": {"site": [0, 1]}}) == ["metadata for discovery"]
