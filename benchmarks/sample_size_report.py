"""What section 4 of docs/theory.md says of sample sizes, from the result of sample_sizes.py."""

from __future__ import annotations

from dynamics_report import listed, result, span, table


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
        f"The search follows the first rule, not the second: it needs {span(to_told)} times as many conflicting "
        f"examples as somebody who is told which they are, and {span(to_moments)} times fewer than second moments "
        f"want. Discovery needs {span(gate)} times as many as the search at the contrasts that its gate lets "
        f"through. At contrasts of {listed(names)} more examples do not help: with {last} conflicting per class at "
        f"most {max(e['found_at_last'] for e in refused.values()):.0%} of the draws are found, where the search has "
        f"{min(e['search_at_last'] for e in refused.values()):.0%} and more. In between, chance makes a contrast "
        f"look larger than it is, so that up to {max(e['found_at_best'] for e in refused.values()):.0%} pass."
    )
