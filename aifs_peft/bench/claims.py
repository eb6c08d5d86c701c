"""What the library claims, held against the results: each claim on each data set, kept or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aifs_peft.bench.tables import Row, Value

WORST, GAP = "worst_group_accuracy", "equal_opportunity_difference"
# Points of worst-group accuracy and of the equal-opportunity difference.
_ABOVE_BASELINES, _LARGEST_GAP, _BELOW_ORACLE, _BELOW_ERM = 0.02, 0.01, 0.01, 0.01
EVEN, NEAR = "equal-opportunity difference at most 1 %", "within 1 point of the tuned oracle"
HARMLESS = "not below ERM by more than 1 point"
BASELINES, ORACLES, PLAIN = ("elrep", "ule"), ("gdro-oracle", "reweight-oracle"), ("erm", "erm-closed")


@dataclass(frozen=True)
class Claim:
    """One claim on one data set.

    Args:
        text: the claim.
        dataset: its name.
        value: what was measured.
        wanted: what it must be at least, or at most.
        holds: whether it is.
    """

    text: str
    dataset: str
    value: float
    wanted: str
    holds: bool


def check_claims(rows: Sequence[Row], focus: str) -> list[Claim]:
    """Every claim that the results can tell of.

    Args:
        rows: of `aifs_peft.bench.tables.summarise`.
        focus: the method that the claims are about.

    Returns:
        By claim and data set; where a method of a claim was not run, the claim is left out there.
    """
    cells: dict[str, dict[str, Row]] = {}
    for row in rows:
        cells.setdefault(row.dataset, {})[row.method] = row
    found = []
    for dataset, methods in cells.items():
        own = _mean(methods, focus)
        if own is None:
            continue
        for name in BASELINES:
            other = _mean(methods, name)
            if other is not None:
                told = f"above {name} by more than 2 points"
                found.append(Claim(told, dataset, own - other, "> +0.020", own - other > _ABOVE_BASELINES))
        gap = methods[focus].values.get(GAP)
        if gap is not None:
            found.append(Claim(EVEN, dataset, gap.mean, "<= 0.010", gap.mean <= _LARGEST_GAP))
        oracle = max((v for v in (_oracle(methods, name) for name in ORACLES) if v is not None), default=None)
        if oracle is not None:
            found.append(Claim(NEAR, dataset, own - oracle, ">= -0.010", own - oracle >= -_BELOW_ORACLE))
        plain = max((v for v in (_mean(methods, name) for name in PLAIN) if v is not None), default=None)
        if plain is not None:
            found.append(Claim(HARMLESS, dataset, own - plain, ">= -0.010", own - plain >= -_BELOW_ERM))
    return sorted(found, key=lambda claim: claim.text)


def claims_table(claims: Sequence[Claim]) -> str:
    """The same as Markdown, and how many hold.

    Args:
        claims: of `check_claims`.
    """
    lines = ["| claim | data set | measured | wanted | holds |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {c.text} | {c.dataset} | {c.value:+.3f} | {c.wanted} | {'yes' if c.holds else '**no**'} |" for c in claims
    ]
    held = sum(claim.holds for claim in claims)
    return "\n".join([*lines, "", f"{held} of {len(claims)} hold."])


def _mean(methods: Mapping[str, Row], name: str) -> float | None:
    value = methods[name].values.get(WORST) if name in methods else None
    return None if value is None else value.mean


def _oracle(methods: Mapping[str, Row], name: str) -> float | None:
    """An oracle tuned by the true groups of the validation split."""
    value: Value | None = methods[name].oracle if name in methods else None
    return None if value is None else value.mean
