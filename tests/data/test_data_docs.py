"""docs/data.md: its tables are what the code renders, its pictures exist."""

import importlib.util
import re
from pathlib import Path

import pytest

from aifs_peft.data import group_array, group_spec, names

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "data.md"
# The rest takes the whole of MNIST or thousands of pictures: `benchmarks/render_data_docs.py --check` covers it.
QUICK = (
    "own_balanced",
    "own_sources",
    "own_missing",
    "pictures",
    "overview",
    "layouts",
    "options",
    "compas_race",
    "compas_sex",
    "jigsaw_templates",
    "difficulty",
    "speed",
    "tabular",
)


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("render_data_docs", ROOT / "benchmarks" / "render_data_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("block", QUICK)
def test_block_is_up_to_date(script, shared_dir, block):
    page = PAGE.read_text(encoding="utf-8")
    assert script.fill(page, {block: script.BLOCKS[block]}) == page


def test_every_set_is_in_the_overview_and_every_picture_exists():
    page = PAGE.read_text(encoding="utf-8")
    for name in names():
        assert f"| `{name}` |" in page
    pictures = re.findall(r"\]\((img/[^)]+)\)", page)
    assert len(pictures) == 6
    for picture in pictures:
        assert (PAGE.parent / picture).read_bytes().startswith(b"\x89PNG")


def test_pictures_of_sets_without_their_files_are_made_of_embedded_ones(script):
    assert set(script.GRIDS) == {Path(picture).stem for picture in re.findall(r"\]\((img/[^)]+)\)", PAGE.read_text())}
    for name, classes in (("colored_mnist", ("digit 0-4", "digit 5-9")), ("dominoes", ("china", "flower"))):
        part = script.GRIDS[name]()
        assert group_spec(part).classes == classes
        assert (group_spec(part).counts(group_array(part)) > 0).all()


def test_what_is_said_of_difficulty_comes_from_the_benchmark(script, tmp_path):
    text = script.difficulty(tmp_path)
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == [
        "| scenes_clinic", "| scenes_factory", "| scenes_shapes", "| digits_on_scenes",
    ]  # fmt: skip
    assert text.count("not run yet") == 4 * len(script.DIFFICULTY)


def test_no_block_is_empty():
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", page, flags=re.DOTALL)
    assert len(blocks) == 19
    assert all(text.strip() for _, text in blocks)


def test_unknown_and_missing_blocks_are_refused(script):
    with pytest.raises(ValueError, match="must have the block 'speed' once"):
        script.fill("no block here", {"speed": lambda: "x"})
    with pytest.raises(ValueError, match="nothing renders: \\['strange'\\]"):
        script.fill("<!-- strange -->\n<!-- /strange -->", {})
