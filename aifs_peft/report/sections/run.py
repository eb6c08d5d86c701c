"""Everything a report is rendered from, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aifs_peft._plain import plain
from aifs_peft._saved import DAMAGED
from aifs_peft.errors import InvalidInputError
from aifs_peft.report import folder as files
from aifs_peft.report.highlights import Shown, read_highlights
from aifs_peft.report.plots import WIDTH, figure, to_svg
from aifs_peft.report.record import audit_record


@dataclass(frozen=True)
class Run:
    """What is known of a run, an audit, or both.

    Attributes:
        summary: `summary.json`; empty for an audit alone.
        audit: see `audit_record`; None where nobody looked.
        sheets: examples of the contact sheets by kind.
        highlights: what the attribute's score reads in some examples.
        what_if: predictions with the attribute toggled, see `read_what_if`.
        learnt: mask and attributions of the saved adapter by name, lists of numbers; empty where there is none.
    """

    summary: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] | None = None
    sheets: files.Sheets = field(default_factory=dict)
    highlights: Sequence[Shown] = ()
    what_if: Mapping[str, Any] = field(default_factory=dict)
    learnt: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def found(self) -> bool | None:
        """Whether a shortcut was found, by the method or by the audit; None where nobody looked."""
        from aifs_peft.report.facts import found_anything

        by_method = found_anything(self.summary) if self.summary else None
        if by_method is not None:
            return by_method
        return None if self.audit is None else bool(self.audit["found"])


def read_run(source: str | Path | Mapping[str, Any], audit: Any = None, inputs: Any = None) -> Run:
    """A run from its folder or its summary, with an audit beside it or not.

    Args:
        source: folder of a run, or a summary.
        audit: an `Audit`, which then stands in place of the one that was saved.
        inputs: training inputs by row, for the contact sheets of that audit.
    """
    folder = None if isinstance(source, Mapping) else Path(source)
    summary = plain(source) if isinstance(source, Mapping) else files.read_summary(source)
    record, sheets, what_if, learnt = summary.get("audit"), {}, {}, {}
    highlights: Sequence[Shown] = ()
    if folder is not None:
        record = files.read_audit(folder) or record
        sheets, what_if, learnt = files.read_sheets(folder), files.read_what_if(folder), _learnt(folder)
        highlights = read_highlights(folder)
    if audit is not None:
        record, sheets = audit_record(audit), files.audit_sheets(audit, inputs)
        highlights = ()  # of the audit that was saved
    return Run({**summary, "audit": record}, record, sheets, highlights, what_if, learnt)


def _learnt(folder: Path) -> dict[str, list[float]]:
    """Mask and running attributions of the adapter that lies in the folder, where it keeps any."""
    from safetensors import SafetensorError, safe_open

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        return {}
    out: dict[str, list[float]] = {}
    try:
        with safe_open(path, framework="numpy") as saved:
            for key in saved.keys():  # noqa: SIM118 - no mapping
                name = key.rsplit(".", 1)[-1]
                if "aifs_state" in key and name in ("mask", "ema"):
                    out[name] = saved.get_tensor(key).astype(float).tolist()
    except (SafetensorError, OSError) as error:
        raise InvalidInputError(DAMAGED.format(file=path, reason=error)) from error
    return out


def picture(
    title: str,
    description: str,
    height: float,
    draw: Callable[[Any], None],
    caption: str = "",
    *,
    width: float = WIDTH,
    tall: bool = False,
) -> dict[str, Any]:
    """A figure as a template shows it.

    Args:
        title: name of the figure for those who do not see it.
        description: the same for its content.
        height: inches.
        draw: draws on the axes it is given.
        caption: shown below.
        width: inches; a narrower figure is shown narrower.
        tall: whether two others stand beside it where there is room.
    """
    with figure(height, width) as (made, axes):
        draw(axes)
        svg = to_svg(made, title, description)
    return {"svg": svg, "title": title, "caption": caption, "tall": tall}
