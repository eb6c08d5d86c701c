"""The README is true: its tables are what the committed results say, its first Python is short, its files exist.

Its code runs in `tests/docs`, like that of every page.
"""

import re
import runpy
from pathlib import Path

from pages import blocks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_tables_come_from_committed_results() -> None:
    render = runpy.run_path(str(ROOT / "benchmarks" / "render_readme.py"))["render"]
    assert "| `erm` |" in README
    assert render(README) == README


def test_the_first_python_is_short_and_of_plain_pieces() -> None:
    block = blocks("README.md", "python")[0].text
    lines = [line for line in block.splitlines() if line and not line.startswith(("from", "import"))]
    assert len(lines) <= 12
    assert set(re.findall(r"from (aifs_peft\S*)", block)) == {"aifs_peft"}


def test_every_file_the_readme_names_exists() -> None:
    for name in re.findall(r"(?:scripts|docs|benchmarks|examples)/[\w/]+\.\w+", README):
        assert (ROOT / name).exists(), name
