"""The README is true: its tables are what the committed results say, and its Python runs."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_tables_come_from_committed_results() -> None:
    render = runpy.run_path(str(ROOT / "benchmarks" / "render_readme.py"))["render"]
    assert "| `erm` |" in README
    assert render(README) == README


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_python_blocks_run(block: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_file_the_readme_names_exists() -> None:
    for name in re.findall(r"(?:scripts|docs|benchmarks|examples)/[\w/]+\.\w+", README):
        assert (ROOT / name).exists(), name
