"""Every block of Python in README and docs runs, in the order of its page; every command is one that exists."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import reader_folder
from pages import PAGES, PageRun, blocks, run_page, without_numbers

SHELL = ("docs/quickstart.md", "docs/unlabelled.md")  # whose commands are run between the blocks of Python
SLOW = ("docs/discovery.md", "docs/quickstart.md")
# What is too long for a test, and what stands in its place.
SHORTER = {
    "docs/quickstart.md": [
        ("num_train_epochs=5", "num_train_epochs=1"),
        ("--baseline erm", "--baseline erm --epochs 1"),
    ],
    "docs/compatibility.md": [("n_trials=20", "n_trials=2")],
}


def check_quickstart(run: PageRun) -> None:
    """The list of conflicting images is what the page says: exactly those from the unusual scanner."""
    table = run.names["pd"].read_csv("scans/scans.csv")
    train = table[table.split == "train"].reset_index()
    unusual = set(train[(train.scanner == "B") != (train.digits == "5 to 9")].index)
    assert set(run.names["found"].conflicting["row"]) == unusual
    assert set(run.names["pd"].read_csv("runs/audit/audit/conflicting.csv")["row"]) == unusual


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


def check_unlabelled(run: PageRun) -> None:
    """Both commands say what the page says: how many were read, and that what was found rests on them."""
    told = "400 unlabelled examples were read and used: what was found rests on them."
    assert " ".join(run.printed.split()).count(told) == 2
    assert re.search(rf"^found: .*\n{told}$", run.printed, flags=re.MULTILINE)


def check_report(run: PageRun) -> None:
    assert "go against the shortcut" in str(run.names["page"])
    assert int(run.names["size"]) > 10_000


RENDER = "write what is printed into the pages by python benchmarks/render_outputs.py"
# What must be true after a page has run, beyond that nothing failed.
CHECKS: dict[str, Callable[[PageRun], None]] = {
    "README.md": check_readme,
    "docs/audit.md": check_audit,
    "docs/discovery.md": check_discovery,
    "docs/quickstart.md": check_quickstart,
    "docs/report.md": check_report,
    "docs/unlabelled.md": check_unlabelled,
}


# torch's, on a machine without an accelerator, for every Trainer with its defaults.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in PAGES if blocks(page, "python")],
)
def test_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader_folder.fill(tmp_path)
    shorter = SHORTER.get(page, ())
    run = run_page(page, shell=page in SHELL, shorter=shorter)
    for block, printed in run.outputs:
        if block.output is not None and not any(old in block.text for old, _ in shorter):
            assert without_numbers(printed) == without_numbers(block.output), f"{page}:{block.line}; {RENDER}"
    CHECKS.get(page, lambda run: None)(run)
