"""The model card: true for every method, parses, carries the tables, escapes what comes from data."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_runs import comparison, summary

from aifs_peft.methods import get, names
from aifs_peft.report import comparison_table, group_table, render_card, render_html
from aifs_peft.report.publish import publishable

_LEAN = re.compile(r"does not lean|trained so that|without group labels", re.IGNORECASE)


def front(card: Any) -> dict[str, Any]:
    return yaml.safe_load(str(card.content).split("---")[1])


@pytest.mark.parametrize("method", names())
@pytest.mark.parametrize("found", [True, False, None])
def test_every_method_says_what_it_was_told_and_what_it_found(method: str, found: bool | None) -> None:
    told = get(method).supervision
    run = summary(method=method, supervision=told, found=found, state={})
    text = str(render_card(run).content)
    used = next(line for line in text.splitlines() if "**Supervision in training.**" in line)
    expected = {"none": "Class labels only", "hints": "hints about the attribute", "groups": "this method is an oracle"}
    assert [words for words in expected.values() if words in used] == [expected[told]]
    assert (get(method).title or method) in text
    result = text.split("## What was found")[1].split("##")[0]
    if found is None:
        assert "does not report whether there is a shortcut" in result
        assert "found in the latents" not in result
    if found is False:
        assert "No shortcut was found" in result
        assert ("is plain training" in result) == (method == "aifs")
        assert "does not show that there is nothing" in text
    if found is not True:
        assert not _LEAN.search(text)
    if told == "groups":
        assert "Group labels were used" in text.split("## Limits")[1]


def test_the_registry_has_all_three_kinds_of_supervision() -> None:
    assert {get(method).supervision for method in names()} == {"none", "hints", "groups"}


@pytest.mark.parametrize(("recorded", "words"), [("hints", "hints"), ("none", "Class labels only")])
def test_a_run_that_was_given_hints_says_so(recorded: str, words: str) -> None:
    assert words in str(render_card(summary(method="aifs", supervision=recorded)).content)


def test_a_method_of_a_package_that_is_not_here_is_told_as_recorded() -> None:
    text = str(render_card(summary(method="theirs", supervision="groups", found=None)).content)
    assert "this method is an oracle" in text
    text = str(render_card(summary(method="theirs", found=None)).content)
    assert "did not record what it was told" in text


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (
            {"rule": "average", "reads_group_labels": False},
            "Highest average accuracy on the validation set. No group",
        ),
        ({"rule": "worst_group_accuracy", "reads_group_labels": True}, "Group labels of the validation set were read."),
        ({"rule": "mine", "reads_group_labels": None}, "Whether it reads group labels was not recorded"),
        ({"rule": "last", "reads_group_labels": False}, "after the last step were kept"),
    ],
)
def test_selection_is_told_as_it_was(selection: dict[str, Any], words: str) -> None:
    assert words in str(render_card(summary(selection=selection)).content).replace("\\_", "_")


def test_the_rule_of_inferred_groups_falls_back_where_there_are_none() -> None:
    rule = {"rule": "worst_inferred_group", "reads_group_labels": False}
    assert "no attribute was inferred" in str(render_card(summary(method="erm", selection=rule)).content)
    assert "no attribute was inferred" not in str(render_card(summary(selection=rule)).content)
    applied = {"rule": "worst_inferred_group", "applied": "worst_class", "reads_group_labels": False}
    assert "no attribute was inferred" in str(render_card(summary(found=False, selection=applied)).content)


def test_front_matter_is_metadata_that_the_hub_takes() -> None:
    data = front(render_card(summary(license="mit", language="en", dataset="me/birds", tags=["mine"])))
    assert data["base_model"] == "openai/clip-vit-base-patch16"
    assert (data["library_name"], data["pipeline_tag"], data["license"]) == ("peft", "image-classification", "mit")
    assert (data["datasets"], data["language"]) == (["me/birds"], "en")
    assert {"aifs", "mine"} <= set(data["tags"])
    result = data["model-index"][0]["results"][0]
    assert result["dataset"] == {"name": "me/birds", "type": "me/birds", "split": "test"}
    assert {m["type"]: m["value"] for m in result["metrics"]} == {"accuracy": 0.8, "worst_group_accuracy": 0.75}


@pytest.mark.parametrize("model", ["tiny_clip", "mlp", "/home/somebody/models/vit", "../vit", "C:\\models\\vit", None])
def test_what_is_not_on_the_hub_is_no_base_model_there(model: str | None) -> None:
    card = render_card(summary(model=model, dataset="/home/somebody/scans.csv"))
    data = front(card)
    assert "base_model" not in data
    assert "datasets" not in data
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == "scans.csv"
    if model is not None and model.endswith("vit"):
        assert "vit, a local folder" in str(card.content)
        assert "somebody" not in str(card.content).split("## How to load")[0]


def test_the_terms_of_a_known_data_set_are_told() -> None:
    assert "non-commercial research" in str(render_card(summary(dataset="waterbirds")).content)
    assert "not known to this package" in str(render_card(summary()).content)


def test_group_table_is_there_without_a_comparison() -> None:
    text = str(render_card(summary()).content)
    assert "| no, left | 40 | 75.0 % | 58.8 % to 87.3 % |" in text
    assert "the data have no group labels" in text
    assert "Group labels were read for this table only" in str(render_card(summary(group_definition="x")).content)


def test_before_and_after_stand_side_by_side() -> None:
    run = summary(comparison=comparison(), baseline={"kind": "erm", "note": "the same adapter trained by ERM."})
    text = str(render_card(run).content)
    assert "| conflicting | 25 | 28.0 % (18.0 % to 33.0 %) | 74.0 % (64.0 % to 79.0 %) |" in text
    assert "Conflicting examples: 28.0 % before, 74.0 % after" in text
    assert "no group labels, so a cell may hold examples of another" in text
    assert "Plain training: the same adapter trained by ERM." in text
    assert "Under 30 examples, so wide intervals: conflicting (25)." in text


def test_without_a_plain_counterpart_the_adapter_stands_alone() -> None:
    alone = comparison("classes")
    for row in alone["rows"]:
        row["plain"] = None
    alone["average"]["plain"] = alone["worst"]["plain"] = None
    alone["sentences"] = ["worst class: 0.74"]
    alone["warnings"] = ["under 30 test examples, too few to say much: conflicting (25)"]
    text = str(render_card(summary(comparison=alone, baseline={"kind": "none", "note": "not trained"})).content)
    assert "| conflicting | 25 | 74.0 % (64.0 % to 79.0 %) |" in text
    assert "Worst class: 0.74." in text
    limits = text.split("## Limits")[1]
    assert (
        limits.count("conflicting (25)") == 1
    )  # the rows of the table tell it, and the warning of the run does not again


def test_what_a_run_counted_is_told() -> None:
    run = summary(found=True, conflicting={"n": 29, "of": 432}, needs=["column `hint_groups`"], supervision="hints")
    text = str(render_card(run).content)
    assert "29 of 432 training examples go against a shortcut" in text
    assert "The method needs: column 'hint_groups'." in text


def test_an_audit_beside_a_method_that_finds_nothing_itself() -> None:
    audit = {"found": True, "sentence": "29 of 540 examples go against the shortcut."}
    text = str(render_card(summary(method="erm", audit=audit)).content)
    assert "took no part in training, says: 29 of 540 examples go against the shortcut." in text
    assert str(render_card(summary(found=True, audit=audit)).content).count(audit["sentence"]) == 1


def test_figures_of_the_evaluation_set_are_not_called_test_figures() -> None:
    run = summary(metrics=None, evaluation={"accuracy": 0.9, "worst_class_accuracy": 0.5, "n": 50, "epoch": 3.0})
    card = render_card(run)
    assert "these are no test figures" in str(card.content)
    assert front(card)["model-index"][0]["results"][0]["dataset"]["split"] == "validation"
    assert "model-index" not in front(render_card(summary(metrics=None)))


def test_contact_sheets_of_the_folder_are_shown(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "contact_conflicting.png").write_bytes(b"x")
    text = str(render_card(summary(), tmp_path).content)
    assert "go against the shortcut, the most certain ones first](audit/contact_conflicting.png)" in text
    assert "contact_aligned" not in text
    assert "contact_" not in str(render_card(summary()).content)


HOSTILE = "</script><script>alert(1)</script>|\n\n# [x](javascript:alert(1)) ![y](http://e.vil/p.png) `code` *b* __c__"


def test_names_from_data_cannot_break_the_table_or_inject_markup() -> None:
    lines = group_table({"groups": {HOSTILE: {"n": 1, "accuracy": float("nan")}}}).splitlines()
    assert len(lines) == 3
    assert lines[2].count("|") == 5
    assert "<script>" not in lines[2]
    assert lines[2].endswith("| 1 | - | - |")
    for mark in ("[x](", "![y](", "`code`", " *b*", "__c__"):
        assert mark not in lines[2]


def test_hostile_text_anywhere_leaves_the_card_in_one_piece() -> None:
    changed = comparison()
    changed["rows"][0]["cell"] = HOSTILE
    changed["sentences"] = [HOSTILE]
    audit = {"found": True, "sentence": HOSTILE}
    run = summary(
        dataset=HOSTILE, label_names=[HOSTILE, "```\n# out"], comparison=changed, audit=audit, found=True,
        model="tiny_clip", group_definition=HOSTILE, baseline={"kind": "erm", "note": HOSTILE},
    )  # fmt: skip
    card = render_card(run)
    assert front(card)["pipeline_tag"] == "image-classification"
    body = str(card.content).split("\n---\n", 1)[1]
    outside = re.sub(r"```python\n.*?\n```\n", "", body, flags=re.DOTALL)
    assert "<script>" not in outside
    assert not re.search(r"(?<!\\)\]\((javascript|http://e.vil)", outside)
    headings = [line for line in body.splitlines() if line.startswith("#")]
    assert [h for h in headings if not h.startswith("# AIFS")] == [
        "## What was found", "## Results", "## What was used", "## How to load", "## Limits",
    ]  # fmt: skip
    fences = [line for line in body.splitlines() if line.startswith("```")]
    assert fences == ["```python", "```"] * 3
    assert all(row.count("|") == 5 for row in comparison_table(changed).splitlines())


@pytest.mark.parametrize(
    ("share", "found", "told"),
    [(1.0, True, "used: what was found rests on them"), (0.0, False, "not used. With them nothing was found either")],
)
def test_what_became_of_unlabelled_examples(share: float, found: bool, told: str) -> None:
    pool = {"data": "/home/me/site/new.csv", "n": 400, "used": share > 0, "rests_on": share}
    run = summary(method="aifs", supervision="none", found=found, state={}, unlabelled=pool)
    text = str(render_card(publishable(run)).content)
    assert f"**Unlabelled examples.** 400 unlabelled examples were read and {told}." in text
    assert "Class labels, and examples without any" in text
    assert publishable(run)["unlabelled"]["data"] == "new.csv"
    page = render_html(run)
    assert told in page
    without = str(render_card(summary(method="aifs", supervision="none", found=found, state={})).content)
    assert "nlabelled" not in without
