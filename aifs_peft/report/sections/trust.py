"""The sections *Can I trust it?* and *What if?*."""

from __future__ import annotations

from typing import Any

from aifs_peft.report import facts
from aifs_peft.report.numbers import number, percent, value_of
from aifs_peft.report.sections.run import Run

MOST_ROWS = 12


def trust(run: Run) -> dict[str, Any]:
    """Supervision, selection, data, calibration per group, what was not checked, provenance."""
    summary = run.summary
    told = []
    if summary:
        told = [
            ("Supervision in training", facts.supervision_sentence(summary)),
            ("Selection of the model", facts.selection_sentence(summary)),
            ("Data", facts.data_sentence(summary)),
        ]
    limits = facts.limits(summary) if summary else facts.audit_limits(run.audit or {})
    return {"told": told, "limits": limits, "calibration": _calibration(summary), "provenance": _provenance(summary)}


def _calibration(summary: Any) -> dict[str, Any] | None:
    groups = (summary.get("metrics") or {}).get("groups") or {}
    rows = [
        [str(name), f"{entry['n']:,}", number(entry.get("expected_calibration_error"), 3),
         number(entry.get("brier_score"), 3)]
        for name, entry in groups.items()
        if value_of(entry.get("expected_calibration_error")) is not None
    ]  # fmt: skip
    if not rows:
        return None
    return {
        "caption": "Calibration per group; both are 0 at best",
        "header": ["group", "n", "expected calibration error", "Brier score"],
        "rows": rows[:MOST_ROWS],
    }


def _provenance(summary: Any) -> list[tuple[str, str]]:
    origin = summary.get("provenance") or {}
    out = []
    if summary.get("seed") is not None:
        out.append(("Seed", str(summary["seed"])))
    versions = origin.get("versions") or {}
    if versions:
        out.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)))
    if origin.get("commit"):
        out.append(("Commit", f"{origin['commit'][:12]}{', with changes' if origin.get('dirty') else ''}"))
    hardware = origin.get("hardware") or {}
    if hardware:
        out.append(("Machine", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in hardware.items())))
    return out


def what_if(run: Run) -> dict[str, Any] | None:
    """What the model predicts once the attribute's value is another one; None where the run has no such numbers."""
    rows = list(run.what_if)
    if not rows:
        return None
    rows.sort(key=lambda row: str(row["predicted"]) == str(row["predicted_toggled"]))
    changed = sum(str(row["predicted"]) != str(row["predicted_toggled"]) for row in rows)
    table = [
        [f"{row['row']}", str(row["label"]), f"{row['inferred']} → {row['toggled_to']}",
         f"{row['predicted']} ({percent(row.get('probability'))})",
         f"{row['predicted_toggled']} ({percent(row.get('probability_toggled'))})"]
        for row in rows[:MOST_ROWS]
    ]  # fmt: skip
    return {
        "sentence": f"{changed:,} of {len(rows):,} predictions change when the attribute's value in the latents "
        "is changed and nothing else.",
        "table": {
            "caption": "Predictions with the attribute toggled in the latents; in brackets the probability of the "
            "example's own class",
            "header": ["row", "label", "attribute", "as it is", "toggled"],
            "rows": table,
        },
        "more": len(rows) - len(table),
    }
