"""The model card of a trained adapter, rendered from its result summary and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from aifs_peft.report import facts, markdown
from aifs_peft.report.contact import SHEETS, sheet_path
from aifs_peft.report.markdown import Markdown, bullets, code
from aifs_peft.report.numbers import interval_text, percent, value_of
from aifs_peft.report.publish import on_hub, shown_name
from aifs_peft.report.usage import EMBEDDED, modality_of, snippets

TAGS = ("aifs", "spurious-correlations", "worst-group-accuracy")
_METRICS = {
    "average_accuracy": "accuracy",
    "worst_group_accuracy": "worst_group_accuracy",
    "accuracy": "accuracy",
    "worst_class_accuracy": "worst_class_accuracy",
}


def group_table(metrics: Mapping[str, Any]) -> str:
    """A Markdown table of the groups: name, `n`, accuracy, exact interval.

    Args:
        metrics: as `aifs_peft.metrics.group_metrics` gives them, NaN or None where something is undefined.

    Example:
        >>> print(group_table({"groups": {"a": {"n": 4, "accuracy": 0.75, "accuracy_interval": [0.2, 0.99]}}}))
        | group | n | accuracy | 95 % interval |
        |---|---:|---:|---:|
        | a | 4 | 75.0 % | 20.0 % to 99.0 % |
    """
    rows = [
        (name, entry["n"], percent(entry["accuracy"]), interval_text(entry.get("accuracy_interval")))
        for name, entry in metrics["groups"].items()
    ]
    level = f"{100 * (metrics.get('confidence') or 0.95):g} % interval"
    return markdown.table(("group", "n", "accuracy", level), rows)


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """A Markdown table of plain training and the method on the same cells, each with its interval.

    Args:
        comparison: `summary["comparison"]`: "rows" of "cell", "n", "plain" and "method", then "average" and "worst".
    """
    shown = facts.sides(comparison)
    rows = [(row["cell"], row["n"], *_sides(row, shown)) for row in comparison["rows"]]
    rows += [(name, "", *_sides(comparison[name], shown)) for name in ("average", "worst") if comparison.get(name)]
    return markdown.table(("cell", "n", *(name for _, name in shown)), rows)


def _sides(row: Mapping[str, Any], shown: Sequence[tuple[str, str]]) -> list[str]:
    values = [row.get(key) or {} for key, _ in shown]
    return [f"{percent(v.get('accuracy'))} ({interval_text([v.get('low'), v.get('high')])})" for v in values]


def render_card(summary: Mapping[str, Any], folder: str | Path | None = None) -> ModelCard:
    """The card of one run: what was found, the result, what was used, how to load it, what it does not show.

    Args:
        summary: what `aifs_peft.experiments.run_finetune` or `summary_from_trainer` gives; its `repo_id` names the Hub
            repository.
        folder: of the run, for the contact sheets in it; None leaves them out.

    Returns:
        A card whose metadata the Hub accepts: a local path is neither base model nor data set there.
    """
    method = facts.method_facts(summary)
    text = (
        markdown.environment()
        .get_template("card.md.j2")
        .render(
            card_data=Markdown(_metadata(summary).to_yaml()),
            title=f"{method.title} adapter for {_base_name(summary)} on {shown_name(summary['dataset'])}",
            method={"title": method.title, "name": code(method.name)},
            paper=f"; {method.paper}" if method.paper else "",
            result=facts.result_sentence(summary),
            pictures=_pictures(folder),
            table=_results(summary),
            notes=" ".join([facts.cells_sentence(summary), *_result_sentences(summary)]),
            used=bullets(_used(summary)),
            snippets=[{"title": s.title, "code": Markdown(s.code)} for s in snippets(summary)],
            limits=bullets(facts.limits(summary)),
        )
    )
    return ModelCard(text)


def _metadata(summary: Mapping[str, Any]) -> ModelCardData:
    model, dataset = summary.get("model"), str(summary["dataset"])
    task = str(summary["task"])
    numbers = summary.get("metrics") or summary.get("evaluation") or {}
    results = [
        EvalResult(
            task_type=task,
            dataset_type=shown_name(dataset),
            dataset_name=shown_name(dataset),
            dataset_split="test" if summary.get("metrics") else "validation",
            metric_type=kind,
            metric_value=round(value, 4),
        )
        for name, kind in _METRICS.items()
        if (value := value_of(numbers.get(name))) is not None
    ]
    return ModelCardData(
        base_model=str(model) if on_hub(summary, "model") else None,
        datasets=summary.get("datasets") or ([dataset] if "/" in dataset and on_hub(summary, "dataset") else None),
        language=summary.get("language"),
        library_name="peft",
        license=summary.get("license"),
        pipeline_tag=task,
        tags=[*TAGS, *summary.get("tags", ())],
        model_name=summary.get("model_name") or f"AIFS {shown_name(dataset)}",
        eval_results=results or None,
    )


def _results(summary: Mapping[str, Any]) -> str | None:
    if summary.get("comparison"):
        return comparison_table(summary["comparison"])
    if summary.get("metrics"):
        return group_table(summary["metrics"])
    numbers = {name: value_of(value) for name, value in (summary.get("evaluation") or {}).items()}
    rows = [(name.replace("_", " "), percent(value)) for name, value in numbers.items() if value is not None]
    return markdown.table(("on the evaluation set", "value"), rows) if rows else None


def _result_sentences(summary: Mapping[str, Any]) -> list[str]:
    comparison = summary.get("comparison")
    if comparison:
        note = (summary.get("baseline") or {}).get("note")
        told = [facts.told_as_sentence(text) for text in comparison.get("sentences", ())]
        return [*told, *([facts.told_as_sentence(f"Plain training: {note}")] if note else [])]
    metrics = summary.get("metrics")
    if not metrics:
        return []
    worst = metrics.get("worst_group")
    named = f" ({worst})" if worst is not None else ""
    values = [percent(value_of(metrics.get(name))) for name in ("average_accuracy", "worst_group_accuracy")]
    return [f"Average accuracy {values[0]}; worst-group accuracy {values[1]}{named}."]


def _base_name(summary: Mapping[str, Any]) -> str:
    return shown_name(summary["model"]) if summary.get("model") else "a model of the user's"


def _base_sentence(summary: Mapping[str, Any]) -> str:
    model = summary.get("model")
    if model is None:
        return "A model that is neither on the Hub nor in this package."
    licence = summary.get("base_license") or ("apache-2.0" if model in EMBEDDED else None)
    told = f"Licence: {licence}." if licence else "Licence: see its own card."
    if model in EMBEDDED:
        return f"{model}, which ships with aifs_peft. {told}"
    if modality_of(summary) == "features":
        return f"{shown_name(model)}, trained here and saved beside the adapter." if model in (
            "mlp", "identity") else f"{shown_name(model)}, a local folder."  # fmt: skip
    where = _revision(summary) if on_hub(summary, "model") else ", a local folder"
    return f"{shown_name(model)}{where}. {told}"


def _revision(summary: Mapping[str, Any]) -> str:
    """Which version of the base model on the Hub, as far as the run recorded it."""
    known = summary.get("model_revision") or {}
    asked, commit = known.get("asked"), known.get("commit")
    words = [f"revision {shown_name(asked)}"] if asked and asked != commit else []
    words += [f"commit {shown_name(commit)}"] if commit else []
    return f", {', '.join(words)}" if words else ""


def _used(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Supervision, selection, base, data; then seed, time, adapter and versions, what there is of them."""
    out = [
        ("Supervision in training", facts.supervision_sentence(summary)),
        *facts.beside_labels(summary),
        ("Selection of the model", facts.selection_sentence(summary)),
        ("Base model", _base_sentence(summary)),
        ("Data", facts.data_sentence(summary)),
    ]
    adapter = (summary.get("spec") or {}).get("adapter")
    if adapter:
        out.append(("Encoder", "frozen" if adapter == "none" else f"tuned ({adapter})"))
    if summary.get("seed") is not None:
        seconds = summary.get("seconds")
        out.append(("Seed", f"{summary['seed']}" + (f"; {seconds:.0f} s of training" if seconds is not None else "")))
    versions = (summary.get("provenance") or {}).get("versions") or {}
    if versions:
        out.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)))
    return out


def _pictures(folder: str | Path | None) -> list[dict[str, str]]:
    if folder is None:
        return []
    return [
        {"path": Markdown(sheet_path(kind)), "alt": alt}
        for kind, alt in SHEETS.items()
        if (Path(folder) / sheet_path(kind)).is_file()
    ]
