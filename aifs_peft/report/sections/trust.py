"""The section *Can I trust it?*."""

from __future__ import annotations

from typing import Any

from aifs_peft.report import facts
from aifs_peft.report.numbers import number, value_of
from aifs_peft.report.sections.run import Run

MOST_ROWS = 12


def trust(run: Run) -> dict[str, Any]:
    """Supervision, selection, data, calibration per group, what was not checked, provenance."""
    summary = run.summary
    told = []
    if summary:
        told = [
            ("Supervision in training", facts.supervision_sentence(summary)),
            *facts.beside_labels(summary),
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
