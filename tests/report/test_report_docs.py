"""The Python of docs/report.md runs, block after block."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "report.md"


def test_the_blocks_run_in_order() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    space: dict[str, object] = {}
    for block in blocks:
        exec(block, space)
    assert "go against the shortcut" in str(space["page"])
    assert int(str(space["size"])) > 10_000


def test_the_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", DOCS.read_text())
    assert pictures
    for name in pictures:
        assert 5_000 < (DOCS.parent / name).stat().st_size < 150_000
