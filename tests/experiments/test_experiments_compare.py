"""The demo's table and JSON."""

import doctest
from importlib import import_module

import pytest
from scipy import stats

from aifs_peft.experiments import markdown_table, rows, summarise


def _run(worst: float, average: float, seconds: float) -> dict:
    return {"metrics": {"worst_group_accuracy": worst, "average_accuracy": average}, "seconds": seconds}


def test_summary_has_the_documented_shape() -> None:
    summary = summarise("toy", [0, 1], {"erm": [_run(0.2, 0.8, 1.0), _run(0.4, 0.9, 3.0)]})
    assert summary == {
        "dataset": "toy",
        "seeds": [0, 1],
        "methods": {
            "erm": {
                "worst_group_accuracy": {"mean": pytest.approx(0.3), "per_seed": [0.2, 0.4]},
                "average_accuracy": {"mean": pytest.approx(0.85), "per_seed": [0.8, 0.9]},
                "seconds": 4.0,
            }
        },
    }


def test_cost_is_relative_to_erm_and_interval_is_student_t() -> None:
    worst = [0.2, 0.4, 0.6]
    summary = summarise(
        "toy", [0, 1, 2], {"erm": [_run(w, 0.8, 1.0) for w in worst], "aifs": [_run(w, 0.8, 1.5) for w in worst]}
    )
    erm, aifs = rows(summary)
    assert (erm.cost, aifs.cost) == (1.0, 1.5)
    low, high = stats.t.interval(0.95, 2, loc=0.4, scale=stats.sem(worst))
    assert (erm.worst_low, erm.worst_high) == (pytest.approx(max(0.0, low)), pytest.approx(min(1.0, high)))
    assert "| `aifs` | 0.800 | 0.400 |" in markdown_table(summary)


def test_one_seed_has_no_interval() -> None:
    assert "| - |" in markdown_table(summarise("toy", [0], {"erm": [_run(0.5, 0.8, 1.0)]}))


@pytest.mark.parametrize(
    "name",
    ["build", "compare", "comparison", "columns", "describe", "loading", "latents", "methods", "prepare",
     "provenance", "spec", "telling"],
)  # fmt: skip
def test_doctests(name: str) -> None:
    result = doctest.testmod(import_module(f"aifs_peft.experiments.{name}"), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert result.failed == 0
