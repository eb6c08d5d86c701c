"""Fill the tables of discovery.md, unlabelled.md and research_log.md; draw their pictures.

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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aifs_peft.discovery.config import DEFAULT_CONFIG

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = tuple(ROOT / "docs" / name for name in ("discovery.md", "unlabelled.md", "research_log.md"))


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


MANY_NAMES = {
    "colored_mnist": "Colored MNIST",
    "unequal_mnist": "Colored MNIST, unequal classes",
    "framed": "framed pictures",
    "marked": "marked",
    "scenes": "faint digits before scenes",
    "bold": "bold digits before scenes",
    "paired": "faint digits beside others",
    "planted": "planted",
}


def many_classes() -> str:
    """Three to twenty classes."""
    rows = []
    for case, e in sorted(result("many_classes")["summary"].items()):
        name, classes, n, share = re.fullmatch(r"(\w+)_(\d+), n=(\d+)/(.+)", case).groups()  # type: ignore[union-attr]
        rows.append(
            [f"{MANY_NAMES[name]}, {classes} classes, n = {int(n):,}, {share}",
             f"{round(e['found'] * e['seeds'])} of {e['seeds']}",
             *[f"{e[name]:.3f}" for name in ("erm", "xrm", "oracle", "oracle_chosen")], f"**{e['aifs']:.3f}**",
             *[f"{e[name]:.3f}" for name in ("oracle_balanced", "oracle_chosen_balanced", "aifs_balanced")],
             f"{e['precision_any']:.2f} / {e['recall_any']:.2f}"]
        )  # fmt: skip
    head = ["", "found", "worst: ERM", "XRM + group DRO", "oracle, hindsight", "oracle, chosen", "AIFS"]
    head += ["balanced: oracle, hindsight", "oracle, chosen", "AIFS"]
    return table([*head, "conflicts, precision / recall"], rows)


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


BLOCKS: dict[str, Callable[[], str]] = {
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


def fill(page: str, blocks: Mapping[str, Callable[[], str]] = BLOCKS, *, shared: bool = False) -> str:
    """The page with each `<!-- NAME -->` block filled; an unknown name is an error, unless scripts share the page."""

    def block(match: re.Match[str]) -> str:
        if match[1] in blocks:
            return f"<!-- {match[1]} -->\n{blocks[match[1]]()}\n<!-- /{match[1]} -->"
        if not shared:
            raise ValueError(f"nothing renders the block {match[1]!r}; known are {sorted(blocks)}")
        return match[0]

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", block, page, flags=re.DOTALL)


def write(path: Path, after: str, *, check: bool, script: str) -> None:
    """Write a filled page, or only end with an error where it differs from what is there."""
    if check and after != path.read_text(encoding="utf-8"):
        sys.exit(f"{path.name} is out of date: run benchmarks/{script}")
    path.write_text(after, encoding="utf-8")


def main() -> None:
    """Render, check or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--dominoes", action="store_true")
    options = parser.parse_args()
    for path in PAGES:
        write(path, fill(path.read_text(encoding="utf-8")), check=options.check, script="render_discovery_docs.py")
    if options.pictures:
        import discovery_pictures

        discovery_pictures.draw(ROOT / "docs" / "img", dominoes=options.dominoes)


if __name__ == "__main__":
    main()
