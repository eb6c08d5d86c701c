"""What is rendered of results: numbers as they are in the files, tests as scipy does them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_experiment import write_experiment
from PIL import Image
from scipy import stats

from aifs_peft.bench import read_experiment, read_results
from aifs_peft.bench.claims import check_claims, claims_sentences, claims_table
from aifs_peft.bench.experiment import Experiment
from aifs_peft.bench.overview import ranks_of
from aifs_peft.bench.parts import markdown_report, ranks_sentence, read_report, report_of
from aifs_peft.bench.rendering import render
from aifs_peft.bench.results import KEYS, asked, result_path, write_result
from aifs_peft.bench.statistics import compare, holm, paired, rank
from aifs_peft.bench.tables import csv_table, latex_table, markdown_table, summarise
from aifs_peft.errors import DataNotFoundError
from aifs_peft.metrics import mean_interval

METHODS = ["aifs-closed", "erm", "elrep", "gdro-oracle"]
WORST = {"aifs-closed": 0.8, "erm": 0.4, "elrep": 0.5, "gdro-oracle": 0.79}
DATASETS = ("one", "two", "three")


def content(experiment: Experiment, dataset: int, method: str, seed: int) -> dict[str, Any]:
    """A result with a worst group of the method's level, a little different for each seed."""
    data = experiment.data[dataset]
    entry = next(entry for entry in experiment.methods if entry.name == method)
    worst = WORST[method] + 0.01 * ((seed * 7 + dataset * 3 + len(method)) % 5) / 5
    metrics = {
        "worst_group_accuracy": worst, "worst_group_roc_auc": None, "average_accuracy": 0.9,
        "adjusted_average_accuracy": 0.9, "equal_opportunity_difference": 0.005,
    }  # fmt: skip
    known = {
        "format": 1, "experiment": experiment.name, "dataset": data.name, "method": method, "seed": seed,
        "supervision": "groups" if "oracle" in method else "none", "asked": asked(experiment, data, entry),
        "failed": None, "metrics": metrics, "wall_seconds": 1.5, "cpu_seconds": 1.5, "peak_memory_bytes": 2_000_000,
        "oracle_selection": {"metrics": {"worst_group_accuracy": worst + 0.005}},
    }  # fmt: skip
    return {**dict.fromkeys(KEYS), **known}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = [{"name": name, "dataset": "digits_on_scenes"} for name in DATASETS]
    path = write_experiment(tmp_path, data=data, methods=METHODS, seeds=[0, 1, 2], focus="aifs-closed")
    experiment = read_experiment(path)
    for i, name in enumerate(DATASETS):
        for method in METHODS:
            for seed in experiment.seeds:
                write_result(
                    result_path(tmp_path / "results", "toy", name, method, seed), content(experiment, i, method, seed)
                )
    return tmp_path


def results_of(folder: Path) -> list[dict[str, Any]]:
    return read_results(folder / "results", read_experiment(folder / "toy.json"))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.02, 0.03, 0.5]) == [0.04, 0.06, 0.06, 0.5]
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_paired_differences_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 5), rng.normal(0, 1, 5)
    mean, low, high, p = paired(a.tolist(), b.tolist())
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert mean == pytest.approx((a - b).mean())
    assert (low, high, p) == pytest.approx((interval.low, interval.high, expected.pvalue))
    assert paired([0.5], [0.25]) == (0.25, None, None, None)
    assert paired([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25, 0.25, 0.0)
    assert paired([0.5, 0.5], [0.5, 0.5])[3] == 1.0


def test_comparisons_use_the_seeds_that_both_have() -> None:
    values = {"d": {"a": {0: 0.9, 1: 0.8, 2: 0.7}, "b": {1: 0.5, 2: 0.45, 3: 0.1}, "c": {7: 0.0}}}
    found = compare(values, "a")
    assert [(c.other, c.seeds) for c in found] == [("b", 2)]
    assert found[0].difference == pytest.approx(0.275)
    assert found[0].corrected == pytest.approx(found[0].p)


def test_ranks_and_the_critical_difference() -> None:
    # Demsar (2006), section 3.2.2: five classifiers on 30 data sets have q = 2.728 at 5 %; here by its formula.
    means = {f"d{i}": {"a": 0.9, "b": 0.5 + i / 100, "c": 0.5 - i / 100, "e": 0.1} for i in range(1, 11)}
    found = rank(means)
    assert found is not None
    assert found.methods == ["a", "b", "c", "e"]
    assert found.average == [1, 2, 3, 4]
    assert found.critical == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 10)), abs=2e-3)
    assert found.alike() == [(0, 1), (1, 2), (2, 3)]
    assert found.p < 1e-4
    means["d1"].pop("e")
    assert rank(means).left_out == ["e"]
    assert "Not ranked, since a data set lacks them: `e`" in ranks_sentence(rank(means))
    assert rank({"d1": means["d2"]}) is None


def test_tables_hold_the_means_and_intervals_of_the_files(folder: Path) -> None:
    found = results_of(folder)
    rows = summarise(found)
    own = [r["metrics"]["worst_group_accuracy"] for r in found if (r["dataset"], r["method"]) == ("two", "erm")]
    mean, _, high = mean_interval(own)
    text = markdown_table(rows)
    assert f"{mean:.3f} ± {high - mean:.3f}" in text
    assert text.index("`aifs-closed`") < text.index("`elrep`") < text.index("`erm`")
    assert text.count("chosen by the oracle") == 3
    latex = latex_table(rows)
    assert latex.count(r"\begin{tabular}{llrrrrrrrr}") == 3
    assert r"$\pm$" in latex
    assert "±" not in latex
    lines = list(csv.DictReader(io.StringIO(csv_table(found))))
    assert len(lines) == len(found) == 36
    assert float(lines[0]["worst_group_accuracy"]) == found[0]["metrics"]["worst_group_accuracy"]
    assert lines[0]["worst_group_roc_auc"] == ""
    json.dumps([row.as_json() for row in rows], allow_nan=False)


def test_claims_are_held_against_the_numbers(folder: Path) -> None:
    found = results_of(folder)
    claims = {(c.text, c.dataset): c for c in check_claims(found, "aifs-closed")}
    assert len(claims) == 4 * 3
    assert all(c.holds and c.sure for c in claims.values())
    assert claims_sentences(list(claims.values()))[0] == (
        "**Above `elrep` by more than 2 points**: holds on all 3 data sets."
    )
    for run in found:
        if run["method"] == "gdro-oracle" and run["dataset"] == "two":
            run["oracle_selection"]["metrics"]["worst_group_accuracy"] = 0.95
        if run["method"] == "elrep" and run["dataset"] == "one":
            run["metrics"]["worst_group_accuracy"] = 0.795
    told = check_claims(found, "aifs-closed")
    broken = {(c.text, c.dataset) for c in told if not c.holds}
    assert broken == {("within 1 point of the tuned oracle", "two"), ("above `elrep` by more than 2 points", "one")}
    assert claims_table(told).count("**no**") == 2
    assert claims_table(told).splitlines()[2].startswith("| one | **no**, +")
    failed = next(text for text in claims_sentences(told) if "oracle" in text)
    assert failed.startswith("**Within 1 point of the tuned oracle**: holds on 2 of 3 data sets; not on two (-14.")
    assert failed.endswith("(worst group minus the oracle's, in points).")


def test_a_claim_is_paired_by_seed_and_says_whether_its_whole_interval_agrees(folder: Path) -> None:
    found = results_of(folder)
    for run in found:
        if run["dataset"] == "one" and run["method"] in ("aifs-closed", "erm"):
            level = {0: 0.5, 1: 0.6, 2: 0.7}[run["seed"]]
            run["metrics"]["worst_group_accuracy"] = level + (0.0 if run["method"] == "erm" else 0.02 * run["seed"])
    claim = next(c for c in check_claims(found, "aifs-closed") if c.text.startswith("not below") and c.dataset == "one")
    interval = stats.ttest_rel([0.5, 0.62, 0.74], [0.5, 0.6, 0.7]).confidence_interval(0.95)
    assert (claim.value, claim.low, claim.high) == pytest.approx((0.02, interval.low, interval.high))
    assert claim.holds
    assert not claim.sure


def test_everything_is_rendered_from_the_files_alone(folder: Path) -> None:
    experiment = read_experiment(folder / "toy.json")
    written = render(experiment, folder / "results", folder / "out")
    assert sorted(path.name for path in written) == [
        "toy.csv", "toy.md", "toy.tex", "toy_critical_difference.png", "toy_worst_average.png",
    ]  # fmt: skip
    for path in written:
        if path.suffix == ".png":
            colours = Image.open(path).convert("L").getextrema()
            assert colours[0] < 100 < colours[1]
    report = (folder / "out" / "toy.md").read_text()
    assert report == markdown_report(read_report(experiment, folder / "results"))
    assert "Of `aifs-closed` 12 of 12 hold, 12 of them for the whole interval." in report
    comparisons = compare({"one": {"aifs-closed": {0: 0.9, 1: 0.8}, "erm": {0: 0.5, 1: 0.41}}}, "aifs-closed")
    shown = markdown_table(summarise(results_of(folder)), comparisons)
    assert "| method | group labels | worst group | `aifs-closed` minus it, points |" in shown
    assert shown.count("| **+39.5 ± 6.4** |") == 1
    assert ranks_of(summarise(results_of(folder))).methods[0] == "aifs-closed"


def test_failed_runs_are_named(folder: Path) -> None:
    experiment = read_experiment(folder / "toy.json")
    found = results_of(folder)
    for run in found:
        if run["dataset"] == "one" and run["method"] == "elrep":
            run |= {
                "failed": "too few examples",
                "metrics": None,
                "oracle_selection": None,
                "wall_seconds": None,
                "cpu_seconds": None,
            }
    report = markdown_report(report_of(experiment, found))
    assert "- one, `elrep`: 3 of 3 runs could not be done (too few examples)." in report
    assert "cannot be run" in markdown_table(summarise(found))
    assert "Not ranked, since a data set lacks them: `elrep`" in report


def test_without_results_nothing_is_rendered(tmp_path: Path) -> None:
    experiment = read_experiment(write_experiment(tmp_path))
    with pytest.raises(DataNotFoundError, match="has no results"):
        render(experiment, tmp_path / "results", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert markdown_table([]) == "There are no results yet."
