"""The pages on methods are what code and committed results say; the texts have their fixed places."""

import importlib
import inspect
import json
import re
import runpy
from pathlib import Path

import pytest
from methods_zoo import METHODS

from aifs_peft.bench.results import KEYS, asked, result_path, supervision, write_result
from aifs_peft.cli import main
from aifs_peft.experiments.methods import markdown, table
from aifs_peft.methods import get

ROOT = Path(__file__).parents[2]
RENDERER = runpy.run_path(str(ROOT / "benchmarks" / "render_methods_docs.py"))
# Words of a document or a conversation that a reader does not have.
FOREIGN = re.compile("the method, section|as remembered|not checked|from memory|described to us", re.IGNORECASE)


def test_pages_are_up_to_date_and_short():
    pages = RENDERER["render"]()
    for name, text in pages.items():
        assert (ROOT / "docs" / name).read_text() == text, name
    assert len(pages["methods.md"].splitlines()) < 150
    written = {f"methods/{path.name}" for path in (ROOT / "docs" / "methods").glob("*.md")}
    assert written == set(pages) - {"methods.md", "paper.md"}


def test_every_method_has_one_section_and_a_link_to_it():
    pages = RENDERER["render"]()
    for name in METHODS:
        page = f"methods/{RENDERER['family_of'](name)}.md"
        assert pages[page].count(f"\n## `{name}`\n") == 1
        assert pages["methods.md"].count(f"[`{name}`]({page}#{name})") == 1


def test_methods_that_are_advised_exist():
    for _, method, _ in RENDERER["CHOICES"]:
        for name in re.findall(r"`([a-z-]+)`", method):
            assert name in METHODS


def test_results_name_the_methods_that_have_no_rows():
    results = RENDERER["render"]()["methods/results.md"]
    waiting = re.search(r"Not in these tables: (.*)\.", results)
    there = {entry.method for entry in RENDERER["read"]("frozen").experiment.methods}
    assert set(re.findall(r"`([^`]+)`", waiting[1])) == set(METHODS) - there


def test_numbers_of_the_benchmark_reach_the_pages(tmp_path):
    """Results of one data set: the comparison, a text of a method, the reasons of choices, the published formulas."""
    experiment = RENDERER["read"]("frozen").experiment.only(data=["compas"])
    worst = {"erm": 0.2, "erm-balanced": 0.4, "xrm-gdro": 0.45, "aifs-paper": 0.21, "reweight-oracle": 0.6}
    for name, level in (worst | {"gdro-oracle": 0.5}).items():
        entry = next(entry for entry in experiment.methods if entry.name == name)
        for seed in (0, 1):
            metrics = {"worst_group_accuracy": level, "average_accuracy": 0.8, "worst_group_roc_auc": None}
            metrics |= {"adjusted_average_accuracy": 0.8, "equal_opportunity_difference": 0.1}
            known = {"format": 1, "dataset": "compas", "method": name, "seed": seed, "metrics": metrics}
            known |= {"asked": asked(experiment, experiment.data[0], entry), "supervision": supervision(entry)}
            known |= {"oracle_selection": {"metrics": metrics}, "cpu_seconds": 1.0}
            path = result_path(tmp_path, "frozen", "compas", name, seed)
            write_result(path, {**dict.fromkeys(KEYS), **known})
    pages = RENDERER["render"](tmp_path)
    assert "on `compas` a worst group of 40.0 % where plain training has 20.0" in pages["methods.md"]
    assert "the best baseline without group labels on 1 of 1 data sets below" in pages["methods.md"]
    assert "its worst group minus that of `gdro-oracle`: +10.0 points on average below" in pages["methods.md"]
    assert "| `xrm-gdro` | **45.0 ± 0.0** |" in pages["methods.md"]
    assert "frozen encoders: compas 45.0 ± 0.0 ([all numbers](results.md))." in pages["methods/reweighting.md"]
    assert "| `xrm-gdro` | none | 0.450 ± 0.000 |" in pages["methods/results.md"]
    assert "with one budget for both: +1.0 to +1.0 points of worst group on 1 data sets" in pages["paper.md"]


@pytest.mark.parametrize("name", METHODS)
def test_the_text_of_a_method_has_its_paragraphs_in_their_order(name):
    method = get(name)
    text = inspect.cleandoc(inspect.getmodule(method).__doc__)
    labels = [re.match(rf"({'|'.join(RENDERER['LABELS'])})\b", part) for part in text.split("\n\n")]
    found = [label[1] for label in labels if label]
    assert found == [label for label in RENDERER["LABELS"] if label in found]
    assert set(RENDERER["LABELS"]) - set(found) <= {"Measured"}
    # The table's few words are how the paragraph begins.
    assert f"Differs from the paper: {method.differs}." in " ".join(text.split())
    assert bool(re.search('"[^"]+-style"', text)) == method.title.endswith("-style")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_alone_in_a_file_of_a_family(name):
    cls = get(name)
    assert [n for n in METHODS if get(n).__module__ == cls.__module__] == [name]
    assert RENDERER["family_of"](name) in RENDERER["FAMILIES"]


def test_texts_cite_nothing_that_a_reader_does_not_have():
    for folder in ("methods", "latent/attribution"):
        for path in (ROOT / "aifs_peft" / folder).rglob("*.py"):
            assert not FOREIGN.search(path.read_text()), path
    for family in RENDERER["FAMILIES"]:
        assert importlib.import_module(f"aifs_peft.methods.{family}").__doc__


def test_command_prints_the_table_and_json(capsys):
    assert main(["methods"]) == 0
    assert capsys.readouterr().out.strip() == markdown(table())
    assert main(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "supervision", "needs", "paper", "differs", "latents"} <= set(rows[0])
    assert all(row["differs"] for row in rows if not row["name"].startswith("doctest-"))
    names = {row["name"] for row in rows}
    wanted = "aifs aifs-paper erm erm-balanced irm elrep spume ravl ule jtt lff afr xrm-gdro spectral-decoupling rsc "
    assert set((wanted + "shortcutprobe gdro-oracle dfr-oracle reweight-oracle").split()) <= names
