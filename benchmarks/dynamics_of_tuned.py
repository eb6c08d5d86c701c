"""What docs/dynamics.md says of an encoder that is tuned, from the result of tuned_dynamics.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from dynamics_report import Record, answer, cases, interval, listed, pair_of, result, span, table, tests_table
from numpy.typing import NDArray

UNFINISHED = "{done} of {wanted} draws are done by `erm` and `aifs`: no test is made yet."


def record() -> Record:
    """The result."""
    return result("tuned_dynamics")


def series(case: str, method: str, name: str) -> NDArray[np.float64]:
    """A number of every seed and epoch, `(seeds, epochs + 1)`; NaN where there is none."""
    runs = [run["series"] for run in record()["runs"][case][method].values()]
    return np.asarray([run.get(name, [math.nan] * len(run["worst"])) for run in runs], dtype=np.float64)


def end(case: str, method: str, name: str) -> NDArray[np.float64]:
    """A number of every seed once training has ended, `(seeds,)`; NaN where there is none."""
    runs = record()["runs"][case][method]
    return np.asarray([run["end"].get(name, math.nan) for run in runs.values()], dtype=np.float64)


def setting() -> str:
    """How it was trained."""
    found = record()
    s = found["settings"]
    seeds = [f"{len(of)} of `{m}` on {case}" for case, methods in found["runs"].items() for m, of in methods.items()]
    return (
        f"LoRA of rank 8 on the upper half of a MobileNetV2 and a linear head, AdamW with cosine decay from "
        f"{s['learning_rate']:g}, {s['epochs']} epochs in batches of {s['batch_size']}, {s['train']:,} pictures, "
        f"{s['aligned']:.0%} of them aligned; draws: {', '.join(seeds)}."
    )


def answers() -> str:
    """A sentence for each question, once all draws are done."""
    found = record()
    if not found["tests"]:
        done = max(min(len(methods.get(m, ())) for m in ("erm", "aifs")) for methods in found["runs"].values())
        return UNFINISHED.format(done=done, wanted=found["settings"]["seeds"])
    return "\n".join(f"- **{question}** {told()}" for question, told in QUESTIONS.items())


def _amplified() -> str:
    parts = []
    for method in ("erm", "aifs"):
        said = []
        for name in ("core", "spurious"):
            question = f"log {name}_contrast, end over start, {method}"
            ratios = [math.exp(pair_of(record(), case, question)["difference"]) for case in cases(record())]
            said.append(f"the {name} contrast {answer(record(), question, 'grows', 'shrinks')} ({span(ratios)} times)")
        growth = answer(record(), f"log growth, spurious over core, {method}", "larger", "smaller")
        parts.append(
            f"Under `{method}` {said[0]}, {said[1]}; the spurious one's growth beside the core one's: {growth}."
        )
    return " ".join(parts)


def _variance() -> str:
    parts = []
    for method in ("erm", "aifs"):
        said = []
        for name in ("core", "spurious"):
            first, last = (
                [float(values.mean()) for values in of]
                for of in (
                    [series(case, method, f"{name}_variance")[:, 0] for case in cases(record())],
                    [end(case, method, f"{name}_variance") for case in cases(record())],
                )
            )
            said.append(f"the {name} feature's share goes from {_percent(first)} to {_percent(last)}")
        cosine = answer(record(), f"offsets_cosine, end less start, {method}", "more alike", "less alike")
        cosines = [float(end(case, method, "offsets_cosine").mean()) for case in cases(record())]
        parts.append(
            f"Under `{method}` {listed(said)}; the two offsets become: {cosine} (cosine {span(cosines, 2)} at the end)."
        )
    return " ".join(parts)


def _percent(values: list[float]) -> str:
    return f"{span([100 * value for value in values])} %"


def _learned() -> str:
    return f"By the accuracy that it alone gives: {answer(record(), 'core accuracy later', 'later', 'earlier')}."


def _kept() -> str:
    told = {
        name: answer(record(), f"{name} at the end", more, less)
        for name, more, less in (
            ("core_share", "larger", "smaller"),
            ("spurious_share", "larger", "smaller"),
            ("core_alone", "higher", "lower"),
            ("spurious_alone", "higher", "lower"),
            ("worst", "higher", "lower"),
        )
    }
    return (
        f"At the end of `aifs`, beside `erm`: the core feature's share of the decisions: {told['core_share']}. The "
        f"spurious one's: {told['spurious_share']}. The accuracy that the core feature alone gives: "
        f"{told['core_alone']}; the spurious one alone: {told['spurious_alone']}. The worst cell: {told['worst']}."
    )


def _memorised() -> str:
    shares = [[float(end(case, method, "memorised").mean()) for case in cases(record())] for method in ("erm", "aifs")]
    told = answer(record(), "memorised at the end", "more", "fewer")
    unseen = [float(end(case, "erm", "conflicting").mean()) for case in cases(record())]
    return (
        f"`erm` is right on {_percent(shares[0])} of the conflicting training examples at the end, and on "
        f"{_percent(unseen)} of those that it has not seen; `aifs` on {_percent(shares[1])} of the training ones: "
        f"{told}."
    )


def _followed() -> str:
    parts = []
    for case in cases(record()):
        held = series(case, "aifs", "directions_spurious")
        found = ~np.isnan(held[:, 0])
        if not found.any():
            parts.append(f"on {case} none are found")
            continue
        spurious, core = (end(case, "aifs", f"directions_{name}")[found].mean() for name in ("spurious", "core"))
        parts.append(
            f"on {case} they are found in {int(found.sum())} of {len(found)} draws. Of the spurious offset they hold "
            f"{held[found, 0].mean():.0%} before the first step and {spurious:.0%} at the end, and of the core offset "
            f"{core:.0%} then"
        )
    return _sentence("; ".join(parts))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


QUESTIONS: dict[str, Callable[[], str]] = {
    "Does tuning make the shortcut or the core feature easier to read off the latents?": _amplified,
    "How much of the latents' variance do the two take?": _variance,
    "Are core features learned later than spurious ones, under `erm`?": _learned,
    "What do the decisions rest on?": _kept,
    "Are the conflicting examples learned by heart?": _memorised,
    "Do the directions of `aifs` follow the encoder?": _followed,
}

NAMES = {
    "log core_contrast, end over start, erm": "core contrast, `erm`: end, start",
    "log spurious_contrast, end over start, erm": "spurious contrast, `erm`: end, start",
    "log growth, spurious over core, erm": "growth of the contrast, `erm`: spurious, core",
    "log core_contrast, end over start, aifs": "core contrast, `aifs`: end, start",
    "log spurious_contrast, end over start, aifs": "spurious contrast, `aifs`: end, start",
    "log growth, spurious over core, aifs": "growth of the contrast, `aifs`: spurious, core",
    "offsets_cosine, end less start, erm": "cosine of the offsets, `erm`: end, start",
    "offsets_cosine, end less start, aifs": "cosine of the offsets, `aifs`: end, start",
    "core accuracy later": "epochs to 90 % of the accuracy above chance, `erm`: core alone, spurious alone",
    "core_contrast at the end": "core contrast at the end: `aifs`, `erm`",
    "spurious_contrast at the end": "spurious contrast at the end: `aifs`, `erm`",
    "core_share at the end": "core share at the end: `aifs`, `erm`",
    "spurious_share at the end": "spurious share at the end: `aifs`, `erm`",
    "core_alone at the end": "accuracy of the core feature alone: `aifs`, `erm`",
    "spurious_alone at the end": "accuracy of the spurious feature alone: `aifs`, `erm`",
    "worst at the end": "accuracy of the worst cell: `aifs`, `erm`",
    "memorised at the end": "accuracy on conflicting training examples: `aifs`, `erm`",
}


def tests() -> str:
    """The pairs behind the answers, once all draws are done."""
    return tests_table(record(), NAMES) if record()["tests"] else ""


def ends() -> str:
    """The start, and the end of each method."""
    names = (
        "core_contrast", "spurious_contrast", "core_share", "spurious_share", "core_alone", "aligned", "conflicting",
        "worst",
    )  # fmt: skip
    rows = []
    for case, methods in record()["runs"].items():
        rows.append([f"{case}, before", *(_told(series(case, "erm", name)[:, 0]) for name in names)])
        for method in methods:
            rows.append([f"{case}, `{method}`", *(_told(end(case, method, name)) for name in names)])
    head = [
        "", "core contrast", "spurious contrast", "core share", "spurious share", "core alone", "aligned cells",
        "conflicting cells", "worst cell",
    ]  # fmt: skip
    return table(head, rows)


def _told(values: NDArray[np.float64]) -> str:
    """Mean and half of the interval; of one draw, its number."""
    return interval(values) if len(values) > 1 else f"{values[0]:.2f}"
