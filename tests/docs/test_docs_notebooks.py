"""The notebooks are stored as they ran: from top to bottom, with their outputs, and nothing of the machine in them.

`make notebooks` runs them.
"""

import json
import re

import nbformat
import pytest
from pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "find_the_shortcut", "fix_a_text_classifier", "latents_with_scikit_learn",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_it_ran(path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [out for cell in code for out in cell.outputs]
    assert outputs
    assert all(out.output_type != "error" and out.get("name") != "stderr" for out in outputs)
    assert notebook.cells[0].source.startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_the_machine_is_in_it(path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 150_000
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/(?:tmp|home|root|Users|work|private)/|runtime", without_pictures)
    metadata = json.loads(text)["metadata"]
    assert (set(metadata), metadata["language_info"]) == ({"kernelspec", "language_info"}, {"name": "python"})


def test_what_the_notebooks_say_of_their_finds_is_what_they_printed() -> None:
    printed = {
        path.stem: "".join(
            out.get("text", "")
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code"
            for out in cell.outputs
        )
        for path in NOTEBOOKS
    }
    assert "34 of 34 found, 0 wrongly named" in printed["find_the_shortcut"]
    assert "'device' goes with it most" in printed["fix_a_text_classifier"]
    assert "No shortcut was found" in printed["latents_with_scikit_learn"]
    assert "False 0" in printed["latents_with_scikit_learn"]
