"""The model card: parses, carries the group table, escapes what comes from data."""

from typing import Any

import yaml

from aifs_peft.experiments import provenance
from aifs_peft.report import group_table, render_card


def summary(**changes: Any) -> dict[str, Any]:
    group = {"n": 40, "accuracy": 0.75, "accuracy_interval": [0.588, 0.873]}
    return {
        "model": "openai/clip-vit-base-patch16", "dataset": "toy", "task": "image-classification",
        "label_names": ["no", "yes"], "method": "aifs", "seed": 0, "seconds": 12.0, "state": {"num_updates": 3},
        "selection": {"rule": "worst_class", "reads_group_labels": False}, "groups": {"train": {"no|left": 40}},
        "metrics": {"average_accuracy": 0.8, "worst_group_accuracy": 0.75, "groups": {"no, left": group}},
        "provenance": provenance(), **changes,
    }  # fmt: skip


def test_front_matter_parses_as_model_index() -> None:
    card = render_card(summary())
    front = yaml.safe_load(str(card.content).split("---")[1])
    assert front["base_model"] == "openai/clip-vit-base-patch16"
    assert front["library_name"] == "peft"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert {m["type"]: m["value"] for m in metrics} == {"accuracy": 0.8, "worst_group_accuracy": 0.75}


def test_group_table_and_supervision_are_told() -> None:
    text = str(render_card(summary()).content)
    assert "| no, left | 40 | 75.0 % | 58.8 % to 87.3 % |" in text
    assert "Group labels in training: no" in text
    assert "import aifs_peft" in text


def test_the_embedded_encoder_is_no_hub_model() -> None:
    front = yaml.safe_load(str(render_card(summary(model="tiny_clip")).content).split("---")[1])
    assert "base_model" not in front


def test_names_from_data_cannot_break_the_table_or_inject_markup() -> None:
    entry = {"n": 1, "accuracy": float("nan")}
    table = group_table({"groups": {"<script>|\nx": entry}})
    assert "<script>" not in table
    assert len(table.splitlines()) == 3
    assert table.splitlines()[2].count("|") == 5
    assert "| - |" in table
