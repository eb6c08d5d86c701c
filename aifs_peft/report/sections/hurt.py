"""The section *Who is hurt, did it help?*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aifs_peft.report import facts
from aifs_peft.report.numbers import percent, short_interval, value_of
from aifs_peft.report.plots import draw_cells
from aifs_peft.report.plots.cells import cells_words
from aifs_peft.report.sections.run import Run, picture

MOST_CELLS = 16
MINUS = "\u2212"


def hurt(run: Run) -> dict[str, Any] | None:
    """Before and after per cell; what an audit expects of plain training, and of a given model; None without either."""
    out: dict[str, Any] = {"lead": [], "sentences": [], "figures": [], "table": None, "harm": _harm(run.audit or {})}
    comparison, metrics = run.summary.get("comparison"), run.summary.get("metrics")
    if comparison:
        _compare(out, run)
    elif metrics:
        _only_after(out, run, metrics)
    evaluated = run.summary.get("evaluation") or {}
    if not comparison and not metrics:
        out["sentences"] += [
            f"{name.replace('_', ' ').capitalize()} on the evaluation set: {percent(value)}."
            for name, value in evaluated.items()
            if name.endswith("accuracy") and value_of(value) is not None
        ]
        if out["sentences"]:
            out["sentences"].append(facts.cells_sentence(run.summary))
    return out if out["sentences"] or out["table"] or out["harm"] else None


def _compare(out: dict[str, Any], run: Run) -> None:
    comparison = run.summary["comparison"]
    sides = facts.sides(comparison)
    rows = list(comparison["rows"])
    ends = [{"cell": name, "n": None, **comparison[name]} for name in ("average", "worst") if comparison.get(name)]
    shown = [*rows[:MOST_CELLS], *ends[:1]]
    title = "Accuracy before and after" if len(sides) == 2 else "Accuracy of this model"
    out["figures"] = [_cells_figure(shown, sides, title)]
    out["lead"] = [facts.told_as_sentence(text) for text in comparison.get("sentences", ())]
    note = (run.summary.get("baseline") or {}).get("note")
    told = [facts.told_as_sentence(f"Plain training: {note}")] if note else []
    out["sentences"] = [facts.cells_sentence(run.summary), *told]
    out["table"] = {
        "caption": "Accuracy in per cent, below it the 95 % interval",
        "header": ["cell", *(name for _, name in sides), *(["change"] if len(sides) == 2 else [])],
        "rows": [_compared(row, sides) for row in [*rows, *ends]],
    }


def _compared(row: Mapping[str, Any], sides: Sequence[tuple[str, str]]) -> list[Any]:
    cells: list[Any] = [(str(row["cell"]), f"n = {row['n']:,}" if row.get("n") is not None else "")]
    values = []
    for key, _ in sides:
        side = row.get(key) or {}
        values.append(value_of(side.get("accuracy")))
        cells.append((_points(values[-1]), short_interval([side.get("low"), side.get("high")])))
    if len(values) < 2:
        return cells
    before, after = values
    change = "-" if before is None or after is None else f"{100 * (after - before):+.1f}".replace("-", MINUS)
    return [*cells, change]


def _points(value: Any) -> str:
    known = value_of(value)
    return "-" if known is None else f"{100 * known:.1f}"


def _only_after(out: dict[str, Any], run: Run, metrics: Mapping[str, Any]) -> None:
    rows = [
        {
            "cell": name,
            "n": entry["n"],
            "method": {"accuracy": entry["accuracy"], **_ends(entry.get("accuracy_interval"))},
        }
        for name, entry in metrics["groups"].items()
    ]
    average = {"accuracy": value_of(metrics.get("average_accuracy")), **_ends(metrics.get("average_accuracy_interval"))}
    rows.append({"cell": "average", "n": metrics.get("n"), "method": average})
    shown = [*rows[: MOST_CELLS - 1], rows[-1]] if len(rows) > MOST_CELLS else rows
    out["figures"] = [_cells_figure(shown, [("method", "this model")], "Accuracy of this model per group")]
    out["sentences"] = [facts.cells_sentence(run.summary), "Plain training was not measured beside it in this run."]
    out["table"] = {
        "caption": "Accuracy per group in per cent",
        "header": ["group", "n", "accuracy", "95 % interval"],
        "rows": [
            [str(r["cell"]), f"{r['n']:,}" if r["n"] is not None else "", _points(r["method"]["accuracy"]),
             short_interval([r["method"]["low"], r["method"]["high"]])]
            for r in rows
        ],
    }  # fmt: skip


def _ends(interval: Sequence[Any] | None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def _cells_figure(rows: Sequence[Mapping[str, Any]], sides: Sequence[tuple[str, str]], title: str) -> dict[str, Any]:
    return picture(title, cells_words(rows, sides), 0.95 + 0.42 * len(rows), lambda ax: draw_cells(ax, rows, sides),
                   "Lines are 95 % intervals.")  # fmt: skip


def _harm(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the audit says of plain training, and of the predictions of a model that the user has."""
    out = []
    for key, name in (("harm", "Expected of plain training"), ("model_harm", "The model you gave")):
        harm = audit.get(key)
        if harm:
            out.append({"title": name, "sentence": str(harm["sentence"]), "table": _harm_table(harm)})
    return out


def _harm_table(harm: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [name, f"{rate['n']:,}", _points(rate.get("accuracy")), short_interval([rate.get("low"), rate.get("high")])]
        for name in ("aligned", "conflicting")
        if (rate := harm.get(name))
    ]
    return {"caption": "Accuracy in per cent", "header": ["examples", "n", "accuracy", "95 % interval"], "rows": rows}
