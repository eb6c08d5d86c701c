"""Everything that is rendered of an experiment, into one folder, from its results alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aifs_peft.bench.claims import check_claims, claims_table
from aifs_peft.bench.experiment import Experiment
from aifs_peft.bench.figures import critical_difference, worst_against_average
from aifs_peft.bench.results import read_results
from aifs_peft.bench.statistics import Ranks, compare, rank
from aifs_peft.bench.tables import Row, comparison_table, csv_table, latex_table, markdown_table, summarise
from aifs_peft.errors import DataNotFoundError

WORST = "worst_group_accuracy"


def render(experiment: Experiment, results: str | Path, folder: str | Path) -> list[Path]:
    """Write tables and figures.

    Args:
        experiment: whose results.
        results: folder of all results.
        folder: to write into; made where it is missing.

    Returns:
        The files that were written.

    Raises:
        DataNotFoundError: there are no results yet.
    """
    folder = Path(folder)
    found = read_results(results, experiment)
    if not any(not result["failed"] for result in found):
        raise DataNotFoundError(
            f"experiment {experiment.name!r} has no results in {results} yet; run it without --tables first"
        )
    rows = summarise(found)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        ".md": markdown_report(experiment, found),
        ".tex": latex_table(rows),
        ".csv": csv_table(found),
    }
    written = []
    for ending, text in texts.items():
        path = folder / f"{experiment.name}{ending}"
        path.write_text(text, encoding="utf-8")
        written.append(path)
    written.append(worst_against_average(rows, folder / f"{experiment.name}_worst_average.png", experiment.focus))
    ranks = ranks_of(rows)
    if ranks is not None:
        written.append(critical_difference(ranks, folder / f"{experiment.name}_critical_difference.png"))
    return written


def markdown_report(experiment: Experiment, found: list[dict[str, Any]]) -> str:
    """All that is said of an experiment: tables, paired tests, claims, ranks.

    Args:
        experiment: for its focus and its rule.
        found: its results.
    """
    rows = summarise(found)
    parts = [markdown_table(rows)]
    failures = [
        f"- {row.dataset}, `{row.method}`: {row.failed[0]} of {row.failed[0] + row.seeds} runs could not be done "
        f"({row.failed[1]})."
        for row in rows
        if row.failed[0]
    ]
    parts += ["\n".join(failures)] if failures else []
    if experiment.focus is not None:
        comparisons = compare(values_of(found), experiment.focus)
        if comparisons:
            said = f"`{experiment.focus}` minus each other method, points of worst-group accuracy, paired by seed:"
            parts.append(f"{said}\n\n{comparison_table(comparisons)}")
        claims = check_claims(rows, experiment.focus)
        parts += [claims_table(claims)] if claims else []
    ranks = ranks_of(rows)
    if ranks is not None:
        parts.append(ranks_sentence(ranks))
    return "\n\n".join(parts) + "\n"


def ranks_sentence(ranks: Ranks) -> str:
    """Ranks over data sets, as sentences.

    Args:
        ranks: of `aifs_peft.bench.statistics.rank`.
    """
    told = ", ".join(f"`{name}` {value:.1f}" for name, value in zip(ranks.methods, ranks.average, strict=True))
    text = (
        f"Average rank by worst group over {len(ranks.datasets)} data sets: {told}. Two methods differ at 5 % where "
        f"their ranks are {ranks.critical:.2f} apart (Nemenyi); Friedman's test that all are alike: p = {ranks.p:.3g}."
    )
    left = ", ".join(f"`{name}`" for name in ranks.left_out)
    return f"{text} Not ranked, since a data set lacks them: {left}." if left else text


def ranks_of(rows: list[Row]) -> Ranks | None:
    """Ranks of methods over data sets by mean worst group.

    Args:
        rows: of `summarise`.
    """
    means: dict[str, dict[str, float]] = {}
    for row in rows:
        means.setdefault(row.dataset, {})
        if WORST in row.values:
            means[row.dataset][row.method] = row.values[WORST].mean
    return rank(means)


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
