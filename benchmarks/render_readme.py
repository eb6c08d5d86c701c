"""Fill the README's tables from committed results: `python benchmarks/render_readme.py [--check]`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from aifs_peft.experiments import markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def _difficulty(result: dict[str, Any]) -> str:
    """Plain training against the group-label oracle on the embedded data."""
    names = {"probe": "frozen encoder, linear probe", "lora": "LoRA"}
    lines = ["| encoder | plain, worst group | group-label oracle, worst group |", "|---|---:|---:|"]
    for key, name in names.items():
        cells = [result["summary"][entry]["worst_group"] for entry in (key, f"{key}_oracle")]
        lines.append(f"| {name} | " + " | ".join(f"{c['mean']:.3f} ± {c['std']:.3f}" for c in cells) + " |")
    return "\n".join(lines)


def _dominoes(result: dict[str, Any]) -> str:
    """ERM, the tuned oracle and AIFS at each aligned share."""
    lines = ["| aligned share | ERM | tuned group-label oracle | AIFS, label-free |", "|---|---:|---:|---:|"]
    for name, entry in sorted(result["summary"].items()):
        cells = [f"{entry[key]:.3f} ± {entry[f'{key}_se']:.3f}" for key in ("erm", "oracle", "aifs")]
        lines.append(f"| {name.removeprefix('dominoes/')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


RENDERERS = {
    "demo": markdown_table,
    "demo_8_epochs": markdown_table,
    "demo_other_seeds": markdown_table,
    "digits_on_scenes_difficulty": _difficulty,
    "discovery_dominoes": _dominoes,
}


def render(text: str) -> str:
    """The README's text with each `<!-- table:NAME -->` block filled from `results/NAME.json`."""

    def fill(match: re.Match[str]) -> str:
        summary = json.loads((RESULTS / f"{match[1]}.json").read_text())
        return f"<!-- table:{match[1]} -->\n{RENDERERS[match[1]](summary)}\n<!-- /table:{match[1]} -->"

    return re.sub(r"<!-- table:([\w/]+) -->\n.*?<!-- /table:\1 -->", fill, text, flags=re.DOTALL)


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
