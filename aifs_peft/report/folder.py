"""The folder of a run: what the audit leaves in it, and how it is read again.

```
summary.json            what the run was and gave, plain JSON
audit/audit.json        Audit.to_dict() and what `audit_record` adds
audit/conflicting.csv   one row per example that goes against the shortcut, most certain first
audit/examples.json     which examples the sheets show; texts are in it, pictures in the sheets
audit/contact_*.png     conflicting, aligned, typical
audit/highlights.*      what the attribute's score reads in some examples, see `aifs_peft.report.highlights`
what_if.json            predictions with the attribute toggled, see `read_what_if`
report.html, README.md  the report and the card, rendered from the above
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aifs_peft._plain import to_json
from aifs_peft._saved import read_json, read_object
from aifs_peft.errors import InvalidInputError
from aifs_peft.report.contact import SHEETS, Example, choose, cut, sheet, sheet_path, with_inputs
from aifs_peft.report.record import audit_record

SUMMARY, AUDIT = "summary.json", "audit/audit.json"
CONFLICTING, EXAMPLES, WHAT_IF = "audit/conflicting.csv", "audit/examples.json", "what_if.json"
NO_RUN = (
    "{folder} holds no {name}: it is no folder of a run. Give the folder that `aifs finetune --output-dir` or "
    "`save_run` wrote."
)
Sheets = dict[str, list[Example]]


def write_audit_folder(audit: Any, folder: str | Path, inputs: Any = None) -> list[Path]:
    """Write what a report shows of an audit into the folder of a run.

    Args:
        audit: an `Audit` of the training set.
        folder: of the run; `audit/` is made in it.
        inputs: the training inputs by row, for contact sheets: paths of images, images, or texts. None takes those
            that the audit was given.

    Returns:
        The files written.

    Raises:
        InvalidInputError: for an audit that JSON cannot hold.
    """
    folder, text = Path(folder), to_json(audit_record(audit))
    (folder / "audit").mkdir(parents=True, exist_ok=True)
    (folder / AUDIT).write_text(text, encoding="utf-8")
    audit.conflicting.to_csv(folder / CONFLICTING, index=False)
    written = [folder / AUDIT, folder / CONFLICTING]
    sheets = audit_sheets(audit, inputs)
    if sheets:
        (folder / EXAMPLES).write_text(
            to_json({k: [_record(e) for e in v] for k, v in sheets.items()}), encoding="utf-8"
        )
        written.append(folder / EXAMPLES)
    else:
        (folder / EXAMPLES).unlink(missing_ok=True)
    for kind in SHEETS:
        path = folder / sheet_path(kind)
        if any(e.picture is not None for e in sheets.get(kind, ())):
            sheet(sheets[kind]).save(path, optimize=True)
            written.append(path)
        else:  # of an audit before this one
            path.unlink(missing_ok=True)
    return written


def audit_sheets(audit: Any, inputs: Any = None) -> Sheets:
    """The examples of every sheet with their pictures or texts; empty without inputs."""
    inputs = audit.inputs if inputs is None else inputs
    if inputs is None:
        return {}
    return {kind: with_inputs(examples, inputs) for kind, examples in choose(audit).items()}


def _record(example: Example) -> dict[str, Any]:
    return {name: getattr(example, name) for name in ("row", "label", "inferred", "confidence", "text")}


def read_summary(folder: str | Path) -> dict[str, Any]:
    """`summary.json` of a run.

    Raises:
        InvalidInputError: for a folder without one, or a damaged one.
    """
    file = Path(folder) / SUMMARY
    if not file.is_file():
        raise InvalidInputError(NO_RUN.format(folder=folder, name=SUMMARY))
    return read_object(file)


def read_audit(folder: str | Path) -> dict[str, Any] | None:
    """What `write_audit_folder` wrote of the audit itself; None where there was none."""
    path = Path(folder)
    return read_object(path / AUDIT) if (path / AUDIT).is_file() else None


def write_what_if(what_if: Mapping[str, Any], folder: str | Path) -> None:
    """Write the test predictions with the attribute toggled into the folder of a run; empty takes an earlier file away.

    Args:
        what_if: of `FinetuneResult`, see `aifs_peft.explain.what_if`.
        folder: of the run.

    Raises:
        InvalidInputError: for what JSON cannot hold.
    """
    path = Path(folder) / WHAT_IF
    if what_if:
        path.write_text(to_json(what_if), encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def read_what_if(folder: str | Path) -> dict[str, Any]:
    """Predictions with the attribute toggled; empty where the run has none.

    As `write_what_if` wrote it: "sentences", "n", "rows", "share" and "examples". A bare list of examples, the form of
    earlier releases, is read as the examples alone.
    """
    path = Path(folder)
    if not (path / WHAT_IF).is_file():
        return {}
    told = read_json(path / WHAT_IF)
    return {"examples": told} if isinstance(told, list) else read_object(path / WHAT_IF)


def read_sheets(folder: str | Path) -> Sheets:
    """The examples of every sheet of a run, pictures cut out of the sheets; empty where there are none."""
    from PIL import Image

    path = Path(folder)
    if not (path / EXAMPLES).is_file():
        return {}
    out: Sheets = {}
    recorded: Mapping[str, Sequence[Mapping[str, Any]]] = read_object(path / EXAMPLES)
    for kind, records in recorded.items():
        examples = [Example(**record) for record in records]
        file = path / sheet_path(kind)
        if kind in SHEETS and file.is_file():
            with Image.open(file) as opened:
                pictures = cut(opened.convert("RGB"), len(examples))
            examples = [
                e if e.text is not None else replace(e, picture=p) for e, p in zip(examples, pictures, strict=True)
            ]
        out[kind] = examples
    return out
