"""Fill the tables of discovery.md, unlabelled.md, performance.md and research_log.md; draw their pictures.

python benchmarks/render_discovery_docs.py             # tables
python benchmarks/render_discovery_docs.py --check     # only say whether they are up to date
python benchmarks/render_discovery_docs.py --pictures  # tables, and pictures of the embedded data
AIFS_SHARED=DIR python benchmarks/render_discovery_docs.py --pictures --dominoes  # also the log's picture
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aifs_peft.discovery.config import DEFAULT_CONFIG

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = tuple(ROOT / "docs" / name for name in ("discovery.md", "unlabelled.md", "performance.md", "research_log.md"))


def result(name: str) -> dict[str, Any]:
    """A committed result file."""
    loaded: dict[str, Any] = json.loads((RESULTS / f"discovery_{name}.json").read_text())
    return loaded


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pm(entry: dict[str, Any], name: str) -> str:
    """Mean and standard error."""
    error = entry.get(f"{name}_se")
    return f"{entry[name]:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def gate() -> str:
    """The gate of two classes, from the thresholds that the code uses."""
    g, n = DEFAULT_CONFIG.gate, DEFAULT_CONFIG.noisy_labels
    rows = [
        ["conflicting examples", f">= {g.min_conflicts}", "single oddities"],
        [
            "cosine of class and attribute displacement",
            f"> {g.cosine}",
            "hard examples, moved along the class difference",
        ],
        ["attribute contrast", f">= {g.refined_strength} standard deviations", "a cloud cut in two"],
        [
            "association of attribute and label",
            f">= {g.association} and >= {g.association_errors} standard errors",
            "attributes that do not go with the label",
        ],
        [
            "class contrast beside the attribute, chance taken out",
            f">= {g.class_strength} and >= {g.class_errors:g} standard errors; below, where the attribute's values lie "
            f">= {n.strength:g} apart: ROC-AUC of the class among held-out examples of one value >= {n.area} by "
            f"{n.errors:g} standard errors",
            "**mislabelled** examples: beside the true class nothing is left of the label; what holds them, too",
        ],
        [
            "**relative strength**: attribute contrast over class contrast, chance taken out of both",
            f">= {g.relative}",
            "natural styles within the classes: a shortcut is the easier of the two",
        ],
    ]
    return table(["test", "threshold", "what it turns away"], rows)


def dominoes(shares: tuple[str, ...] = ()) -> str:
    """Worst group at each aligned share, and how well the minority was found."""
    rows = []
    for name, entry in sorted(result("dominoes")["summary"].items()):
        share = name.removeprefix("dominoes/")
        if not shares or share in shares:
            balanced = f"{entry['oracle_balanced']:.3f} / {entry['aifs_balanced']:.3f}"
            found = f"{entry['precision']:.2f} / {entry['recall']:.2f}"
            rows.append([share, pm(entry, "erm"), pm(entry, "oracle"), f"**{pm(entry, 'aifs')}**", balanced, found])
    means = "mean over groups: oracle / AIFS"
    return table(["aligned share", "plain training", "tuned oracle", "**AIFS**", means, "precision / recall"], rows)


def dominoes_short() -> str:
    """Some shares, for the guide."""
    return dominoes(("0.5", "0.8", "0.95", "0.99", "0.995"))


def alarms() -> str:
    """False alarms, in a sentence."""
    null = result("null")
    draws, false = null["total"]["draws"], null["total"]["alarms"]
    costs = ", ".join(f"{100 * cost:.1f}" for cost in null["worst_class_cost_of_alarms"])
    return (
        f"**False alarms.** {draws} draws without a shortcut raised {false} alarms ({false / draws:.1%}); they cost "
        f"{costs} points of the worst class."
    )


def hints() -> str:
    """Ten known values per cell."""
    rows = [
        [name, pm(e, "erm"), f"**{pm(e, 'hint')}**", pm(e, "all_known") if "all_known" in e else "-", pm(e, "oracle"),
         f"{e['recovered']:.2f} ± {e['recovered_se']:.2f}"]
        for name, e in result("hints")["summary"].items()
        if "recovered" in e
    ]  # fmt: skip
    head = [
        "attribute",
        "ERM",
        "**ten known per cell**",
        "every value known",
        "tuned oracle",
        "share of the gap recovered",
    ]
    return table(head, rows)


def _cases(rows: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {}
    for key, row in rows.items():
        out.setdefault(key.rsplit("/", 1)[0], []).append(row)
    return out


def _over_draws(rows: list[dict[str, Any]], name: str) -> str:
    values = np.array([row[name] for row in rows])
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def two_attributes() -> str:
    """Two shortcuts at once."""
    lines = []
    for case, rows in _cases(result("two_attributes")["rows"]).items():
        means = " / ".join(
            f"{np.mean([row[f'{name} balanced'] for row in rows]):.3f}" for name in ("erm", "aifs", "oracle")
        )
        wanted = 1 if case.endswith(" and 0.5") else 2
        found = f"{sum(row['recovered'] for row in rows)} of {wanted * len(rows)}"
        worst = [_over_draws(rows, name) for name in ("erm", "one attribute", "aifs", "trained", "oracle")]
        worst[2] = f"**{worst[2]}**"
        lines.append([case if wanted == 2 else f"{case} (one shortcut)", *worst, means, found])
    head = ["", "ERM", "AIFS, one attribute", "**AIFS**", "trained `aifs`", "tuned oracle, 8 true cells",
            "mean over cells: ERM / AIFS / oracle", "shortcuts recovered"]  # fmt: skip
    return table(head, lines)


def hinted_two() -> str:
    """Two attributes, one or both hinted."""
    names = ("erm", "aifs", "one hint", "both hints", "oracle")
    lines = []
    for case, rows in _cases(result("two_attributes")["hinted"]).items():
        cells = [_over_draws(rows, name) for name in names]
        cells[3] = f"**{cells[3]}**"
        lines.append([case.removeprefix("planted "), *cells])
    return table(
        ["contrasts", "ERM", "AIFS alone", "hint of the second", "hints of both", "tuned oracle, 8 true cells"], lines
    )


MANY_NAMES = {"colored_mnist": "Colored MNIST", "framed": "framed pictures", "marked": "marked", "planted": "planted"}


def many_classes() -> str:
    """Three to twenty classes."""
    rows = []
    for case, e in sorted(result("many_classes")["summary"].items()):
        name, classes, n, share = re.fullmatch(r"(\w+)_(\d+), n=(\d+)/(.+)", case).groups()  # type: ignore[union-attr]
        rows.append(
            [f"{MANY_NAMES[name]}, {classes} classes, n = {int(n):,}, {share}",
             f"{round(e['found'] * e['seeds'])} of {e['seeds']}",
             *[f"{e[name]:.3f}" for name in ("erm", "xrm", "oracle")], f"**{e['aifs']:.3f}**",
             f"{e['oracle_balanced']:.3f} / {e['aifs_balanced']:.3f}",
             f"{e['precision_any']:.2f} / {e['recall_any']:.2f}"]
        )  # fmt: skip
    head = ["", "found", "worst: ERM", "XRM + group DRO", "tuned oracle", "AIFS"]
    return table([*head, "balanced: oracle / AIFS", "conflicts, precision / recall"], rows)


def many_alarms() -> str:
    """False alarms with more than two classes."""
    e = result("many_nulls")
    share = e["alarms"] / e["n"]
    return f"{e['n']} draws with three to ten classes and no shortcut raised {e['alarms']} alarms ({share:.1%})."


def _unlabelled_rows(only: tuple[str, str] | None = None) -> list[list[str]]:
    """Rows of all cases, or of those with this share in training and this size of the pool."""
    rows = []
    for case, e in result("unlabelled")["summary"].items():
        if case.count(";") != 3:
            continue
        name, share, pool_share, size = case.split("; ")
        if only is None or only == (share, size):
            rows.append(
                [name, share, pool_share, size, pm(e, "erm"), f"**{pm(e, 'pool')}**", pm(e, "oracle"),
                 f"{e['recovered']:.2f}", f"{e['used']} of {e['n']}"]
            )  # fmt: skip
    return rows


UNLABELLED_HEAD = ["attribute", "aligned in training", "in the pool", "pool", "plain training", "**with the pool**",
                   "tuned oracle", "share of the gap recovered", "used"]  # fmt: skip


def unlabelled() -> str:
    """A pool of unlabelled examples, all cases."""
    return table(UNLABELLED_HEAD, _unlabelled_rows())


def unlabelled_short() -> str:
    """The same, at 0.95 with 400 examples."""
    return table(UNLABELLED_HEAD, _unlabelled_rows(("0.95", "400")))


def unlabelled_nulls() -> str:
    """Pools that show nothing."""
    e = result("unlabelled")["summary"]["nulls"]
    return (
        f"Of {e['n']} draws without a shortcut {e['alarms']} used the pool ({e['rate']:.1%}); in {e['equal']} the head "
        f"is that without it, to the bit. Mean cost in the worst class {100 * e['cost']:.2f} points, largest "
        f"{100 * e['largest_cost']:.1f}."
    )


def unlabelled_many() -> str:
    """Three and four classes."""
    rows = [
        [
            case,
            pm(e, "erm"),
            f"**{pm(e, 'pool')}**",
            pm(e, "oracle"),
            f"{e['recovered']:.2f}",
            f"{e['used']} of {e['n']}",
        ]
        for case, e in result("unlabelled")["summary"].items()
        if "classes" in case
    ]
    return table(
        ["", "plain training", "**with the pool**", "tuned oracle", "share of the gap recovered", "used"], rows
    )


TUNED_NAMES = {"dominoes": "dominoes", "marked": "weak mark", "tweets": "tweets"}


def tuned() -> str:
    """Real encoders with LoRA."""
    file = RESULTS / "tuned_encoders.json"
    cells = json.loads(file.read_text())["summary"] if file.is_file() else {}
    rows = []
    for key, cell in sorted(cells.items(), key=lambda item: (item[0].split("/")[0], -item[1]["worst"][0])):
        data, method = key.split("/")
        shown = []
        for name in ("worst", "balanced", "average"):
            mean, low, high = cell[name]
            interval = "" if low is None else f" ({max(low, 0.0):.3f} to {min(high, 1.0):.3f})"
            shown.append(f"{mean:.3f}{interval}")
        rows.append([f"{TUNED_NAMES[data]}, `{method}`", str(cell["seeds"]), *shown, f"{cell['seconds']:.0f}"])
    return table(["", "seeds", "worst group", "mean over groups", "average", "seconds"], rows)


def performance(name: str) -> dict[str, Any]:
    """A committed result file of the folder `performance`."""
    loaded: dict[str, Any] = json.loads((RESULTS / "performance" / f"{name}.json").read_text())
    return loaded


def cost(row: dict[str, Any]) -> list[str]:
    """Seconds and memory of a row."""
    return [f"{row['seconds']:.2f}", f"{row['wall_seconds']:.2f}", f"{row['peak_memory_bytes'] / 2**20:,.0f} MB"]


def scaling() -> str:
    """A fit against examples, classes, share and width."""
    rows = []
    for row in performance("discovery_scaling")["rows"]:
        if row["method"] != "aifs":
            continue
        share = f"{row['share']:.2f}" + ("" if row["share"] > 1.0 / row["K"] else " (no shortcut)")
        found = "yes" if row["found"] else "no"
        rows.append([f"{row['n']:,}", str(row["d"]), str(row["K"]), share, found, *cost(row)])
    return table(["n", "d", "K", "aligned share", "found", "processor", "clock", "beside the input"], rows)


def steps() -> str:
    """A training step beside one of plain training by the same trainer."""
    rows = []
    for row in performance_rows("step_overhead"):
        name = "plain `Trainer`" if row["method"] == "trainer" else f"`{row['method']}`"
        rows.append([row["encoder"], {"lora": "LoRA, head", "frozen": "head"}[row["regime"]], name,
                     f"{row['ratio_median']:.3f}", f"{row['ratio_min']:.3f} to {row['ratio_max']:.3f}",
                     f"{row['seconds_per_step']:.2f}"])  # fmt: skip
    return table(["encoder", "trained", "", "step / step of `erm`", "rounds, lowest to highest", "seconds"], rows)


def step_parts() -> str:
    """Where the time of a step goes."""
    measured = performance_rows("step_parts")
    rows = [[part, *(f"{row['seconds'][part] * 1000:,.1f}" for row in measured)] for part in measured[0]["seconds"]]
    return table(["milliseconds", *(row["encoder"] for row in measured)], rows)


def performance_rows(name: str) -> list[dict[str, Any]]:
    """A committed result file of the folder `performance` that is a list of rows."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / "performance" / f"{name}.json").read_text())
    return rows


def attribution() -> str:
    """Attribution of a linear head."""
    rows = [
        [f"{row['n']:,}", str(row["d"]), str(row["K"]), *cost(row)]
        for row in performance("discovery_scaling")["rows"]
        if row["method"] == "attribution"
    ]
    return table(["n", "d", "K", "processor", "clock", "beside the input, scores and all"], rows)


def peers() -> str:
    """Other fits of the same latents."""
    names = {
        "aifs": "`AIFSClassifier()`",
        "logistic-regression": "`LogisticRegression()`",
        "xrm-gdro": "XRM + group DRO",
    }
    rows = [[names[row["method"]], f"{row['n']:,}", *cost(row)] for row in performance("peers")["rows"]]
    return table(["", "n", "processor", "clock", "beside the input"], rows)


def first_fit() -> str:
    """From nothing to a fitted classifier."""
    seconds = performance("discovery_scaling")["first_fit"]
    rows = [
        ["seconds of processor", f"{seconds['processor_seconds']:.1f}"],
        ["on the clock", f"{seconds['warm_seconds']:.1f}"],
        ["on the clock, its files dropped from memory before", f"{seconds['cold_seconds']:.1f}"],
    ]
    return table([f"median of {seconds['rounds']}", "seconds"], rows)


def head_rows() -> str:
    """What a sample of rows costs a head."""
    measured = performance("head_rows")
    sizes = measured["rows_of"]
    rows = []
    for family, lost in measured["lost"].items():
        told = [f"{100 * lost[size]['mean']:+.2f} ({100 * lost[size]['largest']:+.2f})" for size in ("sample", "small")]
        rows.append([f"`{family}`", *told])
    draws = measured["arguments"]["draws"]
    heads = [f"{sizes[size]:,} of {sizes['all']:,} rows" for size in ("sample", "small")]
    return table([f"lost, mean of {draws} draws (largest)", *heads], rows)


def whole_training() -> str:
    """The parts of a whole training of `aifs` beside one of `erm`: medians over rounds."""
    measured = performance("whole_training")
    parts: dict[str, Callable[[dict[str, float]], float]] = {
        "first pass of the encoder": lambda run: run.get("encoding_before", 0.0),
        "search, before the first step": lambda run: run["before"] - run.get("encoding_before", 0.0),
        "steps": lambda run: run["seconds"] - run["before"] - run["epochs_ends"] - run["after"],
        "epochs' ends": lambda run: run["epochs_ends"],
        "last pass of the encoder": lambda run: run.get("encoding_after", 0.0),
        "new last layer": lambda run: run["after"] - run.get("encoding_after", 0.0),
        "all": lambda run: run["seconds"],
    }
    rows = []
    for name, part in parts.items():
        rows.append([name, *(f"{np.median([part(run) for run in measured['runs'][m]]):.2f}" for m in ("erm", "aifs"))])
    aifs = measured["methods"]["aifs"]
    rows.append(["all, as a ratio", "1", f"{aifs['time_ratio']:.2f}"])
    rows.append(["without the first pass", "1", f"{aifs['after_first_pass']:.2f}"])
    heads = [
        f"seconds of the processor, {measured['epochs']:.0f} epochs, rounds: {measured['rounds']}",
        "`erm`",
        "`aifs`",
    ]
    return table(heads, rows)


def step_modes() -> str:
    """Steps in bf16, with gradient checkpointing and compiled, beside plain ones."""
    measured = performance("step_modes")
    rows = []
    for row in measured["rows"]:
        between = f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}"
        rows.append([row["mode"], f"{row['seconds']:.2f}", f"{row['ratio_median']:.2f} ({between})",
                     f"{row['megabytes']:,} MB", f"{row['first_step_clock']:.0f}"])  # fmt: skip
    shape = measured["shape"]
    head = f"{shape['layers']} layers, batches of {shape['batch_size']}"
    return table([head, "seconds", "step / plain step", "memory", "first step, clock"], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "whole_training": whole_training,
    "step_modes": step_modes,
    "steps": steps,
    "step_parts": step_parts,
    "scaling": scaling,
    "attribution": attribution,
    "peers": peers,
    "first_fit": first_fit,
    "head_rows": head_rows,
    "tuned": tuned,
    "gate": gate,
    "dominoes": dominoes,
    "dominoes_short": dominoes_short,
    "alarms": alarms,
    "hints": hints,
    "hinted_two": hinted_two,
    "two_attributes": two_attributes,
    "many_classes": many_classes,
    "many_alarms": many_alarms,
    "unlabelled": unlabelled,
    "unlabelled_short": unlabelled_short,
    "unlabelled_nulls": unlabelled_nulls,
    "unlabelled_many": unlabelled_many,
}


def fill(page: str, *, shared: bool = False) -> str:
    """The page with each `<!-- NAME -->` block filled; an unknown name is an error, unless scripts share the page."""

    def block(match: re.Match[str]) -> str:
        if shared and match[1] not in BLOCKS:
            return match[0]
        if match[1] not in BLOCKS:
            raise ValueError(f"nothing renders the block {match[1]!r}; known are {sorted(BLOCKS)}")
        return f"<!-- {match[1]} -->\n{BLOCKS[match[1]]()}\n<!-- /{match[1]} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", block, page, flags=re.DOTALL)


def main() -> None:
    """Render, check or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--dominoes", action="store_true")
    options = parser.parse_args()
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = fill(before, shared=path.name == "performance.md")
        if options.check and after != before:
            sys.exit(f"{path.name} is out of date: run benchmarks/render_discovery_docs.py")
        path.write_text(after, encoding="utf-8")
    if options.pictures:
        import discovery_pictures

        discovery_pictures.draw(ROOT / "docs" / "img", dominoes=options.dominoes)


if __name__ == "__main__":
    main()
