"""The report as one static HTML file: no script, no network, pictures inside, everything from data escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aifs_peft._saved import expecting_our_form
from aifs_peft.report import facts
from aifs_peft.report.plots import draw_projection
from aifs_peft.report.publish import shown_name
from aifs_peft.report.record import audit_record, points
from aifs_peft.report.sections.hurt import hurt
from aifs_peft.report.sections.run import Run, read_run
from aifs_peft.report.sections.toggled import what_if
from aifs_peft.report.sections.training import training
from aifs_peft.report.sections.trust import trust
from aifs_peft.report.sections.verdict import verdict
from aifs_peft.report.sections.what import conflicting_table, what

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT = "report.html"
_NAMES = {
    "verdict": "Is there a shortcut?",
    "what": "What is it?",
    "hurt": "Who is hurt?",
    "training": "What did training do?",
    "trust": "Can I trust it?",
    "what-if": "What if?",
}


def render_html(source: str | Path | Mapping[str, Any], audit: Any = None, inputs: Any = None) -> str:
    """The report of a run as one HTML page.

    It is rendered from what is there: a section whose data are missing says so, or is left out.

    Args:
        source: folder of a run (see `aifs_peft.report.folder`), or its summary.
        audit: an `Audit` of the training set, in place of the one saved in the folder.
        inputs: training inputs by row for that audit's contact sheets: paths of images, images, or texts.

    Returns:
        The text of the page.

    Raises:
        InvalidInputError: for a folder without `summary.json`.

    Example:
        >>> run = {"method": "erm", "dataset": "toy", "task": "image-classification", "label_names": ["cat", "dog"]}
        >>> page = render_html(run)
        >>> "ERM does not report whether there is a shortcut." in page
        True
    """
    return _page(read_run(source, audit, inputs))


def write_report(run_folder: str | Path, path: str | Path | None = None) -> Path:
    """Render the report of a run into a file.

    Args:
        run_folder: folder of a run, with `summary.json` and whatever else there is.
        path: of the file; None is `report.html` in the folder.

    Returns:
        The path of the file.

    Raises:
        InvalidInputError: for a folder without `summary.json`, or with damaged files.
    """
    target = Path(run_folder) / REPORT if path is None else Path(path)
    with expecting_our_form(run_folder):
        text = render_html(run_folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target


def audit_page(audit: Any, inputs: Any = None, title: str = "Audit of a training set") -> str:
    """The report of an audit alone, without any training, as one HTML page.

    Args:
        audit: an `Audit`.
        inputs: training inputs by row, for contact sheets: paths of images, images, or texts.
        title: heading of the page.
    """
    from aifs_peft.report.folder import audit_sheets

    return _page(Run(audit=audit_record(audit), sheets=audit_sheets(audit, inputs)), title)


def audit_html(audit: Any) -> str:
    """The answer of an audit in a few lines of HTML, for a notebook; `audit_page` has the whole.

    Args:
        audit: an `Audit`.
    """
    record = audit_record(audit)
    found = verdict(Run(audit=record))
    lines = [f"{tile['name']}: {tile['value']} ({tile['note']})" for tile in found["tiles"]]
    lines += [str(record[key]["sentence"]) for key in ("harm", "model_harm") if record.get(key)]
    text = (
        _environment()
        .get_template("audit.html.j2")
        .render(
            headline=found["headline"],
            sentence=found["sentence"],
            lines=lines,
            conflicting=conflicting_table(record, 5),
        )
    )
    return text.strip()


def plot_audit(audit: Any, ax: Axes | None = None) -> Axes:
    """Scatter of the latents along the class and along the attribute, conflicting examples set apart.

    Args:
        audit: an `Audit`.
        ax: axes to draw on; None makes a figure of its own.

    Returns:
        The axes.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(layout="constrained")
    draw_projection(ax, points(audit_record(audit)), found=bool(audit.found))
    return ax


def _page(run: Run, title: str | None = None) -> str:
    trained = bool(run.summary)
    shown = {
        "verdict": verdict(run),
        "what": what(run),
        "hurt": hurt(run),
        "training": training(run) if trained else None,
        "trust": trust(run),
        "what_if": what_if(run),
    }
    left_out = {"training": not trained, "what-if": not shown["what_if"]}
    contents = [(key, name) for key, name in _NAMES.items() if not left_out.get(key)]
    page = _environment().get_template("report.html.j2").render(
        **shown, trained=trained, contents=contents, title=title or shown_name(run.summary["dataset"]),
        subtitle=_subtitle(run), glossary=facts.GLOSSARY,
    )  # fmt: skip
    return page.strip() + "\n"


def _subtitle(run: Run) -> str:
    summary = run.summary
    if not summary:
        return ""
    parts = [shown_name(summary["model"])] if summary.get("model") else []
    parts.append(facts.method_facts(summary).title)
    adapter = (summary.get("spec") or {}).get("adapter")
    if adapter:
        parts.append("frozen encoder" if adapter == "none" else f"encoder tuned ({adapter})")
    return " · ".join(parts)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("aifs_peft.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
