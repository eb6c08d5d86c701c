"""What is said of an experiment, part by part, from its results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifs_peft.bench.ablation import ablation_sentences, ablation_table
from aifs_peft.bench.claims import Claim, check_claims, claims_sentences, claims_table
from aifs_peft.bench.curves import label_curves, strength_curves
from aifs_peft.bench.experiment import PACKAGE, DataEntry, Experiment
from aifs_peft.bench.formatting import listed
from aifs_peft.bench.group_labels import label_sentences, label_table
from aifs_peft.bench.overview import label_free, overview_table, ranks_of
from aifs_peft.bench.results import read_results
from aifs_peft.bench.statistics import Comparison, Ranks, compare
from aifs_peft.bench.strength import strength_sentences, strength_table
from aifs_peft.bench.tables import WORST, Row, dataset_table, markdown_table, summarise

NOTHING = "Not run yet."
# This library's methods without group labels.
OWN = ("aifs-closed", "aifs")


@dataclass(frozen=True)
class Report:
    """What there is to say of an experiment.

    Args:
        experiment: which.
        found: contents of its result files.
        rows: one per data set and method.
        comparisons: of its focus to the other methods; none without one.
    """

    experiment: Experiment
    found: list[dict[str, Any]]
    rows: list[Row]
    comparisons: list[Comparison]


def read_report(experiment: Experiment, results: str | Path) -> Report:
    """Read what an experiment has by now.

    Args:
        experiment: whose results.
        results: folder of all results.
    """
    return report_of(experiment, read_results(results, experiment))


def report_of(experiment: Experiment, found: list[dict[str, Any]]) -> Report:
    """The same of results that were read.

    Args:
        experiment: whose results.
        found: contents of files.
    """
    comparisons = [] if experiment.focus is None else compare(values_of(found), experiment.focus)
    return Report(experiment, found, summarise(found), comparisons)


def markdown_report(report: Report) -> str:
    """All that is said of an experiment in one text.

    Args:
        report: of `read_report`.
    """
    parts = [told_progress(report), overview_part(report), claims_part(report)]
    parts += [text for text in [curves_part(report)] if text != NOTHING]
    parts += [markdown_table(report.rows, report.comparisons), failures(report.rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def told_progress(report: Report) -> str:
    """How many runs are done, where some are and some are missing.

    Args:
        report: of `read_report`.
    """
    experiment = report.experiment
    asked = len(experiment.data) * len(experiment.methods) * len(experiment.seeds)
    if len(report.found) in (0, asked):
        return ""
    without = [entry.name for entry in experiment.data if not any(row.dataset == entry.name for row in report.rows)]
    told = f"{len(report.found)} of {asked} runs are done."
    return f"{told} No run yet of {listed(without)}." if without else told


def overview_part(report: Report) -> str:
    """Methods by data sets, and their ranks.

    Args:
        report: of `read_report`.
    """
    if not report.rows:
        return NOTHING
    ranks = ranks_of(report.rows)
    return overview_table(report.experiment, report.rows) + ("" if ranks is None else f"\n\n{ranks_sentence(ranks)}")


def claims_part(report: Report) -> str:
    """The claims: a sentence each, and the table of data sets.

    Args:
        report: of `read_report`.
    """
    focus = report.experiment.focus
    claims = check_claims(report.found, focus) if focus is not None else []
    if not claims:
        return ""
    told = f"Of `{focus}` {_held(claims)}."
    for name in (n for n in OWN if n != focus and n in {row.method for row in report.rows}):
        told += f" With `{name}` in its place {_held(check_claims(report.found, name))}."
    found = {r.dataset: f"{r.found} of {r.seeds}" for r in report.rows if r.method == focus and r.found is not None}
    shown = claims_table(claims, found or None)
    sentences = [*found_sentences(report), *claims_sentences(claims)]
    return f"{_bullets(sentences)}\n\n{told}\n\n{shown}"


def found_sentences(report: Report) -> list[str]:
    """On which data sets the focus finds a shortcut: one sentence, or none where it does not look for any.

    Args:
        report: of `read_report`.
    """
    rows = [row for row in report.rows if row.method == report.experiment.focus and row.found is not None and row.seeds]
    if not rows:
        return []
    kinds = {
        "in every draw": [row for row in rows if row.found == row.seeds],
        "in some": [row for row in rows if row.found not in (0, row.seeds)],
        "in none": [row for row in rows if not row.found],
    }
    told = [f"{kind} on {listed([row.dataset for row in of])}" for kind, of in kinds.items() if of]
    return [f"Finds a shortcut {'; '.join(told)}."]


def _held(claims: Sequence[Claim]) -> str:
    held = [claim for claim in claims if claim.holds]
    return f"{len(held)} of {len(claims)} hold, {sum(claim.sure for claim in held)} of them for the whole interval"


def ablation_part(report: Report) -> str:
    """What each variant is worth beside the focus.

    Args:
        report: of `read_report`.
    """
    if not report.rows:
        return NOTHING
    told = _bullets(ablation_sentences(report.comparisons))
    return f"{told}\n\n{ablation_table(report.experiment, report.rows, report.comparisons)}".lstrip()


def curves_part(report: Report) -> str:
    """Curves against strength and against known groups, where the experiment has such.

    Args:
        report: of `read_report`.
    """
    parts = []
    by_strength = strength_curves(report.experiment, report.found)
    if by_strength:
        parts += [_bullets(strength_sentences(by_strength)), strength_table(by_strength)]
    curves = label_curves(report.experiment, report.found)
    if curves:
        focus = report.experiment.focus
        if focus is not None:
            own = {dataset: cells.get(focus, {}) for dataset, cells in values_of(report.found).items()}
            parts.append(_bullets(label_sentences(curves, focus, own)))
        parts.append(label_table(curves))
    return "\n\n".join(part for part in parts if part) or NOTHING


def tables_part(report: Report, level: int = 3) -> str:
    """The whole table of every data set under a heading of its own.

    Args:
        report: of `read_report`.
        level: of the headings.
    """
    if not report.rows:
        return NOTHING
    parts = []
    for data in report.experiment.data:
        rows = [row for row in report.rows if row.dataset == data.name]
        parts.append(f"{'#' * level} {data.name}\n\n{described(data)}")
        parts += [dataset_table(rows, report.comparisons), failures(rows)] if rows else [NOTHING]
    return "\n\n".join(part for part in parts if part)


def described(data: DataEntry) -> str:
    """Where the latents of a data set come from, in a few words.

    Args:
        data: an entry of an experiment.

    Example:
        >>> described(DataEntry("d", "digits_on_scenes", aligned_share=0.95, encoder=Encoder("tiny_clip")))
        '`digits_on_scenes`, 95 % aligned; encoder `tiny_clip`.'
    """
    words = [f"`{data.dataset}`"]
    words += [] if data.aligned_share is None else [f"{100 * data.aligned_share:g} % aligned"]
    words += [f"`{name}={value!r}`" for name, value in data.options.items()]
    encoder = data.encoder
    if encoder.model is None:
        return f"{', '.join(words)}; its features are the latents."
    model = encoder.model.removeprefix(PACKAGE).removesuffix("/model").rpartition("/")[2]
    side = "" if encoder.image_size is None else f" at {encoder.image_size} px"
    return f"{', '.join(words)}; encoder `{model}`{side}."


def failures(rows: Sequence[Row]) -> str:
    """Which runs could not be done, and why.

    Args:
        rows: of `summarise`.
    """
    return _bullets([
        f"{row.dataset}, `{row.method}`: {row.failed[0]} of {row.failed[0] + row.seeds} runs could not be done "
        f"({row.failed[1].rstrip('.')})."
        for row in rows
        if row.failed[0]
    ])  # fmt: skip


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def ranks_sentence(ranks: Ranks) -> str:
    """Ranks over data sets, as sentences.

    Args:
        ranks: of `aifs_peft.bench.statistics.rank`.
    """
    text = (
        f"Over {len(ranks.datasets)} data sets two methods differ at 5 % where their average ranks are "
        f"{ranks.critical:.1f} apart (Nemenyi); Friedman's test that all are alike: p = {ranks.p:.2g}."
    )
    left = ", ".join(f"`{name}`" for name in ranks.left_out)
    return f"{text} Not ranked, since a data set lacks them: {left}." if left else text


def short_sentences(report: Report) -> list[str]:
    """What a reader wants to know first: who is best without group labels, and which claims hold where.

    Args:
        report: of `read_report`, of an experiment with a focus.
    """
    focus, rows = report.experiment.focus, report.rows
    claims = check_claims(report.found, focus) if focus is not None else []
    if focus is None or not claims:
        return []
    free = label_free(rows)
    datasets = [d for d in dict.fromkeys(row.dataset for row in rows) if _mean(rows, d, focus) is not None]
    best = [d for d in datasets if all((_mean(rows, d, n) or 0.0) <= (_mean(rows, d, focus) or 0.0) for n in free)]
    text = (
        f"Best worst group of the {len(free)} methods without group labels: on {len(best)} of {len(datasets)} data sets"
    )
    ranks = ranks_of(rows)
    if ranks is not None and focus in ranks.methods:
        place = ranks.methods.index(focus)
        others = [(n, a) for n, a in zip(ranks.methods, ranks.average, strict=True) if n in free and n != focus]
        text += (
            f"; average rank {ranks.average[place]:.1f} (of the others the best, `{others[0][0]}`, {others[0][1]:.1f})"
        )
    return [f"{text}.", *found_sentences(report), *claims_sentences(claims)]


def _mean(rows: Sequence[Row], dataset: str, method: str) -> float | None:
    row = next((row for row in rows if (row.dataset, row.method) == (dataset, method)), None)
    return None if row is None or WORST not in row.values else row.values[WORST].mean


def values_of(found: list[dict[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Worst groups by data set, method and seed.

    Args:
        found: results.
    """
    values: dict[str, dict[str, dict[int, float]]] = {}
    for result in found:
        cells = values.setdefault(result["dataset"], {}).setdefault(result["method"], {})
        if not result["failed"]:
            cells[result["seed"]] = result["metrics"][WORST]
    return values
