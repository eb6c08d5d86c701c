"""docs/audit.md: its table is the record's (its code runs in `tests/docs`); and every docstring example runs."""

import doctest
import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
PACKAGE = importlib.import_module("aifs_peft.audit")
MODULES = sorted(info.name for info in pkgutil.walk_packages(PACKAGE.__path__, "aifs_peft.audit."))


def test_the_page_is_short():
    assert len(PAGE.splitlines()) <= 120


def test_the_table_is_the_record():
    record = json.loads((ROOT / "benchmarks" / "results" / "audit_power.json").read_text())
    block = re.search(r"<!-- words -->\n(.*?)<!-- /words -->", PAGE, flags=re.DOTALL)[1]
    lines = ["| search | weak | clear | strong |", "|---|---|---|---|"]
    for kind, words in record["words"].items():
        cells = [
            "never" if not w["finds"] else f"{w['right']} of {w['finds'] - w['false_alarms']} right"
            + (f", {w['false_alarms']} without any mark" if w["false_alarms"] else "")
            for w in words.values()
        ]  # fmt: skip
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    assert block == "\n".join(lines) + "\n"
    null = record["null"]
    assert f"In {null['draws']} planted draws without a mark {null['alarms']} raised an alarm" in PAGE


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_public_functions_have_examples():
    told = {
        "Audit": "to_dict",
        "Harm": "",
        "Rate": "of",
        "DEFAULT_WORDS": "",
        "DEFAULT_ATTRIBUTES": "",
        "audit_trainer": "",
    }
    told |= {"worst_inferred_group_scorer": ""}
    for name in PACKAGE.__all__:
        if name not in told:
            assert ">>>" in (getattr(PACKAGE, name).__doc__ or ""), name
