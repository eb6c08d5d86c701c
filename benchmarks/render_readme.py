"""Fill the README's tables from committed results: `python benchmarks/render_readme.py [--check]`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from aifs_peft.bench import read_experiment
from aifs_peft.bench.parts import NOTHING, read_report, short_sentences, told_progress
from aifs_peft.experiments import markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def benchmark(results: Path = RESULTS, name: str = "frozen") -> str:
    """What an experiment of the benchmark says, a line per claim."""
    report = read_report(read_experiment(ROOT / "benchmarks" / "experiments" / f"{name}.json"), results)
    told = [text for text in [told_progress(report)] if text] if report.found else []
    return "\n\n".join([*told, "\n".join(f"- {text}" for text in short_sentences(report)) or NOTHING])


def render(text: str, results: Path = RESULTS) -> str:
    """The README's text: `<!-- table:NAME -->` from `results/NAME.json`, `<!-- bench:NAME -->` by the benchmark."""

    def fill(match: re.Match[str]) -> str:
        summary = json.loads((RESULTS / f"{match[1]}.json").read_text())
        return f"<!-- table:{match[1]} -->\n{markdown_table(summary)}\n<!-- /table:{match[1]} -->"

    text = re.sub(r"<!-- table:([\w/]+) -->\n.*?<!-- /table:\1 -->", fill, text, flags=re.DOTALL)

    def say(match: re.Match[str]) -> str:
        return f"<!-- bench:{match[1]} -->\n{benchmark(results, match[1])}\n<!-- /bench:{match[1]} -->"

    return re.sub(r"<!-- bench:(\w+) -->\n.*?<!-- /bench:\1 -->", say, text, flags=re.DOTALL)


def main() -> int:
    """Write the README, or with `--check` only say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text()
    rendered = render(text, given.results)
    if given.check:
        if rendered != text:
            print("README.md is not what the results say; run: python benchmarks/render_readme.py")
        return int(rendered != text)
    readme.write_text(rendered)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
