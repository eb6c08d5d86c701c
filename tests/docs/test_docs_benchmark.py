"""The tables of docs/benchmark.md are what the committed results say, and its figures are there."""

import re
import runpy
from pathlib import Path

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
    assert text.count("Not run yet.\n<!-- /") == len(SCRIPT["BLOCK"].findall(text)) + 1
