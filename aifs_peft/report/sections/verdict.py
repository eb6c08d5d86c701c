"""The section *Is there a shortcut?*."""

from __future__ import annotations

from typing import Any

from aifs_peft.report import facts
from aifs_peft.report.numbers import number, percent, value_of
from aifs_peft.report.plots import draw_evidence
from aifs_peft.report.plots.evidence import evidence_words
from aifs_peft.report.record import conflicting_count, evidence_scale, tried
from aifs_peft.report.sections.run import Run, picture

_HEADLINES = {
    True: "Yes. A shortcut was found.",
    False: "None was found.",
    None: "This run does not say.",
}
MOST_CLASSES = 12
_KIND = {True: "found", False: "none", None: "unknown"}


def verdict(run: Run) -> dict[str, Any]:
    """Headline, sentence, figures at a glance, evidence against its scale, what was looked at."""
    audit = run.audit or {}
    sentence = facts.result_sentence(run.summary) if run.summary else str(audit.get("sentence", ""))
    return {
        "kind": _KIND[run.found],
        "headline": _HEADLINES[run.found],
        "sentence": sentence,
        "tiles": _tiles(run),
        "figure": _figure(audit),
        "looked_at": _looked_at(audit),
        "detectable": (audit.get("looked_at") or {}).get("detectable_sentence"),
        "warnings": [str(text) for text in (audit.get("looked_at") or {}).get("warnings") or ()],
    }


def _tiles(run: Run) -> list[dict[str, str]]:
    audit, state = run.audit or {}, run.summary.get("state") or {}
    out = []
    evidence = value_of(audit.get("evidence")) if audit else value_of(state.get("evidence"))
    if evidence is not None and run.found is not None:
        words = audit.get("evidence_words")
        out.append({"name": "Evidence", "value": str(words or number(evidence, 1)),
                    "note": f"{number(evidence, 1)}, where 0 is the gate" if words else "0 is the gate"})  # fmt: skip
    moved = conflicting_share(audit)
    if moved is not None:
        count, n = moved
        out.append({"name": "Go against it", "value": f"{count:,}",
                    "note": f"of {n:,} training examples ({percent(count / n)})"})  # fmt: skip
    gain = _gain(run) or _expected(audit)
    if gain:
        out.append(gain)
    if run.summary:
        told = {"none": "class labels", "hints": "labels and hints", "groups": "group labels"}
        supervision = facts.method_facts(run.summary).supervision
        out.append({"name": "Training was told", "value": told.get(supervision, "not known"),
                    "note": "an oracle" if supervision == "groups" else "no group labels"
                    if supervision in told else "the method is not installed"})  # fmt: skip
    return out


def conflicting_share(audit: Any) -> tuple[int, int] | None:
    """How many training examples go against the shortcut, and of how many; None where nothing was found."""
    if not audit or not audit.get("found"):
        return None
    total = sum(int(row["n"]) for row in audit.get("groups") or ())
    return (conflicting_count(audit), total) if total else None


def _gain(run: Run) -> dict[str, str] | None:
    """Accuracy on conflicting examples, or of the worst cell, before and after."""
    comparison = run.summary.get("comparison") or {}
    rows = {str(row["cell"]): row for row in comparison.get("rows", ())}
    row, name = rows.get("conflicting"), "Right on conflicting examples"
    if row is None:
        row, name = comparison.get("worst"), "Right in the worst cell"
    if not row:
        return None
    before, after = (value_of((row.get(side) or {}).get("accuracy")) for side in ("plain", "method"))
    if before is None or after is None:
        return None
    n = f", n = {row['n']:,}" if row.get("n") else ""
    return {
        "name": name,
        "value": f"{100 * before:.0f} → {100 * after:.0f} %",
        "note": f"plain training → this model{n}",
    }


def _expected(audit: Any) -> dict[str, str] | None:
    """Accuracy of plain training on conflicting examples, as the audit expects it."""
    harm = audit.get("harm") or {}
    moved, others = (value_of((harm.get(name) or {}).get("accuracy")) for name in ("conflicting", "aligned"))
    if moved is None or others is None:
        return None
    return {"name": "Plain training is right on", "value": f"{percent(moved)} of them",
            "note": f"and on {percent(others)} of the others, held out"}  # fmt: skip


def _figure(audit: Any) -> dict[str, Any] | None:
    evidence, found = value_of(audit.get("evidence")), bool(audit.get("found"))
    candidates, scale = tried(audit), evidence_scale(audit)
    if evidence is None or not (candidates or (found and scale)):
        return None
    ticks = "Each tick is one candidate for the attribute that was tried. " if candidates else ""
    return picture(
        "Evidence against what chance reaches",
        evidence_words(evidence, found=found, candidates=candidates, scale=scale),
        1.55,
        lambda ax: draw_evidence(ax, evidence, found=found, candidates=candidates, scale=scale),
        f"{ticks}What lies left of the gate could be chance.",
    )


def _looked_at(audit: Any) -> list[tuple[str, str]]:
    """What was looked at: names and values."""
    seen = audit.get("looked_at") or {}
    out = []
    if seen.get("n") is not None:
        out.append(("Examples", f"{seen['n']:,}" + (f", latents of {seen['d']:,} dimensions" if seen.get("d") else "")))
    classes = seen.get("classes")
    if isinstance(classes, dict) and classes:
        told = [f"{name}: {n:,}" for name, n in list(classes.items())[:MOST_CLASSES]]
        out.append((f"{len(classes)} classes", ", ".join(told) + (", …" if len(classes) > MOST_CLASSES else "")))
    if seen.get("candidates") is not None:
        out.append(("Candidates tried", f"{seen['candidates']:,}"))
    if seen.get("unlabelled"):
        out.append(("Unlabelled examples", f"{seen['unlabelled']['n']:,}"))
    metadata = seen.get("metadata") or {}
    if metadata.get("tested"):
        out.append(("Metadata compared", ", ".join(str(name) for name in metadata["tested"])))
    if metadata.get("skipped"):
        pairs = metadata["skipped"]
        told = [f"{k} ({v})" for k, v in pairs.items()] if isinstance(pairs, dict) else [str(item) for item in pairs]
        out.append(("Metadata left out", ", ".join(told)))
    return out
