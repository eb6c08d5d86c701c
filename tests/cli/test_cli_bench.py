"""`aifs bench` and `aifs reproduce`: what they print, their exit status, and mistakes in one line."""

import json
from pathlib import Path

import pytest
from bench_experiment import write_experiment
from quiet import libraries_speak_again  # noqa: F401 - a fixture

from aifs_peft import cli
from aifs_peft.bench.results import result_path


def bench(folder: Path, *words: str) -> list[str]:
    return ["bench", "--experiment", str(folder / "toy.json"), "--results", str(folder / "results"),
            "--cache", str(folder / "cache"), *words]  # fmt: skip


def test_plan_run_render_and_reproduce(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(tmp_path, methods=["erm", "erm-closed"], seeds=[0, 1])
    assert cli.main(bench(tmp_path, "--dry-run")) == 0
    assert capsys.readouterr().out == (
        "0 results are there, 4 runs (6 fits) are missing; how long they take is known once some are done.\n"
    )
    assert cli.main(bench(tmp_path, "--seeds", "0")) == 0
    shown = capsys.readouterr()
    assert "| `erm` | none |" in shown.out
    assert shown.err.count("toy/erm") == 2  # erm and erm-closed, of one seed
    assert cli.main(bench(tmp_path, "--dry-run", "--json")) == 0
    ahead = json.loads(capsys.readouterr().out)
    assert (ahead["done"], ahead["missing"]) == (2, ["toy/erm/1", "toy/erm-closed/1"])
    assert ahead["seconds"] > 0
    assert cli.main(bench(tmp_path, "--seeds", "0", "--tables", str(tmp_path / "out"), "--quiet")) == 0
    assert f"saved: {tmp_path / 'out' / 'toy.md'}" in capsys.readouterr().out
    path = result_path(tmp_path / "results", "toy", "toy", "erm", 0)
    assert cli.main(["reproduce", str(path), "--cache", str(tmp_path / "cache")]) == 0
    assert "agrees" in capsys.readouterr().out
    content = json.loads(path.read_text())
    content["metrics"]["worst_group_accuracy_interval"] = [2.0, 3.0]
    path.write_text(json.dumps(content))
    assert cli.main(["reproduce", str(path), "--cache", str(tmp_path / "cache"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["agrees"], told["same_data"]) == (False, True)
    assert [number["agrees"] for number in told["numbers"]] == [False, True]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needed: --experiment FILE.json"),
        (["--experiment", "no.json"], "there is no experiment no.json"),
        (["--experiment", "toy.json", "--methods", "rem"], "has no method 'rem'"),
        (["--experiment", "toy.json", "--data", "x"], "has no data set 'x'"),
        (["--experiment", "toy.json", "--seeds", "9"], "has no seed '9'"),
        (["--experiment", "toy.json", "--jobs", "0"], "--jobs must be an integer of at least 1"),
        (["--experiment", "toy.json", "--dry-run", "--tables", "x"], "--dry-run and --tables are two calls"),
        (["--experiment", "toy.json", "--tables", "x"], "has no results"),
        (["--experimnt", "toy.json"], "did you mean '--experiment'"),
        (["--experiment", "bad.json"], "bad.json: unknown method 'emr' (did you mean 'erm'?)"),
        (["--experiment", "gone.json"], "nowhere is missing"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path)
    content = json.loads(path.read_text())
    (tmp_path / "bad.json").write_text(json.dumps({**content, "methods": ["emr"]}))
    content["data"][0]["data_dir"] = "nowhere"
    (tmp_path / "gone.json").write_text(json.dumps(content))
    assert cli.main(["bench", *words, "--quiet"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err


def test_results_that_cannot_be_reproduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", str(tmp_path / "none.json")]) == 2
    assert "there is no result" in capsys.readouterr().err
    (tmp_path / "x.json").write_text("{}")
    assert cli.main(["reproduce", str(tmp_path / "x.json")]) == 2
    assert "is no result of `aifs bench`" in capsys.readouterr().err
