"""What docs/dynamics.md says of heads on frozen latents, from the result of training_dynamics.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from dynamics_report import Record, answer, cases, interval, pair_of, result, span, table, tests_table
from numpy.typing import NDArray


def record() -> Record:
    """The result."""
    return result("training_dynamics")


def series(case: str, method: str, name: str) -> NDArray[np.float64]:
    """A number of every seed and epoch, `(seeds, epochs + 1)`; NaN where there is none yet."""
    runs = record()["runs"][case][method]
    return np.asarray([run[name] for run in runs.values()], dtype=np.float64)


def answers() -> str:
    """A sentence for each question."""
    return "\n".join(f"- **{question}** {told()}" for question, told in QUESTIONS.items())


def _learned() -> str:
    moved, right = (answer(record(), f"core {what} later", "later", "earlier") for what in ("learned", "accuracy"))
    return f"By how far it moves the decision: {moved}. By the accuracy that it alone gives: {right}."


def _kept() -> str:
    core, spurious = (
        answer(record(), f"{name} share at the end", "larger", "smaller") for name in ("core", "spurious")
    )
    kept = answer(record(), "core share kept", "more", "less")
    right = answer(record(), "core accuracy at the end", "higher", "lower")
    return (
        f"At the end, beside `erm`: the core feature's share of the decisions: {core}. The spurious one's: "
        f"{spurious}. What is left of the largest share that the core feature had on the way: {kept}. The accuracy "
        f"that the core feature alone gives: {right}."
    )


def _mask() -> str:
    measured = record()
    epochs = [epoch for case in cases(record()) for epoch in measured["masks"][f"{case}/aifs-paper"]]
    settled = [epoch for epoch in epochs if epoch is not None]
    moved = max(float(np.nanmax(series(case, "aifs", "mask_change"))) for case in cases(record()))
    kept = "stay as they are" if moved == 0 else f"move by {moved:.2g} at most"
    when = f"from epoch {min(settled)} to {max(settled)} on" if settled else "never"
    return (
        f"That of `aifs-paper` moves by less than {measured['settings']['still']:.0%} per update {when}, in "
        f"{len(settled)} of {len(epochs)} trainings; in the end the learning rate is 0, and with it the head stands "
        f"still. The directions of `aifs` are found before the first step and, the encoder being frozen, {kept}."
    )


def _sharpness() -> str:
    along, top = "log curvature, spurious over core, erm", "log top curvature, aifs over erm"
    ratios, tops = (
        [math.exp(pair_of(record(), case, name)["difference"]) for case in cases(record())] for name in (along, top)
    )
    return (
        f"Beside the core direction: {answer(record(), along, 'sharper', 'flatter')}, with {span(ratios)} times the "
        "curvature. The largest curvature at the end of `aifs`, beside that of `erm`: "
        f"{answer(record(), top, 'larger', 'smaller')} ({span(tops)} times)."
    )


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
    return tests_table(record(), NAMES)


def ends() -> str:
    """The last epoch of each method."""
    rows = []
    names = ("core_share", "spurious_share", "core_alone", "aligned", "conflicting", "curvature_top")
    for case in cases(record()):
        for method in record()["runs"][case]:
            last = [interval(series(case, method, name)[:, -1]) for name in names]
            rows.append([f"{case}, `{method.split(',')[0]}`{''.join(method.partition(',')[1:])}", *last])
    head = ["", "core share", "spurious share", "core alone", "aligned cells", "conflicting cells", "largest curvature"]
    return table(head, rows)


def setting() -> str:
    """How it was trained."""
    s, runs = record()["settings"], record()["runs"]
    seeds = ", ".join(
        f"{len(next(iter(methods.values())))} on {case}" for case, methods in runs.items() if case in cases(record())
    )
    return (
        f"AdamW with cosine decay from {s['learning_rate']:g}, weight decay {s['weight_decay']:g}, {s['epochs']} "
        f"epochs in batches of {s['batch_size']}, {s['train']:,} examples; seeds: {seeds}; nothing is tuned. "
        f"*Planted*: {s['width']} Gaussian dimensions, class and attribute {s['core']:g} and {s['spurious']:g} "
        "standard deviations apart along two axes, and the aligned share."
    )
