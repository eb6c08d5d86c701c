"""What a report needs of an audit, as plain JSON: `Audit.to_dict()`, the candidates, the scale of the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aifs_peft._plain import plain
from aifs_peft.audit import evidence


def audit_record(audit: Any) -> dict[str, Any]:
    """An audit as a report reads it, and `write_audit_folder` writes it.

    Args:
        audit: an `Audit`, or what its `to_dict` gave.

    Returns:
        The audit's own dictionary; of an `Audit` also "rough", "several" (attributes) and "tried" (evidence of every
        candidate).
    """
    if isinstance(audit, Mapping):
        return dict(plain(audit))
    discovery = audit.discovery
    extra = {
        "rough": bool(discovery.rough_),
        "several": len(discovery.parts_),
        "tried": [candidate.gain for candidate in discovery.candidates_],
    }
    record: dict[str, Any] = plain({**audit.to_dict(), **extra})
    return record


def conflicting_count(record: Mapping[str, Any]) -> int:
    """How many examples go against the shortcut; the list in the record may be cut."""
    count = record.get("n_conflicting")
    return len(record.get("conflicting") or ()) if count is None else int(count)


def points(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The projection's points, one dictionary each, from columns or rows."""
    projection = record.get("projection") or []
    if isinstance(projection, Mapping):
        return [dict(zip(projection, row, strict=True)) for row in zip(*projection.values(), strict=True)]
    return list(projection)


def evidence_scale(record: Mapping[str, Any]) -> list[tuple[float, str]]:
    """From where on evidence is called what; empty where the record does not tell which scale it is on.

    Example:
        >>> evidence_scale({"source": "margins", "looked_at": {"classes": {"a": 5, "b": 5}}})
        [(0.0, 'weak'), (40.0, 'clear'), (100.0, 'strong')]
    """
    cuts = _cuts(record)
    if cuts is None:
        return []
    words = ("weak", "clear", "strong")
    return [(low, word) for low, word in zip((0.0, *cuts), words, strict=True) if low != float("inf")]


def _cuts(record: Mapping[str, Any]) -> Sequence[float] | None:
    source = str(record.get("source") or "")
    cuts: Sequence[float] | None = None
    if record.get("several"):
        return None  # the smallest of several, perhaps in different units
    if source.startswith("hint:"):
        cuts = evidence.HINT_CUTS
    elif len((record.get("looked_at") or {}).get("classes") or ()) == 2:
        cuts = evidence.BINARY_CUTS
    elif "rough" in record and source:
        cuts = evidence.cuts_of(3, rough=bool(record["rough"]), source=source)
    return cuts


def tried(record: Mapping[str, Any]) -> list[float]:
    """Evidence of every candidate where all are in one unit: of two classes without a hint."""
    two = len((record.get("looked_at") or {}).get("classes") or ()) == 2
    hinted = str(record.get("source") or "").startswith("hint:")
    return [value for value in record.get("tried") or () if value is not None] if two and not hinted else []
