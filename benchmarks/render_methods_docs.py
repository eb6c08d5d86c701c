"""Write the pages on methods from code and committed results: `python benchmarks/render_methods_docs.py [--check]`.

`docs/methods.md` is the page of choices: which method for which data, the table that `aifs methods` prints, and the
worst-group accuracy of each in the benchmark. `docs/methods/` has a page per family, made of the modules' texts, their
options and their numbers in the benchmark, and `results.md` with the benchmark's whole tables and with costs. The block
of `docs/paper.md` is filled in. `--results DIR` reads another folder of results.
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

from aifs_peft.bench import read_experiment
from aifs_peft.bench.ablation import ablation_sentences
from aifs_peft.bench.formatting import differs, listed, percent, points
from aifs_peft.bench.formatting import table as markdown_table
from aifs_peft.bench.overview import best_of, label_free, overview_table, ranks_of
from aifs_peft.bench.parts import OWN, Report, read_report, tables_part, told_progress, values_of
from aifs_peft.bench.statistics import compare
from aifs_peft.bench.tables import WORST
from aifs_peft.experiments.methods import markdown, table
from aifs_peft.methods import get, names

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
EXPERIMENTS, RESULTS = ROOT / "benchmarks" / "experiments", ROOT / "benchmarks" / "results"
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
        "every class counts alike",
    ),
    (
        "the same, and you still suspect a shortcut",
        "`xrm-gdro`",
        "groups that two classifiers infer, then group DRO over them",
    ),
    (
        "the group of every training example",
        "`reweight-oracle`",
        "simpler than `gdro-oracle`, whose `adjustment` helps rare groups",
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
COMPARISON = """
## How they compare

Worst-group accuracy in percent on latents of frozen encoders, mean over five draws ± half the 95 % interval; bold: the
best without group labels. Names that end in `-oracle` are told the groups, `aifs-closed` is `AIFSClassifier()`,
`erm-closed` its plain logistic regression. How the numbers come about, and what they do not show:
[Benchmark](benchmark.md). Other metrics, tuned encoders and costs: [Results](methods/results.md).

"""
FROZEN = """
## Frozen encoders

Every method with the same budget of settings, chosen without group labels; see [Benchmark](../benchmark.md). "Minus
it" is `AIFSClassifier()` minus the method, paired by draw, bold where it is there after Holm's correction.
{left}
"""
TUNED = """
## Encoders tuned by LoRA

Every method at its defaults; the closed heads are fitted on the untuned encoder. "Minus it" is `aifs` minus the method.
"""


def read(name: str, results: Path = RESULTS) -> Report:
    """What an experiment of the benchmark has by now."""
    return read_report(read_experiment(EXPERIMENTS / f"{name}.json"), results)


def measured_reasons(frozen: Report) -> dict[str, str]:
    """What the benchmark adds to the reasons of `CHOICES`, by method; nothing where it has no numbers."""
    rows, found = frozen.rows, {}
    mean = {(row.dataset, row.method): row.values[WORST].mean for row in rows if WORST in row.values}
    if ("compas", "erm-balanced") in mean and ("compas", "erm") in mean:
        pair = [percent(mean["compas", name]) for name in ("erm-balanced", "erm")]
        found["`erm-balanced`"] = f"on `compas` a worst group of {pair[0]} % where plain training has {pair[1]} %"
    own = [d for d, name in mean if name == "aifs-closed"]
    if own:
        best = sum(best_of(rows, dataset, label_free(rows)) == "aifs-closed" for dataset in own)
        found["`AIFSClassifier()`"] = f"the best without group labels on {best} of {len(own)} data sets below"
    baselines = [name for name in label_free(rows) if name not in OWN]
    asked = [d for d, name in mean if name == "xrm-gdro"]
    if asked:
        best = sum(best_of(rows, dataset, baselines) == "xrm-gdro" for dataset in asked)
        found["`xrm-gdro`"] = f"the best baseline without group labels on {best} of {len(asked)} data sets below"
        ranks = ranks_of(rows)
        first = next((name for name in ranks.methods if name in baselines), "xrm-gdro") if ranks else "xrm-gdro"
        if first != "xrm-gdro":
            found["`xrm-gdro`"] += f" (best average rank: `{first}`)"
    both = [d for d, name in mean if name == "reweight-oracle" and (d, "gdro-oracle") in mean]
    if both:
        gap = sum(mean[d, "reweight-oracle"] - mean[d, "gdro-oracle"] for d in both) / len(both)
        found["`reweight-oracle`"] = (
            f"its worst group minus that of `gdro-oracle`: {points(gap)} points on average below"
        )
    return found


def choices(frozen: Report) -> str:
    """The rows of the table of choices."""
    more = measured_reasons(frozen)
    return "\n".join(
        f"| {what} | {method} | {why}{'; ' + more[method] if method in more else ''} |" for what, method, why in CHOICES
    )


def not_compared(frozen: Report) -> str:
    """Methods that have no row in the tables of frozen encoders."""
    there = {entry.method for entry in frozen.experiment.methods}
    left = [f"`{name}`" for name in names() if name not in there and not name.startswith("doctest-")]
    return f"\nNot in these tables: {listed(left)}.\n" if left else ""


def cost_table() -> str:
    """Time and memory against plain training, where `method_cost.py` has been run."""
    file = RESULTS / "method_cost.json"
    if not file.is_file():
        return ""
    record = json.loads(file.read_text())
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


def results_page(frozen: Report, tuned: Report) -> str:
    """The whole tables of the benchmark, and costs."""
    first = [f"{NOTICE}# Results\n", FROZEN.format(left=not_compared(frozen))]
    parts = [*first, told_progress(frozen), tables_part(frozen), TUNED, told_progress(tuned), tables_part(tuned)]
    return "\n\n".join([*parts, cost_table()])


def in_the_benchmark(name: str, frozen: Report, tuned: Report) -> str:
    """A method's worst groups in the benchmark, a sentence; empty where it has none."""
    sentences = []
    for report, where in ((frozen, "frozen encoders"), (tuned, "encoders tuned by LoRA")):
        of = [row for row in report.rows if row.method == name and WORST in row.values]
        if of:
            shown = ", ".join(f"{r.dataset} {percent(r.values[WORST].mean, r.values[WORST].high)}" for r in of)
            sentences.append(f"{where}: {shown}")
    if not sentences:
        return ""
    return f"**In the benchmark**, worst group in percent; {'; '.join(sentences)} ([all numbers](results.md)).\n"


def readings(results: Path) -> str:
    """The published recipe beside plain training, and its readings beside what is printed."""
    frozen, recipe = read("frozen", results), read("ablate_recipe", results)
    lines = []
    pairs = [c for c in compare(values_of(frozen.found), "aifs-paper") if c.other == "erm"]
    if pairs:
        low, high = (pick(c.difference for c in pairs) for pick in (min, max))
        apart = [c.dataset for c in pairs if differs(c)]
        said = f"on {listed(apart)}" if apart else "on none of them"
        lines.append(
            f"- As printed, `aifs-paper` minus plain training `erm`, with one budget for both: {points(low)} to "
            f"{points(high)} points of worst group on {len(pairs)} data sets; there after Holm's correction {said}."
        )
    lines += [f"- Beside the recipe as printed: {text}" for text in ablation_sentences(recipe.comparisons)]
    where = [d.name for d in recipe.experiment.data if any(row.dataset == d.name for row in frozen.rows)]
    means = {(row.dataset, row.method): row.values[WORST] for row in frozen.rows if WORST in row.values}
    shown = [
        [f"`{name}`", *(percent(v.mean, v.high) if (v := means.get((d, name))) else "not run yet" for d in where)]
        for name in ("erm", "aifs-paper", "aifs", "reweight-oracle")
    ]
    told = "\n".join(lines)
    body = f"{told}\n\n{markdown_table(['worst group, %', *where], shown)}" if where else told
    return (body or "Not run yet.") + "\n"


def filled(text: str, results: Path = RESULTS) -> str:
    """The page on the published formulas with its block filled."""
    block = r"<!-- table:readings -->\n.*?<!-- /table:readings -->"
    new = f"<!-- table:readings -->\n{readings(results)}<!-- /table:readings -->"
    return re.sub(block, lambda _: new, text, flags=re.DOTALL)


def family_of(name: str) -> str:
    """The folder of a built-in method."""
    return get(name).__module__.split(".")[-2]


def section(name: str, frozen: Report, tuned: Report) -> str:
    """A method's text from its module, its options, and its numbers."""
    method = get(name)
    text = inspect.cleandoc(inspect.getmodule(method).__doc__ or "")
    paragraphs = [re.sub(rf"^({'|'.join(LABELS)})\b", r"**\1**", part) for part in text.split("\n\n")]
    lines = [f"\n## `{name}`\n", "\n\n".join(paragraphs), ""]
    options = [(f.name, f.default) for f in fields(method.Options)]
    if options:
        lines += ["**Options**: " + ", ".join(f"`{n}` = {_shown(value)}" for n, value in options) + ".", ""]
    lines += [text for text in [in_the_benchmark(name, frozen, tuned)] if text]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is MISSING:
        return "its own defaults"
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{value!r}`"


def render(results: Path = RESULTS) -> dict[str, str]:
    """Every page by its path below `docs/`."""
    rows = [row for row in table() if not row["name"].startswith("doctest-")]
    frozen, tuned = read("frozen", results), read("lora", results)
    linked = markdown(rows)
    for row in rows:
        target = f"methods/{family_of(row['name'])}.md#{row['name']}"
        linked = linked.replace(f"| `{row['name']}` |", f"| [`{row['name']}`]({target}) |")
    pages = {"methods.md": NOTICE + PAGE.replace("{choices}", choices(frozen)) + TABLE + linked + "\n" + COMPARISON}
    compared = overview_table(frozen.experiment, frozen.rows) if frozen.rows else "Not run yet."
    pages["methods.md"] += "\n\n".join(text for text in (told_progress(frozen), compared) if text) + "\n"
    for family, title in FAMILIES.items():
        intro = (importlib.import_module(f"aifs_peft.methods.{family}").__doc__ or "").strip()
        mine = [section(row["name"], frozen, tuned) for row in rows if family_of(row["name"]) == family]
        pages[f"methods/{family}.md"] = f"{NOTICE}# {title}\n\n{intro}\n" + "".join(mine)
    pages["paper.md"] = filled((DOCS / "paper.md").read_text(), results)
    pages["methods/results.md"] = results_page(frozen, tuned)
    return {name: re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n" for name, text in pages.items()}


def main() -> int:
    """Write the pages, or with `--check` only say which are not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    check, stale = given.check, 0
    for name, text in render(given.results).items():
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
