"""Every block of Python in README and docs runs, in the order of its page; every command is one that exists."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import reader_folder
from pages import PAGES, PageRun, blocks, run_page

SHELL = ("docs/quickstart.md",)  # whose commands are run between the blocks of Python


def check_readme(run: PageRun) -> None:
    assert run.names["clf"].discovery_.found


def check_audit(run: PageRun) -> None:
    assert "go against the shortcut" in run.printed
    assert run.names["judged"].model_harm.leans
    assert "False No shortcut was found" in run.printed


def check_discovery(run: PageRun) -> None:
    """What the page says of its worked example holds."""
    assert re.search(r"Discovery\(found=True, \d+ of 1,200 examples conflicting", run.printed)
    data, rows = run.names["data"], run.names["against"]["row"]
    conflict = [a != label for a, label in zip(data["attribute"], data["label"], strict=True)]
    right = sum(conflict[row] for row in rows)
    assert sum(conflict) == 60
    assert right / len(rows) > 0.85
    assert right / sum(conflict) > 0.7


def check_report(run: PageRun) -> None:
    assert "go against the shortcut" in str(run.names["page"])
    assert int(run.names["size"]) > 10_000


# What must be true after a page has run, beyond that nothing failed.
CHECKS: dict[str, Callable[[PageRun], None]] = {
    "README.md": check_readme,
    "docs/audit.md": check_audit,
    "docs/discovery.md": check_discovery,
    "docs/report.md": check_report,
}


# torch's, on a machine without an accelerator, for every Trainer with its defaults.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader_folder.fill(tmp_path)
    run = run_page(page, shell=page in SHELL)
    CHECKS.get(page, lambda run: None)(run)
