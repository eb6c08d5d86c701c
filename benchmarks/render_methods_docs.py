"""Write the pages on methods from code and committed results: `python benchmarks/render_methods_docs.py [--check]`.

`docs/methods.md` is the page of choices: which method for which data, the table that `aifs methods` prints, and the
worst-group accuracy of each. `docs/methods/` has a page per family, made of the modules' texts and their options, and
`results.md` with costs and accuracies from `benchmarks/results/`. The tables of `docs/paper.md` are filled in.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from aifs_peft.experiments.methods import markdown, table
from aifs_peft.methods import get, names

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
NOTICE = "<!-- Written by benchmarks/render_methods_docs.py; change the modules' texts or the script instead. -->\n"
FAMILIES = {
    "aifs": "AIFS",
    "reweighting": "Reweighting and balancing",
    "regularisers": "Regularisers",
    "last_layer": "Last-layer retraining",
    "attributes": "Attributes and regions",
}
# The paragraphs of a module's text; see `aifs_peft/methods/base.py`.
LABELS = ("Paper", "Formula", "Supervision", "Differs from the paper", "Cannot", "Extra cost", "Defaults", "Measured")
CHOICES = (
    (
        "latents of any encoder, labels, no group labels",
        "`AIFSClassifier()`",
        "closed form, nothing to tune; plain training where no shortcut is found",
    ),
    (
        "a model to fine-tune, labels, no group labels",
        "`aifs`",
        "the same discovery, with a frozen or a tuned encoder and any head",
    ),
    (
        "the same, and a few known attribute values, metadata columns or named directions",
        "`aifs` with hints",
        "finds attributes that are too weak to be found alone, see [Discovery](discovery.md)",
    ),
    (
        "classes of unequal size, and discovery finds nothing",
        "`erm-balanced`",
        "on `compas` below it doubles the worst group of plain training",
    ),
    (
        "the same, and you still suspect a shortcut",
        "`xrm-gdro`",
        "the best baseline without group labels on most of the data sets below",
    ),
    (
        "the group of every training example",
        "`reweight-oracle`",
        "about as good as `gdro-oracle` and simpler; `gdro-oracle` with `adjustment` for rare groups",
    ),
    (
        "the group of the validation examples alone",
        "`dfr-oracle`",
        "fits the last layer on them; wants some hundred examples of every group",
    ),
    (
        "an environment (site, year, device) per example",
        '`irm` with `environments="given"`',
        "asks for a head that is right in each environment; try `xrm-gdro` beside it",
    ),
    (
        "attributes by name: captions, words, columns",
        "`spume`",
        "trains on pairs of attributes that a class's accuracy depends on",
    ),
    (
        "a shortcut in another part of the image or text than the class",
        "`ravl`",
        "trains on regions; needs the patch or token features of a transformer",
    ),
    (
        "a paper to compare with",
        "its name in the table",
        "the column *differs from the paper* says what is not the paper's",
    ),
    (
        "an interest in the published AIFS",
        "`aifs-paper`",
        "the formulas as they are printed, see [The published formulas](paper.md)",
    ),
)
PAGE = """# Which method

Every method runs through the same trainer and the same command, `aifs finetune --method NAME`, on frozen and tuned
encoders, images, texts and tables; those marked "on latents" also through `AIFSClassifier(recipe="NAME")`. A method's
own numbers go to `--method-options '{"NAME": VALUE}'` or `AIFSTrainingArguments(method_options=...)`.

## Your data look like this

| what you have | use | why |
|---|---|---|
{choices}

A method that needs what it was not given stops before training and says what to pass. Methods named `-oracle` read true
group labels: they are bounds, not competitors. A title that ends in "-style" names a reconstruction, where the paper or
its code leaves parts open.
"""
TABLE = """
## The methods

`aifs methods` prints this table, `aifs methods --json` gives it to programs. Each name links to its text: formula,
supervision, limits, cost, where its default numbers come from.

"""
WORST = """
## How they compare

Worst-group accuracy on frozen latents: mean of 5 draws, the same budget of {budget} settings for each method, chosen
without group labels. Methods that end in `-oracle` are given the groups in training, `-closed` are `AIFSClassifier()`
and its plain logistic regression. A dash: not applicable there. On `compas` discovery finds no shortcut. Intervals,
averages, other rules of choice, tuned encoders and costs are on the page [Results](methods/results.md).

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


def _result(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _worst(cell: dict[str, Any]) -> float:
    return float(cell["summary"]["worst_inferred_group/worst"]["mean"]) if "summary" in cell else -1.0


def worst_group_table(record: dict[str, Any]) -> str:
    """Worst group of every method on every data set, sorted by the sum; a data set it cannot work on counts 0."""
    data = list(dict.fromkeys(key.split("/")[0] for key in record["results"]))
    worst: dict[str, dict[str, float]] = {}
    for key, cell in record["results"].items():
        where, name = key.split("/")
        worst.setdefault(name, {})
        if "summary" in cell:
            worst[name][where] = _worst(cell)
    lines = ["| method | " + " | ".join(data) + " |", "|---|" + "---:|" * len(data)]
    for name in sorted(worst, key=lambda n: (-sum(worst[n].values()), n)):
        missing = ["-" if f"{d}/{name}" in record["results"] else "not run" for d in data]
        cells = [f"{worst[name][d]:.3f}" if d in worst[name] else said for d, said in zip(data, missing, strict=True)]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cost_table() -> str:
    """Time and memory against plain training, where `method_cost.py` has been run."""
    record = _result("method_cost")
    if record is None:
        return ""
    lines = [
        "\n## Cost\n",
        "LoRA on the embedded encoder, *digits on scenes*: time of the whole training as a ratio to `erm`'s",
        f"(median and range, {record['rounds']} rounds), and peak memory beyond it (`benchmarks/method_cost.py`).",
        f"Plain training takes {record['methods']['erm']['seconds']:.1f} s here, so that what a method does once",
        "weighs much: encoding and discovery are about 1.5 s of `aifs`.\n",
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
    record = _result("methods")
    if record is None:
        return ""
    out = ["\n## Accuracy on frozen latents\n", RULES.format(budget=record["budget"])]
    for data in dict.fromkeys(key.split("/")[0] for key in record["results"]):
        out += [f"\n### {data}\n", CAPTIONS[data] + "\n"]
        out += [
            "| method | worst group | mean over groups | by worst class | by true groups |",
            "|---|---:|---:|---:|---:|",
        ]
        cells = {key.split("/")[1]: cell for key, cell in record["results"].items() if key.split("/")[0] == data}
        out += [_accuracy_row(name, cells[name]) for name in sorted(cells, key=lambda n: (-_worst(cells[n]), n))]
    for data in dict.fromkeys(key.split("/")[0] for key in record["results"]):
        waiting = [
            f"`{name}`"
            for name in names()
            if get(name).on_latents and f"{data}/{name}" not in record["results"] and "doctest" not in name
        ]
        if waiting:
            out.append(f"\nNot run on `{data}` yet: {', '.join(waiting)}.")
    return "\n".join(out) + "\n"


def image_table() -> str:
    """Methods trained through the trainer on images, where `methods_images.py` has been run."""
    record = _result("methods_images")
    if record is None:
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
    for key, cell in record["summary"].items():
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


def readings_table() -> str:
    """Accuracy of every reading of the published formulas, where `paper_readings.py` has been run."""
    record = _result("paper_readings")
    if record is None:
        return ""
    rows = record["latents"]
    lines = ["| training | worst group | mean over groups |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {rows[key]['worst_group']:.3f} | {rows[key]['mean_over_groups']:.3f} |"
        for name, key in (
            ("plain, `erm`", "erm"),
            ("`aifs`", "aifs"),
            ("balanced by the true groups, `reweight-oracle`", "reweight-oracle"),
            ('`mask_scale="max"`, `beta=0`: invariance alone', "invariance alone"),
            ('`mask_scale="max"`, `alpha=0`: sensitivity alone, printed sign', "sensitivity alone"),
        )
    ]
    lines += [
        "",
        "Worst group (and mean over groups) of every reading; the first row with sign -1 is what is printed:",
        "",
        "| attribution | mask rule | mask scale | sign -1 | sign +1 | noise |",
        "|---|---|---|---:|---:|---:|",
    ]
    for key in dict.fromkeys(name.rpartition("/")[0] for name in rows if "/" in name):
        cells = [f"`{part}`" for part in key.split("/")]
        for row in (rows[f"{key}/-1"], rows[f"{key}/+1"]):
            cells.append(f"{row['worst_group']:.3f} ({row['mean_over_groups']:.3f})")
        lines.append(f"| {' | '.join(cells)} | {rows[f'{key}/-1']['noise_share']:.3f} |")
    return "\n".join(lines) + "\n"


def readings_demo_table() -> str:
    """Both attributions on the demo's data, one number per seed."""
    record = _result("paper_readings")
    if record is None or "demo" not in record:
        return ""
    lines = ["| attribution | mask scale | worst group, by seed | average, by seed |", "|---|---|---|---|"]
    for key, row in record["demo"].items():
        kind, _, scale = key.partition("/")
        first = f"`{kind}` | `{scale}`" if scale else "plain training | -"
        cells = (", ".join(f"{value:.4f}" for value in row[name]) for name in ("worst_group", "average"))
        lines.append(f"| {first} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def filled(text: str) -> str:
    """A page of prose with its `<!-- table:NAME -->` blocks filled."""
    tables = {"readings": readings_table, "readings_demo": readings_demo_table}
    for name, make in tables.items():
        block = rf"<!-- table:{name} -->\n.*?<!-- /table:{name} -->"
        new = f"<!-- table:{name} -->\n{make()}<!-- /table:{name} -->"
        text = re.sub(block, lambda _, new=new: new, text, flags=re.DOTALL)
    return text


def family_of(name: str) -> str:
    """The folder of a built-in method."""
    return get(name).__module__.split(".")[-2]


def section(name: str) -> str:
    """A method's text from its module, and its options."""
    method = get(name)
    text = inspect.cleandoc(inspect.getmodule(method).__doc__ or "")
    paragraphs = [re.sub(rf"^({'|'.join(LABELS)})\b", r"**\1**", part) for part in text.split("\n\n")]
    lines = [f"\n## `{name}`\n", "\n\n".join(paragraphs), ""]
    options = [(f.name, f.default) for f in fields(method.Options)]
    if options:
        lines += ["**Options**: " + ", ".join(f"`{n}` = {_shown(value)}" for n, value in options) + ".", ""]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is MISSING:
        return "its own defaults"
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{value!r}`"


def render() -> dict[str, str]:
    """Every page by its path below `docs/`."""
    rows = [row for row in table() if not row["name"].startswith("doctest-")]
    record = _result("methods")
    linked = markdown(rows)
    for row in rows:
        target = f"methods/{family_of(row['name'])}.md#{row['name']}"
        linked = linked.replace(f"| `{row['name']}` |", f"| [`{row['name']}`]({target}) |")
    choices = "\n".join(f"| {' | '.join(row)} |" for row in CHOICES)
    pages = {"methods.md": NOTICE + PAGE.replace("{choices}", choices) + TABLE + linked + "\n"}
    if record is not None:
        pages["methods.md"] += WORST.format(budget=record["budget"]) + worst_group_table(record)
    for family, title in FAMILIES.items():
        intro = (importlib.import_module(f"aifs_peft.methods.{family}").__doc__ or "").strip()
        mine = [row["name"] for row in rows if family_of(row["name"]) == family]
        pages[f"methods/{family}.md"] = f"{NOTICE}# {title}\n\n{intro}\n" + "".join(map(section, mine))
    pages["paper.md"] = filled((DOCS / "paper.md").read_text())
    pages["methods/results.md"] = f"{NOTICE}# Results\n" + accuracy_tables() + image_table() + cost_table()
    return {name: re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n" for name, text in pages.items()}


def main() -> int:
    """Write the pages, or with `--check` only say which are not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check, stale = parser.parse_args().check, 0
    for name, text in render().items():
        path = DOCS / name
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            print(f"docs/{name} is not what the code says; run: python benchmarks/render_methods_docs.py")
            stale = 1
    return stale


if __name__ == "__main__":
    raise SystemExit(main())
