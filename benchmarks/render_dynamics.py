"""Fill docs/dynamics.md and section 4 of docs/theory.md from results, and draw their pictures.

python benchmarks/render_dynamics.py          # text and pictures
python benchmarks/render_dynamics.py --check  # only say whether the text is up to date
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.metrics.intervals import mean_interval

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "img"
PAGES = (ROOT / "docs" / "dynamics.md", ROOT / "docs" / "theory.md")
LEVEL = 0.05
# `aifs-paper` is drawn thin on top of `erm`, which it hardly differs from.
STYLES = {"erm": ("#94a3b8", 4.0), "aifs": ("#0f766e", 1.6), "aifs-paper": ("#b45309", 1.0)}


def result(name: str) -> dict[str, Any]:
    """A committed result file."""
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return loaded


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def series(case: str, method: str, name: str) -> NDArray[np.float64]:
    """A number of every seed and epoch, `(seeds, epochs + 1)`; NaN where there is none yet."""
    runs = result("training_dynamics")["runs"][case][method]
    return np.asarray([run[name] for run in runs.values()], dtype=np.float64)


def interval(values: NDArray[np.float64], digits: int = 2) -> str:
    """Mean and half of the 95 % interval over seeds."""
    found = mean_interval(values)
    return f"{found.mean:.{digits}f} ± {found.high - found.mean:.{digits}f}"


def cases() -> list[str]:
    """Those that are complete, in the order of the file."""
    return list(dict.fromkeys(test["case"] for test in result("training_dynamics")["tests"]))


def test_of(case: str, question: str) -> dict[str, Any]:
    """One test of the file."""
    (found,) = [t for t in result("training_dynamics")["tests"] if (t["case"], t["question"]) == (case, question)]
    return dict(found)


def p_value(p: float) -> str:
    """A corrected p-value in words of the table."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def answer(question: str, more: str, less: str) -> str:
    """In which cases a difference is above or below 0 beyond chance, in words."""
    tests = [test_of(case, question) for case in cases()]
    above = [t["case"] for t in tests if t["corrected"] < LEVEL and t["difference"] > 0]
    below = [t["case"] for t in tests if t["corrected"] < LEVEL and t["difference"] < 0]
    rest = [t["case"] for t in tests if t["corrected"] >= LEVEL]
    parts = [f"{words} on {_listed(names)}" for words, names in ((more, above), (less, below)) if names]
    if rest:
        parts.append(f"no difference beyond chance on {_listed(rest)}")
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    if len(names) > 1 and set(names) == set(cases()):
        return "all of them"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def answers() -> str:
    """A sentence for each question."""
    return "\n".join(f"- **{question}** {told()}" for question, told in QUESTIONS.items())


def _learned() -> str:
    moved, right = (answer(f"core {what} later", "later", "earlier") for what in ("learned", "accuracy"))
    return f"By how far it moves the decision: {moved}. By the accuracy that it alone gives: {right}."


def _kept() -> str:
    core, spurious = (answer(f"{name} share at the end", "larger", "smaller") for name in ("core", "spurious"))
    kept = answer("core share kept", "more", "less")
    right = answer("core accuracy at the end", "higher", "lower")
    return (
        f"At the end, beside `erm`: the core feature's share of the decisions: {core}. The spurious one's: "
        f"{spurious}. What is left of the largest share that the core feature had on the way: {kept}. The accuracy "
        f"that the core feature alone gives: {right}."
    )


def _mask() -> str:
    record = result("training_dynamics")
    epochs = [epoch for case in cases() for epoch in record["masks"][f"{case}/aifs-paper"]]
    settled = [epoch for epoch in epochs if epoch is not None]
    moved = max(float(np.nanmax(series(case, "aifs", "mask_change"))) for case in cases())
    kept = "stay as they are" if moved == 0 else f"move by {moved:.2g} at most"
    when = f"from epoch {min(settled)} to {max(settled)} on" if settled else "never"
    return (
        f"That of `aifs-paper` moves by less than {record['settings']['still']:.0%} per update {when}, in "
        f"{len(settled)} of {len(epochs)} trainings; in the end the learning rate is 0, and with it the head stands "
        f"still. The directions of `aifs` are found before the first step and, the encoder being frozen, {kept}."
    )


def _sharpness() -> str:
    along, top = "log curvature, spurious over core, erm", "log top curvature, aifs over erm"
    ratios, tops = ([math.exp(test_of(case, name)["difference"]) for case in cases()] for name in (along, top))
    return (
        f"Beside the core direction: {answer(along, 'sharper', 'flatter')}, with {_range(ratios)} times the "
        "curvature. The largest curvature at the end of `aifs`, beside that of `erm`: "
        f"{answer(top, 'larger', 'smaller')} ({_range(tops)} times)."
    )


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


QUESTIONS: dict[str, Callable[[], str]] = {
    "Are core features learned later than spurious ones, under `erm`?": _learned,
    "Are they kept, and kept more, under `aifs`?": _kept,
    "Does the mask converge?": _mask,
    "Is the loss flatter or sharper along the spurious direction, under `erm`?": _sharpness,
}


NAMES = {
    "core learned later": "epochs to half of the effect on the decision, `erm`: core, spurious",
    "core accuracy later": "epochs to 90 % of the accuracy above chance, `erm`: core alone, spurious alone",
    "core share at the end": "core share at the end: `aifs`, `erm`",
    "spurious share at the end": "spurious share at the end: `aifs`, `erm`",
    "core share kept": "core share at the end over its largest: `aifs`, `erm`",
    "core accuracy at the end": "accuracy of the core feature alone at the end: `aifs`, `erm`",
    "log curvature, spurious over core, erm": "curvature, `erm`: spurious, core",
    "log curvature, spurious over core, aifs": "curvature, `aifs`: spurious, core",
    "log sharpness, spurious over core, erm": "sharpness, `erm`: spurious, core",
    "log top curvature, aifs over erm": "largest curvature: `aifs`, `erm`",
}


def tests() -> str:
    """The pairs behind the answers."""
    rows = []
    for name, words in NAMES.items():
        for case in cases():
            t = test_of(case, name)
            values = [t[key] for key in ("first", "second", "difference", "low", "high")]
            sign = "+"
            if name.startswith("log"):
                values, sign = [math.exp(v) for v in values], ""
            first, second, difference, low, high = values
            told = f"{difference:{sign}.2f} ({low:.2f} to {high:.2f})" + " times" * name.startswith("log")
            rows.append([words, case, f"{first:.2f}, {second:.2f}", told, p_value(t["corrected"])])
    return table(["", "data", "means", "difference, or ratio (95 %)", "p"], rows)


def ends() -> str:
    """The last epoch of each method."""
    rows = []
    names = ("core_share", "spurious_share", "core_alone", "aligned", "conflicting", "curvature_top")
    for case in cases():
        for method in result("training_dynamics")["runs"][case]:
            last = [interval(series(case, method, name)[:, -1]) for name in names]
            rows.append([f"{case}, `{method.split(',')[0]}`{''.join(method.partition(',')[1:])}", *last])
    head = ["", "core share", "spurious share", "core alone", "aligned cells", "conflicting cells", "largest curvature"]
    return table(head, rows)


def setting() -> str:
    """How it was trained."""
    s, runs = result("training_dynamics")["settings"], result("training_dynamics")["runs"]
    seeds = ", ".join(
        f"{len(next(iter(methods.values())))} on {case}" for case, methods in runs.items() if case in cases()
    )
    return (
        f"AdamW with cosine decay from {s['learning_rate']:g}, weight decay {s['weight_decay']:g}, {s['epochs']} "
        f"epochs in batches of {s['batch_size']}, {s['train']:,} examples; seeds: {seeds}; nothing is tuned. "
        f"*Planted*: {s['width']} Gaussian dimensions, class and attribute {s['core']:g} and {s['spurious']:g} "
        "standard deviations apart along two axes, and the aligned share."
    )


def _size(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def sizes() -> str:
    """Conflicting examples per class from which the minority is found."""
    measured = result("sample_sizes")
    smallest = min(row["minority"] for row in measured["rows"])
    rows = []
    for key, entry in measured["thresholds"].items():
        contrast, k = key.split("/")
        cells = [_size(entry[name]) for name in ("told", "moments")]
        cells += [f"<= {smallest}" if entry[n] == smallest else _size(entry[n]) for n in ("search", "found")]
        rows.append([contrast, k, *cells])
    return table(["contrast D", "k", "told which", "second moments", "the search, gate open", "discovery"], rows)


def sizes_said() -> str:
    """Where theory and measurement part."""
    measured = result("sample_sizes")
    rules = measured["thresholds"].values()
    to_told = [e["search"] / e["told"] for e in rules if e["search"] is not None]
    to_moments = [e["moments"] / e["search"] for e in rules if e["search"] is not None]
    refused = {key: e for key, e in measured["thresholds"].items() if e["found"] is None}
    names = sorted({f"{float(key.split('/')[0]):g}" for key in refused})
    last = max(row["minority"] for row in measured["rows"])
    gate = [e["found"] / e["search"] for e in rules if e["found"] is not None]
    return (
        f"The search follows the first rule, not the second: it needs {_range(to_told)} times as many conflicting "
        f"examples as somebody who is told which they are, and {_range(to_moments)} times fewer than second moments "
        f"want. Discovery needs {_range(gate)} times as many as the search at the contrasts that its gate lets "
        f"through. At contrasts of {_listed(names)} more examples do not help: with {last} conflicting per class at "
        f"most {max(e['found_at_last'] for e in refused.values()):.0%} of the draws are found, where the search has "
        f"{min(e['search_at_last'] for e in refused.values()):.0%} and more. In between, chance makes a contrast "
        f"look larger than it is, so that up to {max(e['found_at_best'] for e in refused.values()):.0%} pass."
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "setting": setting,
    "answers": answers,
    "tests": tests,
    "ends": ends,
    "sizes": sizes,
    "sizes_said": sizes_said,
}


def fill(page: str) -> str:
    """The page with each `<!-- NAME -->` block filled; an unknown name is an error."""

    def block(match: re.Match[str]) -> str:
        if match[1] not in BLOCKS:
            raise ValueError(f"nothing renders the block {match[1]!r}; known are {sorted(BLOCKS)}")
        return f"<!-- {match[1]} -->\n{BLOCKS[match[1]]()}\n<!-- /{match[1]} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", block, page, flags=re.DOTALL)


def _legend(figure: Any, panel: Any, columns: int) -> None:
    handles = panel.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def draw_dynamics(path: Path) -> None:
    """Three panels: shares of the decisions, accuracies, and curvatures, of one case."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    case = "dominoes 0.95"
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    shown = (
        ("share of the decisions", ("core_share", "spurious_share")),
        ("accuracy where it alone tells", ("core_alone", "spurious_alone")),
        ("curvature along the direction", ("curvature_core", "curvature_spurious")),
    )
    for panel, (title, names) in zip(panels, shown, strict=True):
        for method, (colour, width) in STYLES.items():
            for name, style in zip(names, ("-", "--"), strict=True):
                values = series(case, method, name)
                mean, epochs = values.mean(0), np.arange(values.shape[1])
                found = [mean_interval(column) for column in values.T]
                label = f"{method}, {'core' if style == '-' else 'spurious'}"
                panel.plot(epochs, mean, style, color=colour, linewidth=width, label=label)
                panel.fill_between(epochs, [f.low for f in found], [f.high for f in found], color=colour, alpha=0.15)
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_xlabel("epoch", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False
    )
    figure.savefig(path, dpi=110)


def draw_sizes(path: Path) -> None:
    """One panel per number of components: share of draws found against conflicting examples."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = result("sample_sizes")
    rows, wanted = measured["rows"], measured["settings"]["wanted"]
    contrasts, widths = sorted({r["contrast"] for r in rows}), sorted({r["k"] for r in rows})
    colours = dict(zip(contrasts, ("#94a3b8", "#b45309", "#0f766e", "#1d4ed8"), strict=True))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(widths), sharey=True)
    for panel, k in zip(panels, widths, strict=True):
        for contrast, colour in colours.items():
            own = sorted((r for r in rows if (r["contrast"], r["k"]) == (contrast, k)), key=lambda r: r["minority"])
            x = [r["minority"] for r in own]
            for kind, style in (("search", "-"), ("found", ":")):
                shares = [float(np.mean(np.asarray(r[kind]) >= wanted)) for r in own]
                panel.plot(x, shares, style, marker=".", color=colour, label=f"D = {contrast:g}, {kind}")
            rule = measured["thresholds"][f"{contrast:g}/{k}"]
            panel.plot([rule["told"]], [1.06], marker="v", color=colour, clip_on=False)
            panel.plot([rule["moments"]], [1.06], marker="s", color=colour, clip_on=False)
        panel.set_xscale("log", base=2)
        panel.set(ylim=(-0.03, 1.1))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_title(f"k = {k}; above: theory, told (triangle), second moments (square)", loc="left", fontsize=9)
        panel.set_xlabel("conflicting examples per class", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of draws found", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    """Render or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = fill(before)
        if options.check and after != before:
            sys.exit(f"{path.name} is out of date: run benchmarks/render_dynamics.py")
        path.write_text(after, encoding="utf-8")
    if not options.check:
        draw_dynamics(IMAGES / "training_dynamics.png")
        draw_sizes(IMAGES / "sample_sizes.png")


if __name__ == "__main__":
    main()
