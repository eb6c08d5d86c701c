"""Fill the tables of performance.md, but for those that the script which measures them fills itself.

python benchmarks/render_performance_docs.py          # tables
python benchmarks/render_performance_docs.py --check  # only say whether they are up to date
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from render_discovery_docs import fill, table, write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "performance"
PAGE = ROOT / "docs" / "performance.md"


def result(name: str) -> dict[str, Any]:
    """A committed result file of the folder `performance`."""
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return loaded


def rows_of(name: str) -> list[dict[str, Any]]:
    """A committed result file of the folder `performance` that is a list of rows."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())
    return rows


def cost(row: dict[str, Any]) -> list[str]:
    """Seconds and memory of a row."""
    return [f"{row['seconds']:.2f}", f"{row['wall_seconds']:.2f}", f"{row['peak_memory_bytes'] / 2**20:,.0f} MB"]


def scaling() -> str:
    """A fit against examples, classes, share and width."""
    rows = []
    for row in result("discovery_scaling")["rows"]:
        if row["method"] != "aifs":
            continue
        share = f"{row['share']:.2f}" + ("" if row["share"] > 1.0 / row["K"] else " (no shortcut)")
        found = "yes" if row["found"] else "no"
        rows.append([f"{row['n']:,}", str(row["d"]), str(row["K"]), share, found, *cost(row)])
    return table(["n", "d", "K", "aligned share", "found", "processor", "clock", "beside the input"], rows)


def steps() -> str:
    """A training step beside one of plain training by the same trainer."""
    rows = []
    for row in rows_of("step_overhead"):
        name = "plain `Trainer`" if row["method"] == "trainer" else f"`{row['method']}`"
        rows.append([row["encoder"], {"lora": "LoRA, head", "frozen": "head"}[row["regime"]], name,
                     f"{row['ratio_median']:.3f}", f"{row['ratio_min']:.3f} to {row['ratio_max']:.3f}",
                     f"{row['seconds_per_step']:.2f}"])  # fmt: skip
    return table(["encoder", "trained", "", "step / step of `erm`", "rounds, lowest to highest", "seconds"], rows)


def step_parts() -> str:
    """Where the time of a step goes."""
    measured = rows_of("step_parts")
    rows = [[part, *(f"{row['seconds'][part] * 1000:,.1f}" for row in measured)] for part in measured[0]["seconds"]]
    return table(["milliseconds", *(row["encoder"] for row in measured)], rows)


def attribution() -> str:
    """Attribution of a linear head."""
    rows = [
        [f"{row['n']:,}", str(row["d"]), str(row["K"]), *cost(row)]
        for row in result("discovery_scaling")["rows"]
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
    rows = [[names[row["method"]], f"{row['n']:,}", *cost(row)] for row in result("peers")["rows"]]
    return table(["", "n", "processor", "clock", "beside the input"], rows)


def first_fit() -> str:
    """From nothing to a fitted classifier."""
    seconds = result("discovery_scaling")["first_fit"]
    rows = [
        ["seconds of processor", f"{seconds['processor_seconds']:.1f}"],
        ["on the clock", f"{seconds['warm_seconds']:.1f}"],
        ["on the clock, its files dropped from memory before", f"{seconds['cold_seconds']:.1f}"],
    ]
    return table([f"median of {seconds['rounds']}", "seconds"], rows)


def head_rows() -> str:
    """What a sample of rows costs a head."""
    measured = result("head_rows")
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
    measured = result("whole_training")
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
    measured = result("step_modes")
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
}


def filled(page: str) -> str:
    """The page with the blocks of this script filled."""
    return fill(page, BLOCKS, shared=True)


def main() -> None:
    """Render or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    after = filled(PAGE.read_text(encoding="utf-8"))
    write(PAGE, after, check=options.check, script="render_performance_docs.py")


if __name__ == "__main__":
    main()
