"""What the library claims, held against the results: each claim on each data set, kept or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aifs_peft.bench.formatting import DASH, listed, points, table
from aifs_peft.bench.statistics import mean_interval_of, paired
from aifs_peft.bench.tables import WORST

GAP = "equal_opportunity_difference"
# Points of worst-group accuracy and of the equal-opportunity difference.
_ABOVE_BASELINES, _LARGEST_GAP, _BELOW_ORACLE, _BELOW_ERM = 0.02, 0.01, 0.01, 0.01
EVEN, NEAR = "equal-opportunity difference at most 1 %", "within 1 point of the tuned oracle"
HARMLESS = "not below ERM by more than 1 point"
BASELINES, ORACLES, PLAIN = ("elrep", "ule"), ("gdro-oracle", "reweight-oracle"), ("erm", "erm-closed")
# Claim -> what its numbers are, for a sentence.
_MEASURED = {EVEN: "the difference", NEAR: "worst group minus the oracle's", HARMLESS: "worst group minus ERM's"}
_ABOVE = "worst group minus its"
# Numbers of the seeds of one method on one data set.
_BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Claim:
    """One claim on one data set.

    Args:
        text: the claim.
        dataset: its name.
        value: what was measured, a mean over seeds.
        low: of its 95 % interval over seeds; None with one seed.
        high: of the same.
        wanted: what it must be at least, or at most.
        holds: whether the mean is.
        sure: whether the whole interval says the same.
    """

    text: str
    dataset: str
    value: float
    low: float | None
    high: float | None
    wanted: str
    holds: bool
    sure: bool


def check_claims(results: Sequence[Mapping[str, Any]], focus: str) -> list[Claim]:
    """Every claim that the results can tell of.

    Args:
        results: contents of files.
        focus: the method that the claims are about.

    Returns:
        By claim and data set; where a method of a claim was not run, the claim is left out there. Differences are
        paired by seed. "The oracle" is the better of `gdro-oracle` and `reweight-oracle`, each with the setting that
        the true groups of the validation split choose; "ERM" is the better of `erm` and `erm-closed`.
    """
    found = []
    for dataset in dict.fromkeys(run["dataset"] for run in results):
        runs = [run for run in results if run["dataset"] == dataset and not run["failed"]]
        own = _by_seed(runs, focus, lambda run: run["metrics"][WORST])
        if not own:
            continue

        def against(text: str, other: _BySeed, least: float, d: str = dataset, own: _BySeed = own) -> list[Claim]:
            seeds = sorted(set(own) & set(other))
            if not seeds:
                return []
            mean, low, high, _ = paired([own[s] for s in seeds], [other[s] for s in seeds])
            strict = least > 0
            wanted = f"{'>' if strict else '>='} {100 * least:+.0f}"
            holds = mean > least if strict else mean >= least
            return [Claim(text, d, mean, low, high, wanted, holds, _sure(least, low, high))]

        for name in BASELINES:
            other = _by_seed(runs, name, lambda run: run["metrics"][WORST])
            found += against(f"above `{name}` by more than 2 points", other, _ABOVE_BASELINES)
        found += _even(dataset, _by_seed(runs, focus, lambda run: run["metrics"][GAP]))
        found += against(NEAR, _best(runs, ORACLES, _chosen_by_oracle), -_BELOW_ORACLE)
        found += against(HARMLESS, _best(runs, PLAIN, lambda run: run["metrics"][WORST]), -_BELOW_ERM)
    return sorted(found, key=lambda claim: claim.text)


def _even(dataset: str, gaps: _BySeed) -> list[Claim]:
    if not gaps:
        return []
    mean, low, high = mean_interval_of(list(gaps.values()))
    return [Claim(EVEN, dataset, mean, low, high, "<= 1", mean <= _LARGEST_GAP, _sure(_LARGEST_GAP, low, high))]


def _sure(limit: float, low: float | None, high: float | None) -> bool:
    """Whether the limit lies outside the interval."""
    return low is not None and high is not None and not low < limit < high


def _chosen_by_oracle(run: Mapping[str, Any]) -> float | None:
    """Worst group of the setting that the true groups of the validation split choose."""
    chosen = run["oracle_selection"]
    return None if chosen is None else chosen["metrics"][WORST]


def _by_seed(
    runs: Sequence[Mapping[str, Any]], method: str, number: Callable[[Mapping[str, Any]], float | None]
) -> dict[int, float]:
    of = ((run["seed"], number(run)) for run in runs if run["method"] == method)
    return {seed: value for seed, value in of if value is not None}


def _best(
    runs: Sequence[Mapping[str, Any]], methods: Sequence[str], number: Callable[[Mapping[str, Any]], float | None]
) -> dict[int, float]:
    """The numbers of the method with the best mean; none where none was run."""
    found = [numbers for name in methods if (numbers := _by_seed(runs, name, number))]
    return max(found, key=lambda numbers: sum(numbers.values()) / len(numbers), default={})


def claims_table(claims: Sequence[Claim], found: Mapping[str, str] | None = None) -> str:
    """Data sets by claims, as Markdown: whether each holds, and the number in points.

    Args:
        claims: of `check_claims`.
        found: by data set, in how many draws a shortcut was found; None leaves the column out.
    """
    texts, datasets = (list(dict.fromkeys(getattr(c, name) for c in claims)) for name in ("text", "dataset"))
    datasets = _as_first_seen(claims, datasets)
    cells = {(c.dataset, c.text): c for c in claims}
    more = [] if found is None else [{dataset: found.get(dataset, DASH) for dataset in datasets}]
    rows = [
        [dataset, *(column[dataset] for column in more), *(_cell(cells.get((dataset, text))) for text in texts)]
        for dataset in datasets
    ]
    return table(["data set", *["shortcut found"] * len(more), *texts], rows)


def _as_first_seen(claims: Sequence[Claim], datasets: list[str]) -> list[str]:
    """Data sets in the order of the claim that knows most of them."""
    orders: dict[str, list[str]] = {}
    for claim in claims:
        orders.setdefault(claim.text, []).append(claim.dataset)
    longest = max(orders.values(), key=len, default=[])
    return [*longest, *(d for d in datasets if d not in longest)]


def _cell(claim: Claim | None) -> str:
    if claim is None:
        return DASH
    number = points(claim.value, claim.low, claim.high)
    if claim.text == EVEN:
        number = number.removeprefix("+")
    return f"{'yes' if claim.holds else '**no**'}, {number}"


def claims_sentences(claims: Sequence[Claim]) -> list[str]:
    """One sentence per claim: on how many data sets it holds, and where it fails, the worst first.

    Args:
        claims: of `check_claims`.
    """
    sentences = []
    for text in dict.fromkeys(claim.text for claim in claims):
        of = [claim for claim in claims if claim.text == text]
        held = [claim for claim in of if claim.holds]
        failed = sorted((c for c in of if not c.holds), key=lambda c: c.value, reverse=text == EVEN)
        count = f"all {len(of)}" if 1 < len(held) == len(of) else f"{len(held) or 'none'} of {len(of)}"
        sentence = f"**{text[:1].upper()}{text[1:]}**: holds on {count} data sets"
        if failed:
            sentence += f"; not on {listed([_number(c) for c in failed])} ({_MEASURED.get(text, _ABOVE)}, in points)"
        sentences.append(f"{sentence}.")
    return sentences


def _number(claim: Claim) -> str:
    return f"{claim.dataset} ({_cell(claim).partition(', ')[2]})"
