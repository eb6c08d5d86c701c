"""Write docs/methods.md from the code and the committed results: `python benchmarks/render_methods_docs.py [--check]`.

The table of methods is what `aifs methods` prints; each method's section is its module's text and its options with
their defaults; costs and accuracies come from `benchmarks/results/`, where they have been measured.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from aifs_peft.experiments.methods import markdown, table
from aifs_peft.methods import get

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "methods.md"
RESULTS = ROOT / "benchmarks" / "results"
INTRO = """# Training methods

Every method runs through the same trainer and the same command, `scripts/finetune.py --method NAME`, on frozen and
tuned encoders, images, texts and tables; those marked "on latents" also through `AIFSClassifier(recipe="NAME")`. A
method's own numbers go to `--method-options '{"NAME": VALUE}'` or `AIFSTrainingArguments(method_options=...)`. This
page is written by `benchmarks/render_methods_docs.py`; `aifs methods --json` gives the table to programs.

A method that needs what it was not given stops before training and says what to pass. Methods named `-oracle` read true
group labels: they are bounds, not competitors. Methods whose title ends in "-style" are reconstructions where the paper
or its code leaves parts open; their sections say which.
"""
# What the latents are, see `methods_data.py`.
CAPTIONS = {
    "dominoes": "MNIST-CIFAR dominoes, frozen MobileNetV2, 95 % aligned, n = 5,000.",
    "colored_mnist": "Ten digits coloured by class, frozen MobileNetV2, 95 % aligned, n = 5,000; 100 groups.",
    "compas": "COMPAS, two races, the features as latents, training subsampled to 90 % aligned; tested as it is. "
    "Discovery finds no shortcut here, so that `aifs` is plain training.",
    "spurious_scenes": "SpuriousScenes, world `clinic`, frozen MobileNetV2 at 96 px, 95 % aligned, n = 2,000.",
}
RULES = """\
Each method has {budget} random settings (schedule and its own numbers, its defaults first), of which
development draws choose one by the worst *inferred* group (XRM's bit, one run per draw, shared by all
methods); 5 test draws, mean and 95 % interval, sorted by the worst group (`benchmarks/methods.py`). Where a
cell of the validation set has fewer than 10 examples, as all conflicting ones of Colored MNIST, the rule
sees little. The last two columns choose by the worst class, and by true validation groups, which is a
bound. `aifs-closed` is `AIFSClassifier()`, which has nothing to choose, and `erm-closed` the plain logistic
regression beside it; `-oracle` methods read true groups in training. `ravl` needs patches: see the next
section.
"""


def cost_table() -> str:
    """Time and memory against ERM, where `method_cost.py` has been run."""
    path = RESULTS / "method_cost.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text())
    lines = [
        "\n## Cost\n",
        "LoRA on the embedded encoder, *digits on scenes*: time of the whole training as a ratio to ERM's",
        f"(median and range, {record['rounds']} rounds), and peak memory beyond ERM's (`benchmarks/method_cost.py`).",
        f"ERM takes {record['methods']['erm']['seconds']:.1f} s here, so that what a method does once weighs much:",
        "encoding and discovery are about 1.5 s of `aifs`. Per step see the README.\n",
        "| method | time / ERM | range | extra memory, MB |",
        "|---|---:|---:|---:|",
    ]
    for name, row in record["methods"].items():
        low, high = row["time_ratio_range"]
        extra = row["extra_megabytes"]
        lines.append(f"| `{name}` | {row['time_ratio']:.2f} | {low:.2f} to {high:.2f} | {extra:.0f} |")
    return "\n".join(lines) + "\n"


def accuracy_tables() -> str:
    """Worst-group and mean accuracy on latents, where `methods.py` has been run."""
    path = RESULTS / "methods.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text())
    out = [
        "\n## Accuracy on frozen latents\n",
        RULES.format(budget=record["budget"]),
    ]
    for data in dict.fromkeys(key.split("/")[0] for key in record["results"]):
        out += [f"\n### {data}\n", CAPTIONS[data] + "\n"]
        out += [
            "| method | worst group | mean over groups | by worst class | by true groups |",
            "|---|---:|---:|---:|---:|",
        ]
        cells = {key.split("/")[1]: cell for key, cell in record["results"].items() if key.split("/")[0] == data}
        out += [_accuracy_row(name, cells[name]) for name in sorted(cells, key=lambda n: (-_worst(cells[n]), n))]
    return "\n".join(out) + "\n"


def _worst(cell: dict[str, Any]) -> float:
    return float(cell["summary"]["worst_inferred_group/worst"]["mean"]) if "summary" in cell else -1.0


def image_table() -> str:
    """Methods trained through the trainer on images, where `methods_images.py` has been run."""
    path = RESULTS / "methods_images.json"
    if not path.is_file():
        return ""
    out = [
        "\n## Accuracy with a tuned encoder\n",
        "`tiny_clip` with LoRA r = 8 through the trainer, every method at its defaults; 5 seeds, mean and 95 %",
        "interval (`benchmarks/methods_images.py`). The epoch is chosen by the worst inferred group where a method",
        "infers groups (`aifs`), else by the worst class: part of a difference can come from that. Two and ten",
        "classes.\n",
        "| data | method | worst group | average |",
        "|---|---|---:|---:|",
    ]
    for key, cell in json.loads(path.read_text())["summary"].items():
        data, method = key.split("/")
        worst, average = (_interval(*cell[name]) for name in ("worst", "average"))
        out.append(f"| {data} | `{method}` | {worst} | {average} |")
    return "\n".join(out) + "\n"


def _interval(mean: float, low: float, high: float) -> str:
    low, high = (min(max(bound, 0.0), 1.0) for bound in (low, high))
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _accuracy_row(name: str, cell: dict[str, Any]) -> str:
    if "summary" not in cell:
        return f"| `{name}` | not applicable: {re.split('[:;] ', cell['failed'])[0]} | | | |"
    summary = cell["summary"]
    chosen = summary["worst_inferred_group/worst"]
    others = [summary[key]["mean"] for key in ("worst_inferred_group/balanced", "worst_class/worst", "oracle/worst")]
    return (
        f"| `{name}` | {_interval(chosen['mean'], *chosen['interval'])} | "
        + " | ".join(f"{v:.3f}" for v in others)
        + " |"
    )


def section(name: str) -> str:
    """A method's text from its module, and its options."""
    method = get(name)
    text = inspect.cleandoc(inspect.getmodule(method).__doc__ or "")
    lines = [f"\n## `{name}`\n", text, ""]
    options = [(f.name, f.default) for f in fields(method.Options)]
    if options:
        lines += ["Options: " + ", ".join(f"`{n}` = {_shown(value)}" for n, value in options) + ".", ""]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is MISSING:
        return "its own defaults"
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{value!r}`"


def render() -> str:
    """The whole page."""
    rows = table()
    known = [row for row in rows if not row["name"].startswith("doctest-")]
    text = INTRO + "\n" + markdown(known) + "\n" + cost_table() + accuracy_tables() + image_table()
    text += "".join(section(row["name"]) for row in known)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def main() -> int:
    """Write the page, or with `--check` only say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    text = render()
    if parser.parse_args().check:
        if not PAGE.is_file() or PAGE.read_text() != text:
            print("docs/methods.md is not what the code says; run: python benchmarks/render_methods_docs.py")
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
