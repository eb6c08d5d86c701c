"""The tables of docs/benchmark.md are what the committed results say, and its figures are there."""

import json
import re
import runpy
from pathlib import Path

from aifs_peft.bench import read_experiment

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmark.md"
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "render_benchmark.py"))


def test_the_page_is_rendered_from_the_results() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert SCRIPT["render"](text) == text, "run python benchmarks/render_benchmark.py"
    blocks = SCRIPT["BLOCK"].findall(text)
    assert {part for _, part in blocks} <= set(SCRIPT["PARTS"])
    assert {"frozen", "lora", "strength", "group_labels", "small"} <= {name for name, _ in blocks}
    assert "± " in text
    for picture in re.findall(r"\]\((img/[^)]+)\)", text):
        assert (PAGE.parent / picture).read_bytes().startswith(b"\x89PNG"), picture


def test_an_experiment_without_results_says_so(tmp_path: Path) -> None:
    text = SCRIPT["render"](PAGE.read_text(encoding="utf-8"), tmp_path)
    assert text.count("Not run yet.\n<!-- /") == len(SCRIPT["BLOCK"].findall(text)) + len(SCRIPT["TABLES"])


def test_what_is_said_of_the_main_experiment_is_so() -> None:
    experiment = read_experiment(ROOT / "benchmarks" / "experiments" / "frozen.json")
    assert (len(experiment.methods), len(experiment.data), len(experiment.seeds)) == (24, 11, 5)
    for page in (PAGE, ROOT / "README.md"):
        said = " ".join(page.read_text(encoding="utf-8").split())
        assert "24 methods on eleven data sets with frozen encoders, five draws each" in said
    for data in experiment.data:
        assert f"`{data.name}`" in PAGE.read_text(encoding="utf-8")


def test_other_packages_are_summed_up_from_their_rows() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "peers.json").read_text())
    over_seeds = runpy.run_path(str(ROOT / "benchmarks" / "over_seeds.py"))["over_seeds"]
    again = over_seeds(record["rows"], SCRIPT["PEER_METRICS"])
    assert set(again) == set(record["summary"])
    for cell, numbers in again.items():
        assert {name: record["summary"][cell][name] for name in numbers} == numbers
