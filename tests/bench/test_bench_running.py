"""Runs: their files, going on after an interruption, and what is done again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_experiment import write_experiment

from aifs_peft.bench import plan, read_experiment, read_results, reproduce, run_experiment, running
from aifs_peft.bench.draws import load_draw
from aifs_peft.bench.experiment import MethodEntry, data_entry_of
from aifs_peft.bench.frozen import fit_frozen
from aifs_peft.bench.results import ADDED, FORMAT, KEYS, read_result, result_path
from aifs_peft.bench.tables import summarise
from aifs_peft.classifier import AIFSClassifier
from aifs_peft.errors import DataNotFoundError, InvalidInputError
from aifs_peft.metrics import group_metrics

NOTHING: dict[str, dict[str, Any]] = {"schedule": {}, "options": {}, "settings": {}}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment and its results."""
    folder = tmp_path_factory.mktemp("bench")
    assert run_experiment(read_experiment(write_experiment(folder)), folder / "results") == 0
    return folder


def test_one_file_per_run_says_all_of_it(done: Path) -> None:
    experiment = read_experiment(done / "toy.json")
    results = read_results(done / "results", experiment)
    assert len(results) == 6
    assert sorted(path.name for path in (done / "results").rglob("*.part")) == []
    for result in results:
        assert set(result) == set(KEYS)
        path = result_path(done / "results", "toy", result["dataset"], result["method"], result["seed"])
        assert read_result(path) == result
        assert "NaN" not in path.read_text()
        assert set(group_metrics([0, 1], [0, 1], [0, 1])) == set(result["metrics"])
        assert result["wall_seconds"] > 0
        assert result["aligned_share"] == 0.85
        assert result["versions"]["torch"]
        assert "commit" in result["git"]
    supervision = {result["method"]: result["supervision"] for result in results}
    assert supervision == {"erm": "none", "erm-closed": "none", "reweight-oracle": "groups"}
    assert len({result["data_checksum"] for result in results}) == 2  # one per seed


def test_the_numbers_are_those_of_the_public_classifier(done: Path) -> None:
    experiment = read_experiment(done / "toy.json")
    draw = load_draw(experiment.data[0], 0)
    train, test = draw.parts["train"], draw.parts["test"]
    clf = AIFSClassifier("erm", random_state=0).fit(train.Z, train.y)
    right = np.asarray(clf.predict(test.Z)) == test.y
    result = read_result(result_path(done / "results", "toy", "toy", "erm-closed", 0))
    assert result["metrics"]["average_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert result["metrics"]["worst_group_accuracy"] == pytest.approx(
        min(right[test.groups == g].mean() for g in range(4)), abs=1e-6
    )


def test_a_second_call_does_nothing_and_a_changed_file_all(done: Path, tmp_path: Path) -> None:
    experiment = read_experiment(done / "toy.json")
    assert plan(experiment, done / "results").missing == []
    told: list[str] = []
    assert run_experiment(experiment, done / "results", say=told.append) == 0
    assert told == []
    other = read_experiment(
        write_experiment(tmp_path, data=json.loads((done / "toy.json").read_text())["data"], budget=3)
    )
    ahead = plan(other, done / "results")
    assert (ahead.done, len(ahead.missing)) == (0, 6)


def test_an_interruption_loses_the_run_in_progress_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = read_experiment(write_experiment(tmp_path))
    real, calls = running.run_one, []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(running, "run_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, tmp_path / "results")
    ahead = plan(experiment, tmp_path / "results")
    assert (ahead.done, len(ahead.missing)) == (3, 3)
    assert ahead.seconds is not None
    assert ahead.unknown == 0
    assert "3 runs" in ahead.describe()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("*.json")}
    assert run_experiment(experiment, tmp_path / "results") == 0
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())


def test_no_run_begins_after_the_time(tmp_path: Path) -> None:
    assert run_experiment(read_experiment(write_experiment(tmp_path)), tmp_path / "results", minutes=0.0) == 6


def test_a_method_that_cannot_work_is_a_result(tmp_path: Path) -> None:
    rows = 12
    folder = tmp_path / "latents"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        y = np.arange(rows * 5, dtype=np.uint8) % 2
        np.savez(folder / f"{split}.npz", z=rng.normal(3, 1, (len(y), 2, 4)).astype(np.float16), y=y)
    experiment = read_experiment(write_experiment(tmp_path, methods=["dfr-oracle"], seeds=[0]))
    assert run_experiment(experiment, tmp_path / "results") == 0
    result = read_results(tmp_path / "results", experiment)[0]
    assert "at least 2 are needed" in result["failed"]
    assert result["metrics"] is None
    with pytest.raises(InvalidInputError, match="cannot be run on these data"):
        reproduce(result_path(tmp_path / "results", "toy", "toy", "dfr-oracle", 0))


def test_reproduce_tells_another_number_and_other_data(done: Path, tmp_path: Path) -> None:
    path = result_path(done / "results", "toy", "toy", "erm", 0)
    again = reproduce(path)
    assert again.agrees
    assert all(number.now == number.recorded for number in again.numbers)
    assert again.changed == {}
    content = read_result(path)
    content["metrics"]["average_accuracy_interval"] = [0.0, 0.1]
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    assert "does not agree" in reproduce(tmp_path / "wrong.json").describe()
    content = {**read_result(path), "data_checksum": "0", "versions": {"torch": "1.0"}}
    (tmp_path / "other.json").write_text(json.dumps(content))
    other = reproduce(tmp_path / "other.json")
    assert not other.agrees
    assert "not the same as then" in other.describe()
    assert "torch 1.0 then" in other.describe()


def test_files_that_are_no_results(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="there is no result"):
        read_result(tmp_path / "none.json")
    for text, said in (("{", "no JSON"), ("[]", "it lacks 'format'"), ("{}", "it lacks 'format'")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InvalidInputError, match=said):
            read_result(tmp_path / "x.json")


def test_a_result_of_before_a_key_was_added_is_read(done: Path, tmp_path: Path) -> None:
    path = result_path(done / "results", "toy", "toy", "erm", 0)
    content = json.loads(path.read_text())
    assert content["cpu_seconds"] > 0
    for key in ADDED:
        del content[key]
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert read_result(tmp_path / "old.json") == {**read_result(path), **ADDED}
    assert reproduce(tmp_path / "old.json").agrees
    rows = summarise([read_result(tmp_path / "old.json")])
    assert [row.seconds for row in rows] == [None]


def test_a_result_of_a_newer_version_is_named_as_that(done: Path, tmp_path: Path) -> None:
    path = result_path(done / "results", "toy", "toy", "erm", 0)
    newer = tmp_path / "newer.json"
    # Whatever else has changed in it, a key that is gone say.
    newer.write_text(json.dumps({"format": FORMAT + 1, "metric": {}}))
    with pytest.raises(InvalidInputError, match=f"newer version of aifs_peft: its format is {FORMAT + 1}.*update"):
        read_result(newer)
    newer.write_text(json.dumps({**json.loads(path.read_text()), "format": "one"}))
    with pytest.raises(InvalidInputError, match="its format is 'one', not 1"):
        read_result(newer)
    extended = {**json.loads(path.read_text()), "energy": 1.0}
    newer.write_text(json.dumps(extended))
    assert read_result(newer) == extended


def test_few_labelled_groups(done: Path) -> None:
    draw = load_draw(data_entry_of(json.loads((done / "toy.json").read_text())["data"][0]), 0)
    setting = {**NOTHING, "schedule": {"epochs": 2}}
    plain = fit_frozen(MethodEntry("erm", "erm", tune=False), draw, setting)
    for method in ("dfr-oracle", "gdro-oracle"):
        none = fit_frozen(MethodEntry("a", method, group_labels=0), draw, setting)
        assert none.notes["refitted"] is False
        every = fit_frozen(MethodEntry("a", method, group_labels=10**6), draw, setting)
        assert every.notes["labelled"] == len(draw.parts["validation"].y)
        assert every.notes["refitted"] is True
        assert not np.allclose(every.logits["test"], none.logits["test"])
    # The plain head is that of the method `erm` on the same coordinates.
    assert np.allclose(none.logits["test"], plain.logits["test"], atol=1e-4)


def test_changed_parts_of_discovery(done: Path) -> None:
    draw = load_draw(data_entry_of(json.loads((done / "toy.json").read_text())["data"][0]), 0)
    usual = fit_frozen(MethodEntry("aifs-closed", "aifs-closed"), draw, NOTHING)
    same = fit_frozen(MethodEntry("a", "aifs-closed", config={"several": {"max_attributes": 3}}), draw, NOTHING)
    # What `_fit_changed` does with the usual numbers is what the classifier does.
    assert np.array_equal(usual.logits["test"].argmax(1), same.logits["test"].argmax(1))
    closed = fit_frozen(MethodEntry("a", "aifs-closed", config={"gate": {"strength": 1e9}}), draw, NOTHING)
    assert closed.notes["found"] is False
