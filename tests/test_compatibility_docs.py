"""`docs/compatibility.md` is what its renderer makes of the tables of the tests."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_is_up_to_date():
    render = runpy.run_path(str(ROOT / "benchmarks" / "render_compatibility.py"))["render"]
    page = (ROOT / "docs" / "compatibility.md").read_text()
    assert render() == page, "run: python benchmarks/render_compatibility.py"
    assert page.count("| works |") > 60
    assert page.count("| refused: ") > 50
