"""What is read off results: the first table, what parts are worth, curves; with numbers that are known beforehand."""

from pathlib import Path
from typing import Any

import pytest
from bench_experiment import write_experiment
from PIL import Image
from scipy import stats

from aifs_peft.bench import read_experiment
from aifs_peft.bench.curves import label_curves, strength_curves, strength_of
from aifs_peft.bench.experiment import Experiment
from aifs_peft.bench.parts import (
    NOTHING,
    Report,
    ablation_part,
    claims_part,
    curves_part,
    overview_part,
    report_of,
    short_sentences,
    tables_part,
    told_progress,
)
from aifs_peft.bench.rendering import draw_figures
from aifs_peft.bench.results import supervision
from aifs_peft.bench.strength import optimum

# A little different for each seed, on average nothing.
NOISE = {0: -0.01, 1: 0.0, 2: 0.01}


def experiment_of(folder: Path, methods: list[Any], datasets: list[dict[str, Any]], **changes: Any) -> Experiment:
    data = [{"dataset": "digits_on_scenes", **entry} for entry in datasets]
    return read_experiment(write_experiment(folder, data=data, methods=methods, seeds=[0, 1, 2], **changes))


def report_with(experiment: Experiment, worst: dict[tuple[str, str], float | dict[int, float] | None]) -> Report:
    """A report whose worst groups are given: a level with noise, one number per seed, or None for what failed."""
    entries = {entry.name: entry for entry in experiment.methods}
    found = []
    for (dataset, method), level in worst.items():
        for seed in experiment.seeds:
            value = level if level is None or isinstance(level, float) else level[seed]
            if isinstance(level, float):
                value = level + NOISE[seed]
            metrics = {
                "worst_group_accuracy": value, "average_accuracy": 0.9, "worst_group_roc_auc": None,
                "adjusted_average_accuracy": 0.9, "equal_opportunity_difference": 0.005,
            }  # fmt: skip
            run = {"dataset": dataset, "method": method, "seed": seed, "supervision": supervision(entries[method])}
            run |= {"failed": "too few" if value is None else None, "metrics": None if value is None else metrics}
            run |= {"oracle_selection": None if value is None else {"metrics": metrics}}
            run["notes"] = {"found": seed > 0} if method == "aifs-closed" else {}
            found.append({**run, "cpu_seconds": 1.0, "wall_seconds": 1.0, "peak_memory_bytes": None})
    return report_of(experiment, found)


def test_the_first_table_sets_oracles_apart_and_marks_the_best_without_labels(tmp_path: Path) -> None:
    methods = ["erm", "aifs-closed", "jtt", "gdro-oracle"]
    experiment = experiment_of(tmp_path, methods, [{"name": "one"}, {"name": "two"}, {"name": "three"}])
    worst: dict[tuple[str, str], Any] = {("one", m): v for m, v in zip(methods, (0.3, 0.7, 0.5, 0.9), strict=True)}
    worst |= {("two", "erm"): 0.6, ("two", "aifs-closed"): 0.5, ("two", "jtt"): None}
    text = overview_part(report_with(experiment, worst))
    lines = text.splitlines()
    assert lines[0] == "| method | one | two |"
    shown = [line.split("|")[1].strip() for line in lines[2:]]
    assert shown == ["`aifs-closed`", "`jtt`", "`erm`", "*told group labels:*", "`gdro-oracle`"]
    assert lines[2] == "| `aifs-closed` | **70.0 ± 2.5** | 50.0 ± 2.5 |"
    assert lines[4] == "| `erm` | 30.0 ± 2.5 | **60.0 ± 2.5** |"
    assert lines[3].endswith("| cannot be run |")
    assert lines[6] == "| `gdro-oracle` | 90.0 ± 2.5 | not run yet |"
    report = report_with(experiment, worst)
    assert told_progress(report) == "21 of 36 runs are done. No run yet of three."
    assert "### three\n\n`digits_on_scenes`; its features are the latents.\n\nNot run yet." in tables_part(report)
    assert "- two, `jtt`: 3 of 3 runs could not be done (too few)." in tables_part(report)


def test_the_table_has_average_ranks_where_there_are_enough_data_sets(tmp_path: Path) -> None:
    methods = ["erm", "aifs-closed", "jtt"]
    experiment = experiment_of(tmp_path, methods, [{"name": name} for name in "abc"], focus="aifs-closed")
    worst: dict[tuple[str, str], Any] = {
        (d, m): v for d in "abc" for m, v in zip(methods, (0.3, 0.7, 0.5), strict=True)
    }
    worst["c", "jtt"] = 0.8
    report = report_with(experiment, worst)
    assert [line.split("|")[-2].strip() for line in overview_part(report).splitlines()[:5]] == [
        "average rank", "---:", "1.3", "1.7", "3.0",
    ]  # fmt: skip
    assert "| a | 2 of 3 |" in claims_part(report)
    assert claims_part(report).startswith("- Finds a shortcut in some on a, b and c.\n- **")
    report.rows[:] = [row for row in report.rows if (row.dataset, row.method) != ("c", "erm")]
    assert "average rank" not in overview_part(report)  # two data sets are left where every method was run
    report = report_with(experiment, worst)
    first = short_sentences(report)[0]
    assert first == (
        "Best worst group of the 3 methods without group labels: on 2 of 3 data sets; average rank 1.3 (of the others "
        "the best, `jtt`, 1.7)."
    )


def test_without_results_every_part_says_so(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path, ["erm", "aifs-closed"], [{"name": "one"}], focus="aifs-closed")
    report = report_of(experiment, [])
    assert [part(report) for part in (overview_part, ablation_part, curves_part, tables_part)] == [NOTHING] * 4
    assert claims_part(report) == told_progress(report) == ""
    assert short_sentences(report) == []
    assert draw_figures(report, tmp_path, "none") == []


def test_what_a_part_is_worth_is_the_paired_difference_to_the_whole(tmp_path: Path) -> None:
    names = ["aifs-closed", "without", "same", "better", "unsteady"]
    methods = ["aifs-closed", *({"name": n, "method": "aifs-closed", "tune": False} for n in names[1:])]
    experiment = experiment_of(tmp_path, methods, [{"name": "one"}, {"name": "two"}], focus="aifs-closed")
    own = {0: 0.70, 1: 0.75, 2: 0.80}
    changed = {"without": {0: 0.60, 1: 0.64, 2: 0.70}, "same": {0: 0.702, 1: 0.75, 2: 0.798},
               "better": {0: 0.75, 1: 0.80, 2: 0.85}, "unsteady": {0: 0.9, 1: 0.7, 2: 0.5}}  # fmt: skip
    worst: dict[tuple[str, str], Any] = {("one", "aifs-closed"): own}
    worst |= {("one", name): values for name, values in changed.items()}
    text = ablation_part(report_with(experiment, worst))
    interval = stats.ttest_rel([0.60, 0.64, 0.70], [0.70, 0.75, 0.80]).confidence_interval(0.95)
    half = 100 * (interval.high - interval.low) / 2
    assert "| `aifs-closed`, worst group in percent | 75.0 ± 12.4 |" in text
    assert f"| `without` | **-10.3 ± {half:.1f}** |" in text
    assert "| `better` | **+5.0 ± 0.0** |" in text
    assert text.index("`without` |") < text.index("`same` |") < text.index("`better` |")
    assert "- Costs more than 1 point of worst group: `without` on one (-10.3)." in text
    assert "- Gains more than 1 point: `better` on one (+5.0)." in text
    assert "- Within 1 point on every data set, for the whole interval: `same`." in text
    assert "- Not shown either way by these seeds: `unsteady`." in text


def strengths(tmp_path: Path, curves: dict[str, dict[float, dict[int, float]]]) -> Report:
    xs = sorted(next(iter(curves.values())))
    methods = [{"name": f"aifs.alpha={x:g}", "method": "aifs", "tune": False, "settings": {"alpha": x}} for x in xs]
    data = [{"name": name, "aligned_share": float(name.removeprefix("d")) / 100} for name in curves]
    experiment = experiment_of(tmp_path, methods, data)
    return report_with(experiment, {(d, f"aifs.alpha={x:g}"): v for d, of in curves.items() for x, v in of.items()})


def test_an_optimum_is_found_with_the_interval_of_resampled_seeds(tmp_path: Path) -> None:
    steady = {0.0: dict.fromkeys(range(3), 0.2), 1.0: {0: 0.7, 1: 0.72, 2: 0.74}, 10.0: {0: 0.5, 1: 0.51, 2: 0.52}}
    # Two seeds for the first place, one strongly for the last: resampled, the last wins wherever it is drawn.
    torn = {0.0: {0: 0.5, 1: 0.5, 2: 0.5}, 1.0: {0: 0.4, 1: 0.4, 2: 0.4}, 10.0: {0: 0.45, 1: 0.45, 2: 0.9}}
    report = strengths(tmp_path, {"d95": steady, "d80": torn})
    curves = {c.dataset: c for c in strength_curves(report.experiment, report.found)}
    best = optimum(curves["d95"])
    assert best is not None
    assert (best.x, best.low, best.high) == (1.0, 1.0, 1.0)
    assert best.gain[0] == pytest.approx(0.52)
    assert best.over_last[0] == pytest.approx(0.21)
    wide = optimum(curves["d80"])
    assert wide is not None
    assert (wide.x, wide.low, wide.high) == (10.0, 0.0, 10.0)
    text = curves_part(report)
    assert "on d80 10 is best, the highest tried, not told apart from the lowest" in text
    assert "on d95 1 is best, above both ends" in text
    assert "The intervals at 80 % and 95 % aligned meet: no move is shown." in text
    assert text.index("| 80 % |") < text.index("| 95 % |")
    assert "| `aifs.alpha` | 95 % | 0 to 10 | 1 (1 to 1) | 72.0 ± 5.0 |" in text
    (path,) = [p for p in draw_figures(report, tmp_path, "toy") if p.name == "toy_strength.png"]
    assert Image.open(path).convert("L").getextrema()[0] < 100


def test_an_optimum_that_moves_is_told(tmp_path: Path) -> None:
    def peak(at: float) -> dict[float, dict[int, float]]:
        return {x: {s: (0.7 if x == at else 0.4) + 0.01 * s for s in range(3)} for x in (0.1, 1.0, 10.0)}

    text = curves_part(strengths(tmp_path, {"d80": peak(0.1), "d99": peak(10.0)}))
    assert "From 80 % to 99 % aligned the best strength moves up, from 0.1 to 10." in text


def test_only_an_experiment_of_strengths_has_curves(tmp_path: Path) -> None:
    assert strength_of("attribution=ig") is None
    methods = [{"name": f"alpha={x}", "method": "aifs", "tune": False} for x in (0, 1, 2)]
    experiment = experiment_of(tmp_path, [*methods, "erm"], [{"name": "one"}])
    report = report_with(experiment, {("one", f"alpha={x}"): 0.5 for x in (0, 1, 2)})
    assert strength_curves(experiment, report.found) == []


def test_labels_that_reach_the_focus_are_counted(tmp_path: Path) -> None:
    budgets = (0, 16, 64, 1_000_000)
    methods: list[Any] = ["erm-closed", "aifs-closed"]
    for short, method in (("dfr", "dfr-oracle"), ("gdro", "gdro-oracle")):
        methods += [{"name": f"{short}.{n}", "method": method, "tune": False, "group_labels": n} for n in budgets]
    experiment = experiment_of(tmp_path, methods, [{"name": "one"}], focus="aifs-closed")
    worst: dict[tuple[str, str], Any] = {("one", "aifs-closed"): 0.7, ("one", "erm-closed"): 0.2}
    # Above the focus once, but not from there on.
    worst |= {("one", f"dfr.{n}"): v for n, v in zip(budgets, (0.2, 0.72, 0.6, 0.8), strict=True)}
    worst |= {("one", f"gdro.{n}"): v for n, v in zip(budgets, (0.2, 0.3, 0.4, 0.5), strict=True)}
    report = report_with(experiment, worst)
    assert [len(curve.points) for curve in label_curves(experiment, report.found)] == [4, 4]
    text = curves_part(report)
    assert "- one: `aifs-closed` has 70.0 without any; `dfr-oracle` reaches it with all and" in text
    assert "`gdro-oracle` does not reach it (50.0 with all)." in text
    assert "| data set | method | 0 | 16 | 64 | all |" in text
    assert any(p.name == "toy_group_labels.png" for p in draw_figures(report, tmp_path, "toy"))
