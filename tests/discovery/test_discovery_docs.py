"""docs/discovery.md and docs/research_log.md: tables are what results and code say, pictures exist."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE, LOG = (ROOT / "docs" / name for name in ("discovery.md", "research_log.md"))
UNLABELLED = ROOT / "docs" / "unlabelled.md"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "benchmarks" / "render_discovery_docs.py"))


@pytest.mark.parametrize("page", [GUIDE, LOG], ids=lambda page: page.stem)
def test_tables_are_up_to_date(script, page):
    text = page.read_text()
    assert script["fill"](text) == text
    assert re.search(r"<!-- dominoes\w* -->\n\| aligned share", text)


def test_tables_of_unlabelled_examples_are_up_to_date(script):
    text = UNLABELLED.read_text()
    assert script["fill"](text) == text
    assert re.search(r"<!-- unlabelled_short -->\n\| attribute", text)


def test_tables_of_performance_are_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # it uses the script beside it
    script = runpy.run_path(str(ROOT / "benchmarks" / "render_performance_docs.py"))
    text = (ROOT / "docs" / "performance.md").read_text()
    assert script["filled"](text) == text
    assert re.search(r"<!-- scaling -->\n\| n \| d \| K", text)


def test_an_unknown_block_is_refused(script):
    with pytest.raises(ValueError, match="nothing renders the block 'strange'"):
        script["fill"]("<!-- strange -->\n<!-- /strange -->")


@pytest.mark.parametrize("page", [GUIDE, LOG], ids=lambda page: page.stem)
def test_pictures_and_files_exist(page):
    text = page.read_text()
    pictures = re.findall(r"\]\((img/[^)]+)\)", text)
    assert pictures
    for picture in pictures:
        assert (page.parent / picture).read_bytes().startswith(b"\x89PNG")
    for name in re.findall(r"`((?:benchmarks|docs)/[\w/]+\.\w+)`", text):
        assert (ROOT / name).exists(), name
    # Modules are named inside the folder.
    for name in re.findall(r"`((?:hints|mixture|proposals|search|linear_heads)/(?:\w+\.py)?)`", text):
        assert (ROOT / "aifs_peft" / "discovery" / name).exists(), name


def test_the_guide_is_short():
    assert len(GUIDE.read_text().splitlines()) <= 160


def test_the_thresholds_on_the_page_are_those_of_the_code(script, monkeypatch):
    from dataclasses import replace

    from aifs_peft.discovery.config import DEFAULT_CONFIG

    assert ">= 2.9 standard deviations" in GUIDE.read_text()
    changed = replace(DEFAULT_CONFIG, gate=replace(DEFAULT_CONFIG.gate, refined_strength=7.7))
    monkeypatch.setitem(script["gate"].__globals__, "DEFAULT_CONFIG", changed)
    assert ">= 7.7 standard deviations" in script["gate"]()
    assert str(ROOT / "benchmarks") not in sys.path
