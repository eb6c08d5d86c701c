"""Fill docs/dynamics.md and section 4 of docs/theory.md from results, and draw their pictures.

python benchmarks/render_dynamics.py          # text and pictures
python benchmarks/render_dynamics.py --check  # only say whether the text is up to date
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

import dynamics_of_heads as heads
import dynamics_of_tuned as tuned
import sample_size_report as sample_sizes
from dynamics_figures import draw_dynamics, draw_sizes, draw_tuned
from dynamics_report import ROOT

IMAGES = ROOT / "docs" / "img"
PAGES = (ROOT / "docs" / "dynamics.md", ROOT / "docs" / "theory.md")
BLOCKS: dict[str, Callable[[], str]] = {
    "setting": heads.setting,
    "answers": heads.answers,
    "tests": heads.tests,
    "ends": heads.ends,
    "tuned_setting": tuned.setting,
    "tuned_answers": tuned.answers,
    "tuned_tests": tuned.tests,
    "tuned_ends": tuned.ends,
    "sizes": sample_sizes.sizes,
    "sizes_said": sample_sizes.sizes_said,
}


def fill(page: str) -> str:
    """The page with each `<!-- NAME -->` block filled; an unknown name is an error."""

    def block(match: re.Match[str]) -> str:
        if match[1] not in BLOCKS:
            raise ValueError(f"nothing renders the block {match[1]!r}; known are {sorted(BLOCKS)}")
        return f"<!-- {match[1]} -->\n{BLOCKS[match[1]]()}\n<!-- /{match[1]} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", block, page, flags=re.DOTALL)


def main() -> None:
    """Render or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = fill(before)
        if options.check and after != before:
            sys.exit(f"{path.name} is out of date: run benchmarks/render_dynamics.py")
        path.write_text(after, encoding="utf-8")
    if not options.check:
        draw_dynamics(IMAGES / "training_dynamics.png")
        draw_tuned(IMAGES / "tuned_dynamics.png")
        draw_sizes(IMAGES / "sample_sizes.png")


if __name__ == "__main__":
    main()
