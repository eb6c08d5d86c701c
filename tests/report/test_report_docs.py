"""The pictures of docs/report.md are there; its code runs in `tests/docs`."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "report.md"


def test_the_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", DOCS.read_text())
    assert pictures
    for name in pictures:
        assert 5_000 < (DOCS.parent / name).stat().st_size < 150_000
