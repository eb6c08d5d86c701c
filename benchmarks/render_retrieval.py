"""Write the table of docs/clip.md from benchmarks/results/retrieval.json.

python benchmarks/render_retrieval.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE, DATA = ROOT / "docs" / "clip.md", ROOT / "benchmarks" / "results" / "retrieval.json"
BLOCK = re.compile(r"<!-- retrieval -->\n.*?<!-- /retrieval -->", flags=re.DOTALL)
TITLES = {
    "plain": "plain contrastive tuning",
    "robust": "**`RetrievalTrainer`**",
    "moved": "`RetrievalTrainer(moved=0.5)`",
}


def cell(entry: dict[str, Any]) -> str:
    """Mean and standard error."""
    return f"{entry['mean']:.3f} ± {entry['error']:.3f}"


def table(result: dict[str, Any]) -> str:
    """Recall@1 of both directions, on average and of the worst group."""
    seeds = sorted({row["seed"] for row in result["rows"]})
    lines = [
        f"Recall@1, mean ± standard error of {len(seeds)} draws (`benchmarks/retrieval.py`: `tiny_clip`, `factory`, "
        f"{result['settings']['n_train']:,} pairs of which 5 % go against the shortcut; groups are flaw x line).",
        "",
        "| | captions of images: average | worst group | images of captions: average | worst group |",
        "|---|---:|---:|---:|---:|",
    ]
    for regime, title in TITLES.items():
        if regime in result["summary"]:
            parts = [result["summary"][regime][direction] for direction in ("image_to_text", "text_to_image")]
            numbers = [cell(part[name]) for part in parts for name in ("recall@1", "worst_group_recall@1")]
            lines.append(f"| {title} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def filled(page: str, result: dict[str, Any]) -> str:
    """The page with the table in its place."""
    return BLOCK.sub(lambda _: f"<!-- retrieval -->\n{table(result)}\n<!-- /retrieval -->", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), json.loads(DATA.read_text())))
