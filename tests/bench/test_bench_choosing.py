"""The budget and the rules: what is tried, what each rule looks at, and that the test split plays no part."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_experiment import write_experiment

from aifs_peft.bench import read_experiment
from aifs_peft.bench.choosing import choose, fixed_of, scores, trials_of
from aifs_peft.bench.draws import Draw, load_draw
from aifs_peft.bench.experiment import MethodEntry
from aifs_peft.bench.frozen import Fitted
from aifs_peft.bench.measuring import Measured
from aifs_peft.bench.space import SETTINGS, SPACE, tuned
from aifs_peft.errors import InvalidInputError
from aifs_peft.methods import get, make, names


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    folder = tmp_path_factory.mktemp("bench")
    return load_draw(read_experiment(write_experiment(folder)).data[0], 0)


def fitted(draw: Draw, validation: Any, test: Any = None) -> Fitted:
    """Logits that say these classes."""
    parts = {"validation": np.eye(2)[validation]}
    parts["test"] = np.eye(2)[draw.parts["test"].y if test is None else test]
    return Fitted(parts, Measured())


def test_what_the_rules_look_at(draw: Draw) -> None:
    part = draw.parts["validation"]
    said = part.a  # the attribute: right where it goes with the label
    found = scores(np.eye(2)[said], draw)
    right = said == part.y
    assert found["average"] == pytest.approx(right.mean())
    assert found["worst_class"] == pytest.approx(min(right[part.y == c].mean() for c in (0, 1)))
    cells = [2 * part.y + draw.inferred == c for c in range(4)]
    assert found["worst_inferred_group"] == pytest.approx(min(right[c].mean() for c in cells if c.sum() >= 10))
    assert np.bincount(part.groups)[[1, 2]].min() >= 5
    assert found["oracle"] == 0.0
    few = replace(draw, parts={**draw.parts, "validation": replace(part, groups=np.arange(len(part.y)) // 4)})
    assert scores(np.eye(2)[said], few)["oracle"] == found["average"]  # no group is large enough to vote


def test_the_defaults_come_first_and_every_method_has_the_same_budget(tmp_path: Path, draw: Draw) -> None:
    experiment = read_experiment(write_experiment(tmp_path, budget=4))
    for name in ("erm", "jtt"):
        entry, seen = MethodEntry(name, name), []

        def fit(setting: dict[str, Any], seen: list[Any] = seen) -> Fitted:
            seen.append(setting)
            return fitted(draw, draw.parts["validation"].y)

        choice = choose(experiment, entry, draw, fit)
        assert len(seen) == len(choice.trials) == 4
        assert seen[0] == {"schedule": {"epochs": 2}, "options": {}, "settings": {}}
        assert all(setting["schedule"]["epochs"] == 2 for setting in seen)
        assert len({setting["schedule"]["learning_rate"] for setting in seen[1:]}) == 3
        assert choice.best is choice.trials[0]  # of equal ones the first
        again = [trial.setting for trial in choose(experiment, entry, draw, fit).trials]
        assert again == [trial.setting for trial in choice.trials]


def test_each_rule_chooses_its_own_and_the_test_split_none(tmp_path: Path, draw: Draw) -> None:
    experiment = read_experiment(write_experiment(tmp_path, budget=3, selection="average"))
    part, test = draw.parts["validation"], draw.parts["test"]
    conflicting = part.a != part.y
    by_average = np.where(conflicting, 1 - part.y, part.y)  # all aligned right, all conflicting wrong
    aligned = np.flatnonzero(~conflicting)
    by_oracle = part.y.copy()
    by_oracle[aligned[: len(aligned) // 2]] = 1 - by_oracle[aligned[: len(aligned) // 2]]
    fits = iter([fitted(draw, by_oracle, test.y), fitted(draw, by_average, 1 - test.y), fitted(draw, 1 - part.y)])
    choice = choose(experiment, MethodEntry("erm", "erm"), draw, lambda _setting: next(fits))
    assert choice.best is choice.trials[1]  # though it is always wrong on the test split
    assert choice.oracle is choice.trials[0]
    assert [trial.fitted is None for trial in choice.trials] == [False, False, True]


def test_failed_fits_are_told_and_the_rest_goes_on(tmp_path: Path, draw: Draw) -> None:
    experiment = read_experiment(write_experiment(tmp_path, budget=3))
    calls = []

    def fit(setting: dict[str, Any]) -> Fitted:
        calls.append(setting)
        if len(calls) != 2:
            raise InvalidInputError("no\nway")
        return fitted(draw, draw.parts["validation"].y)

    choice = choose(experiment, MethodEntry("erm", "erm"), draw, fit)
    assert [trial.failed for trial in choice.trials] == ["no way", None, "no way"]
    assert choice.best is choice.trials[1]

    def never(setting: dict[str, Any]) -> Fitted:
        raise InvalidInputError("never")

    assert choose(experiment, MethodEntry("erm", "erm"), draw, never).best is None


def test_how_many_fits_a_run_is(tmp_path: Path) -> None:
    experiment = read_experiment(write_experiment(tmp_path, budget=5))
    assert trials_of(experiment, MethodEntry("erm", "erm")) == 5
    assert trials_of(experiment, MethodEntry("aifs-closed", "aifs-closed")) == 1
    assert trials_of(experiment, MethodEntry("erm", "erm", tune=False)) == 1
    everything = replace(experiment, schedule={"epochs": 2, "learning_rate": 1e-3, "weight_decay": 0.0})
    assert trials_of(everything, MethodEntry("erm", "erm")) == 1
    assert fixed_of(everything, MethodEntry("a", "erm", schedule={"epochs": 7}))["schedule"]["epochs"] == 7


def test_every_range_is_of_a_number_that_its_method_has_and_takes() -> None:
    assert set(SPACE) | set(SETTINGS) <= set(names())
    for name, table in SPACE.items():
        for option, bounds in table.items():
            ends = bounds.values if hasattr(bounds, "values") else (bounds.low, bounds.high)
            for value in ends:
                assert getattr(make(name, method_options={option: value}).options, option) == value
    for name, table in SETTINGS.items():
        for setting, bounds in table.items():
            assert getattr(make(name, **{setting: bounds.low}).settings, setting) == bounds.low
    fixed = {"schedule": {}, "options": {}, "settings": {}}
    for name in names():
        assert len(tuned(name, "frozen", fixed)) >= 3, get(name)
