"""Fill the tables and pictures of docs/data.md: no count in it is typed.

    AIFS_SHARED=DIR python benchmarks/render_data_docs.py [--check]

Every block between `<!-- name -->` and `<!-- /name -->` is rendered from the data, from `describe`, or from a result
in benchmarks/results. `--check` changes nothing and fails if the page is out of date.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aifs_peft.data import describe, group_spec, load, names
from aifs_peft.data.preview import image_grid
from aifs_peft.metrics import mean_interval

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "data.md"
RESULTS = ROOT / "benchmarks" / "results"
WORLDS = ("clinic", "factory", "shapes")
GRIDS = {
    **{f"spurious_scenes_{world}": ("spurious_scenes", {"world": world, "n_train": 400}) for world in WORLDS},
    "digits_on_scenes": ("digits_on_scenes", {}),
}
"""Only sets whose pictures this package may publish: generated ones and the embedded one."""


def shared() -> Path:
    """The folder of real inputs."""
    return Path(os.environ.get("AIFS_SHARED", ROOT.parent / "shared")) / "data"


def counts(name: str, folder: str | None = None, **options: Any) -> str:
    """The Markdown table of a loaded set."""
    data = load(name, shared() / folder if folder else None, **options)
    return group_spec(data).table(data, markdown=True)


def overview() -> str:
    """One row per set, from its own description."""
    rows = ["| name | what | inputs | groups | terms |", "|---|---|---|---|---|"]
    rows += [
        f"| `{card.name}` | {card.title} | {', '.join(card.inputs)} | {card.groups} | {card.terms} |"
        for card in map(describe, names())
    ]
    return "\n".join(rows)


def layouts() -> str:
    """Source and layout of every set that reads files."""
    cards = [card for card in map(describe, names()) if not card.layout.startswith("no files")]
    return "\n".join(f"- **`{card.name}`**: {card.layout}. Source: {card.source}." for card in cards)


def options() -> str:
    """Options with their defaults."""
    lines = []
    for name in names():
        shown = ", ".join(f"`{key}={value!r}`" for key, value in describe(name).options.items())
        lines.append(f"- **`{name}`**: {shown}")
    return "\n".join(lines)


def difficulty() -> str:
    """Worst-group accuracy per world: mean over the seeds with its 95 % interval."""
    result = json.loads((RESULTS / "scenes_difficulty.json").read_text(encoding="utf-8"))
    rows = ["| world | seeds | ERM, worst group | oracle, worst group |", "|---|---:|---:|---:|"]
    for world, runs in result["worlds"].items():
        if not runs:
            continue
        cells = []
        for method in ("erm", "oracle"):
            mean, low, high = mean_interval([run[f"{method}_worst_group"] for run in runs])
            cells.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
        rows.append(f"| {world} | {len(runs)} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows)


def speed() -> str:
    """Rendering rate per world."""
    result = json.loads((RESULTS / "render_speed.json").read_text(encoding="utf-8"))
    rows = ["| world | images per second and core | target |", "|---|---:|---:|"]
    for world, row in result["worlds"].items():
        rows.append(f"| {world} | {row['images_per_core_second']:.0f} | {row['target']:.0f} |")
    return "\n".join(rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "overview": overview,
    "layouts": layouts,
    "options": options,
    "colored_mnist_binary": lambda: counts("colored_mnist", "mnist", variant="binary"),
    "compas_race": lambda: counts("compas", "compas"),
    "compas_sex": lambda: counts("compas", "compas", attribute="sex"),
    "jigsaw_templates": lambda: counts("jigsaw_templates", "jigsaw_templates"),
    "dominoes_latents": lambda: counts("dominoes_latents", "dominoes_latents"),
    "digits_on_scenes": lambda: counts("digits_on_scenes"),
    "spurious_scenes_clinic": lambda: counts("spurious_scenes", world="clinic"),
    "spurious_scenes_factory": lambda: counts("spurious_scenes", world="factory"),
    "spurious_scenes_shapes": lambda: counts("spurious_scenes", world="shapes"),
    "difficulty": difficulty,
    "speed": speed,
}


def fill(page: str, blocks: dict[str, Callable[[], str]]) -> str:
    """Replace the content of the named blocks; a marker without its block, or the reverse, is an error."""
    for name, render in blocks.items():
        text = render()
        pattern = rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)"
        found = len(re.findall(pattern, page, flags=re.DOTALL))
        page = re.sub(pattern, text.replace("\\", r"\\") + "\n", page, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"docs/data.md must have the block {name!r} once; it has it {found} times")
    unknown = set(re.findall(r"<!-- (\w+) -->", page)) - set(BLOCKS)
    if unknown:
        raise ValueError(f"docs/data.md has blocks that nothing renders: {sorted(unknown)}")
    return page


def main() -> None:
    """Render, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = fill(before, BLOCKS)
    if args.check:
        sys.exit(0 if before == after else "docs/data.md is out of date: run benchmarks/render_data_docs.py")
    PAGE.write_text(after, encoding="utf-8")
    for picture, (name, chosen) in GRIDS.items():
        image_grid(load(name, **chosen)["train"], size=48).save(ROOT / "docs" / "img" / f"{picture}.png")


if __name__ == "__main__":
    main()
