"""Fill the tables and pictures of docs/data.md: no count in it is typed.

    AIFS_SHARED=DIR python benchmarks/render_data_docs.py [--check]

Every block between `<!-- name -->` and `<!-- /name -->` is rendered from the data, from `describe`, or from a result
in benchmarks/results. `--check` changes nothing and fails if the page is out of date.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from aifs_peft.bench import read_experiment, read_results
from aifs_peft.bench.formatting import percent, table
from aifs_peft.bench.tables import WORST, summarise
from aifs_peft.data import describe, group_spec, load, names
from aifs_peft.data import images as image_rules
from aifs_peft.data.preview import image_grid
from aifs_peft.metrics import mean_interval

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "data.md"
RESULTS = ROOT / "benchmarks" / "results"
WORLDS = ("clinic", "factory", "shapes")
# Methods that say how hard a data set is: without group labels, and told the group of every training example.
DIFFICULTY = ("erm-closed", "erm", "reweight-oracle")


def small_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits, enlarged to MNIST's 28 x 28 pixels: (n, 28, 28) uint8, and their values."""
    bunch = load_digits()
    large = np.kron(bunch.images / 16 * 255, np.ones((3, 3))).round().astype(np.uint8)
    return np.pad(large, ((0, 0), (2, 2), (2, 2))), bunch.target.astype(np.int64)


def photo_crops(n: int = 200, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Crops of scikit-learn's two photographs, four times smaller: (2 n, size, size, 3) uint8, and which photograph."""
    rng = np.random.default_rng(0)
    crops = []
    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name)[::4, ::4]
        corners = zip(
            rng.integers(photo.shape[0] - size, size=n), rng.integers(photo.shape[1] - size, size=n), strict=True
        )
        crops += [photo[top : top + size, left : left + size] for top, left in corners]
    return np.stack(crops), np.repeat(np.arange(2), n)


def coloured_digits() -> Any:
    """Colored MNIST, binary, with scikit-learn's digits in the place of MNIST's."""
    images, digits = small_digits()
    with tempfile.TemporaryDirectory() as folder:
        for split, rows in (("train", slice(0, 1200)), ("test", slice(1200, None))):
            np.savez(Path(folder) / f"{split}.npz", x=images[rows], y=digits[rows].astype(np.uint8))
        return load("colored_mnist", folder, variant="binary", n_train=800, n_validation=400)["train"]


def photo_dominoes() -> Any:
    """Dominoes of scikit-learn's digits 0 and 1 over crops of its photographs."""
    sources = []
    for images, labels in (small_digits(), photo_crops()):
        odd = np.arange(len(labels)) % 2 == 1
        sources.append({"train": (images[~odd], labels[~odd]), "test": (images[odd], labels[odd])})
    names = {"top_names": ("digit 0", "digit 1"), "bottom_names": ("china", "flower")}
    return load("dominoes", top=sources[0], bottom=sources[1], bottom_classes=(0, 1), aligned=0.8, **names)["train"]


GRIDS: dict[str, Callable[[], Any]] = {
    **{f"spurious_scenes_{w}": lambda w=w: load("spurious_scenes", world=w, n_train=400)["train"] for w in WORLDS},
    "digits_on_scenes": lambda: load("digits_on_scenes")["train"],
    "colored_mnist": coloured_digits,
    "dominoes": photo_dominoes,
}
"""Only pictures that this package may publish: generated, or made of what scikit-learn ships."""


def shared() -> Path:
    """The folder of real inputs."""
    return Path(os.environ.get("AIFS_SHARED", ROOT.parent / "shared")) / "data"


def counts(name: str, folder: str | None = None, **options: Any) -> str:
    """The Markdown table of a loaded set."""
    data = load(name, shared() / folder if folder else None, **options)
    return group_spec(data).table(data, markdown=True)


def write_scans(folder: Path, n: int = 540) -> None:
    """The example of own data: `n` small pictures, a table beside them, and latents of as many examples."""
    rng = np.random.default_rng(0)
    finding = np.arange(n) % 2
    scanner = np.where(rng.random(n) < 0.88, finding, 1 - finding)
    names = [f"images/{i:03d}.png" for i in range(n)]
    (folder / "images").mkdir()
    for name, grey in zip(names, rng.integers(0, 256, (n, 8, 8), dtype=np.uint8), strict=True):
        Image.fromarray(grey).save(folder / name)
    columns = {
        "path": names, "finding": np.array(["benign", "malignant"])[finding], "scanner": np.array(["A", "B"])[scanner],
        "age": rng.integers(20, 90, n), "dose": rng.random(n).round(3),
    }  # fmt: skip
    pd.DataFrame(columns).to_csv(folder / "scans.csv", index=False)
    (folder / "latents").mkdir()
    np.savez(folder / "latents" / "encoded.npz", Z=rng.normal(size=(n, 16)).astype(np.float32), y=finding)


@functools.cache
def examples() -> list[tuple[str, str]]:
    """Code blocks of the section on own data with what they print, run one after the other in the example's folder."""
    page = PAGE.read_text(encoding="utf-8")
    section = page[page.index("## Your own data") : page.index("## Data sets by name")]
    names: dict[str, Any] = {}
    found = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_scans(Path(folder))
        for code in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, str(PAGE), "exec"), names)
            found.append((code, out.getvalue().rstrip()))
    return found


def printed(number: int) -> str:
    """What a code block on own data prints."""
    return f"```\n{examples()[number][1]}\n```"


def pictures() -> str:
    """What becomes of each kind of picture, from the docstring of the module that does it."""
    text = (image_rules.__doc__ or "").split("\n\n")[1]
    return text.strip()


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


def difficulty(results: Path = RESULTS) -> str:
    """Worst group of plain training and of an oracle on generated data, from the benchmark of frozen encoders."""
    experiment = read_experiment(ROOT / "benchmarks" / "experiments" / "frozen.json")
    asked = experiment.only(
        data=[*(f"scenes_{world}" for world in WORLDS), "digits_on_scenes"], methods=list(DIFFICULTY)
    )
    rows = {(row.dataset, row.method): row for row in summarise(read_results(results, asked))}
    lines = []
    for data in asked.data:
        found = [rows[data.name, name].values.get(WORST) if (data.name, name) in rows else None for name in DIFFICULTY]
        lines.append([data.name, *("not run yet" if v is None else percent(v.mean, v.high) for v in found)])
    return table(["worst group, %", *(f"`{name}`" for name in DIFFICULTY)], lines)


def tabular() -> str:
    """Average and worst-group accuracy on COMPAS per adapter: mean over the seeds with its 95 % interval."""
    result = json.loads((RESULTS / "tabular_adapters.json").read_text(encoding="utf-8"))
    rows = ["| `--adapter` | trained parameters | seeds | average | worst group |", "|---|---:|---:|---:|---:|"]
    for adapter, runs in result["adapters"].items():
        cells = []
        for name in ("average", "worst_group"):
            mean, low, high = mean_interval([run[name] for run in runs])
            cells.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
        rows.append(f"| `{adapter}` | {runs[0]['trained_parameters']} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def speed() -> str:
    """Rendering rate per world."""
    result = json.loads((RESULTS / "render_speed.json").read_text(encoding="utf-8"))
    rows = ["| world | images per second and core | target |", "|---|---:|---:|"]
    for world, row in result["worlds"].items():
        rows.append(f"| {world} | {row['images_per_core_second']:.0f} | {row['target']:.0f} |")
    return "\n".join(rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "own_balanced": lambda: printed(0),
    "own_sources": lambda: printed(1),
    "own_missing": lambda: printed(2),
    "pictures": pictures,
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
    "tabular": tabular,
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
    parser.add_argument("--blocks", nargs="+", choices=list(BLOCKS), help="these alone, and no pictures")
    args = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = fill(before, {name: BLOCKS[name] for name in args.blocks or BLOCKS})
    if args.check:
        sys.exit(0 if before == after else "docs/data.md is out of date: run benchmarks/render_data_docs.py")
    PAGE.write_text(after, encoding="utf-8")
    for picture, rows in () if args.blocks else GRIDS.items():
        side = 80 if picture == "dominoes" else 48  # two pictures high
        image_grid(rows(), size=side).save(ROOT / "docs" / "img" / f"{picture}.png")


if __name__ == "__main__":
    main()
