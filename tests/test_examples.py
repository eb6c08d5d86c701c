"""Every example is short, says how it is run, stands in the table of examples/README.md, and the quick ones run."""

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from open_clip_alone import import_open_clip

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[a-z]*.py"))
TABLE = (ROOT / "examples" / "README.md").read_text()
# What the last line of each says; the others run in `make examples`.
QUICK = {
    "classifier_on_latents": r"\n\nSpurious direction found: .* of 3000 examples",
    "compas": r"\nWhat differs is the even weight of the classes alone|^skipped: no compas",
    "sklearn_pipeline": r"chosen by accuracy: LogisticRegression.*\nchosen by worst inferred group: AIFSClassifier",
    "accelerate_loop": r"erm +worst of label x attribute 0\.\d+\naifs +worst of label x attribute 0\.\d+\n$",
}


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 11
    assert set(QUICK) <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", [*EXAMPLES, *sorted((ROOT / "examples").glob("_*.py"))], ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_how_it_is_run_and_is_listed(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert f"examples/{path.name}" in text
    (row,) = [line for line in TABLE.splitlines() if line.startswith(f"| [{path.name}]({path.name})")]
    shown, command, seconds = (part.strip() for part in row.strip("|").split("|")[1:])
    assert shown
    assert int(seconds) > 0
    named = re.fullmatch(rf"`(python|torchrun --nproc_per_node 2) examples/{path.name}( \S+)?`", command)
    assert named is not None
    # What the table gives as an argument, the example's own text gives as well.
    assert command.strip("`") in text


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_example_runs(name: str) -> None:
    command = [sys.executable, "-W", "error::UserWarning:aifs_peft", f"examples/{name}.py"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert re.search(QUICK[name], done.stdout), done.stdout


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning")
@pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning")
def test_the_example_of_open_clip_runs_where_torchvision_is_not(monkeypatch, capsys) -> None:
    import_open_clip()
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    runpy.run_path(str(ROOT / "examples" / "open_clip_lora.py"))["main"](None)
    assert capsys.readouterr().out.endswith("reloaded and merged it predicts the same: True\n")
