"""Fill the README's tables from committed results: `python benchmarks/render_readme.py [--check]`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from aifs_peft.benchmark import markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def render(text: str) -> str:
    """The README's text with each `<!-- table:NAME -->` block filled from `results/NAME.json`."""

    def fill(match: re.Match[str]) -> str:
        summary = json.loads((RESULTS / f"{match[1]}.json").read_text())
        return f"<!-- table:{match[1]} -->\n{markdown_table(summary)}\n<!-- /table:{match[1]} -->"

    return re.sub(r"<!-- table:(\w+) -->\n.*?<!-- /table:\1 -->", fill, text, flags=re.DOTALL)


def main() -> int:
    """Write the README, or with `--check` only say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    readme = ROOT / "README.md"
    text = readme.read_text()
    rendered = render(text)
    if parser.parse_args().check:
        if rendered != text:
            print("README.md is not what the results say; run: python benchmarks/render_readme.py")
        return int(rendered != text)
    readme.write_text(rendered)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
