"""The tables of docs/benchmark.md are what the committed results say."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_rendered_from_the_results() -> None:
    spec = importlib.util.spec_from_file_location("render_benchmark", ROOT / "benchmarks" / "render_benchmark.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert module.render(text) == text, "run python benchmarks/render_benchmark.py"
    assert text.count("<!-- bench:") >= 2
    assert "± " in text
