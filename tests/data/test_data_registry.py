"""The one entrance: names, options, descriptions."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aifs_peft
from aifs_peft.data import describe, load, names
from aifs_peft.data.sources import DataCard
from aifs_peft.errors import AIFSError, DataNotFoundError, InvalidInputError


def test_unknown_name_suggests_the_closest():
    with pytest.raises(InvalidInputError, match="did you mean 'colored_mnist'"):
        load("coloured_mnist")
    with pytest.raises(InvalidInputError, match="known: "):
        describe("zzzzzz")


def test_unknown_option_is_refused_before_anything_is_read():
    with pytest.raises(InvalidInputError, match=r"no option 'algned' .did you mean 'aligned'\?"):
        load("colored_mnist", "nowhere", algned=0.9)


@pytest.mark.parametrize("name", [n for n in names() if n != "digits_on_scenes"])
def test_every_set_describes_itself(name):
    card = describe(name)
    assert isinstance(card, DataCard)
    assert card.name == name
    assert card.inputs
    assert card.options
    assert card.source in str(card)


@pytest.mark.parametrize("name", [n for n in names() if n not in ("digits_on_scenes", "spurious_scenes")])
def test_a_missing_folder_is_a_file_not_found_error_that_says_what_to_do(name, tmp_path):
    folder = tmp_path / "absent"
    with pytest.raises(FileNotFoundError, match="Expected layout") as caught:
        load(name, folder)
    assert isinstance(caught.value, DataNotFoundError)
    assert isinstance(caught.value, AIFSError)
    assert str(folder) in str(caught.value)
    assert not folder.exists()


@pytest.mark.parametrize("folder", ["data", "metrics"])
def test_no_module_imports_a_deep_learning_library_when_it_is_imported(folder):
    root = Path(aifs_peft.__file__).parent / folder
    for path in root.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in found} & {"torch", "transformers", "peft", "accelerate"}, (
                path
            )


def test_import_reads_nothing_and_imports_no_data_set_library():
    code = (
        "import sys, aifs_peft.data as d; d.names(); "
        "print(sorted(m for m in ('datasets', 'pandas', 'pyarrow', 'sklearn') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
