"""Fill in what the code blocks of the pages print, between `<!-- output -->` marks: no output is typed.

    python benchmarks/render_outputs.py [PAGE ...]

Every page with such marks, or those named (`docs/quickstart.md`), is run in a folder of stand-ins, as in the tests.
"""

import contextlib
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

import reader_folder  # noqa: E402
from pages import PAGES, blocks, run_page, text_of  # noqa: E402


def render(page: str) -> str:
    """The page with the outputs that its blocks print now."""
    text = text_of(page)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader_folder.fill(Path(folder))
        run = run_page(page, shell=any(block.output is not None for block in blocks(page, "bash")))
    for block, printed in reversed(run.outputs):
        if block.output is not None:
            start, end = block.output_span
            lines = [line.rstrip() for line in printed.rstrip().splitlines()]
            text = text[:start] + "\n".join(lines) + "\n" + text[end:]
    return text


def main() -> None:
    """Rewrite the pages."""
    marked = [page for page in PAGES if any(block.output is not None for block in blocks(page))]
    for page in sys.argv[1:] or marked:
        (ROOT / page).write_text(render(page), encoding="utf-8")
        print(f"wrote {page}")


if __name__ == "__main__":
    main()
