"""`aifs evaluate`, `predict` and `card` on the folder of a run: what it says there is what the run said."""

import csv
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from pictures import DAMAGED, write_damaged, write_kinds

from aifs_peft import cli
from aifs_peft.data import load
from aifs_peft.experiments.saved import load_run, predict_logits, prepared

OPTIONS = {"n_train": 96, "n_validation": 40, "n_test": 40, "image_size": 16}
SCENES = ["--dataset", "spurious_scenes", "--dataset-options", json.dumps(OPTIONS)]


def run_json(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert cli.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 96 small scenes."""
    path = tmp_path_factory.mktemp("runs") / "run"
    argv = [*SCENES, "--adapter", "none", "--epochs", "1", "--use-cpu", "--quiet", "--output-dir", str(path)]
    assert cli.main(["finetune", *argv]) == 0
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test split as PNG files, with a table beside them."""
    path = tmp_path_factory.mktemp("pictures")
    test = load("spurious_scenes", **OPTIONS)["test"]
    names = test.features["label"].names
    lines = ["file,diagnosis"]
    for row, example in enumerate(test):
        example["image"].save(path / f"{row:03d}.png")
        lines.append(f"{row:03d}.png,{names[example['label']]}")
    (path / "table.csv").write_text("\n".join(lines) + "\n")
    return path


def test_the_runs_own_test_split_gives_the_runs_own_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    result = run_json(["evaluate", str(folder), "--use-cpu"], capsys)
    assert (result["part"], result["n"]) == ("test", 40)
    assert result["metrics"]["worst_group_accuracy"] == summary["metrics"]["worst_group_accuracy"]
    told, was = result["comparison"]["rows"], summary["comparison"]["rows"]
    assert [(r["cell"], r["n"], r["method"]) for r in told] == [(r["cell"], r["n"], r["method"]) for r in was]
    assert all(row["plain"] is None for row in told)


def test_other_data_are_told_cell_by_cell(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(folder), *SCENES, "--part", "all", "--use-cpu", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "(all): 176 examples" in shown.out
    assert "conflicting" in shown.out
    assert "aifs [95% interval]" in shown.out
    assert "plain" not in shown.out


def test_data_of_which_all_rows_are_read_are_not_warned_about_a_test_that_nobody_cuts(
    folder: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = (pictures / "table.csv").read_text().splitlines()
    table = ["file;diagnosis;side", *(f"{row.replace(',', ';')};{'lr'[i % 2]}" for i, row in enumerate(rows[1:]))]
    (pictures / "sides.csv").write_text("\n".join(table) + "\n")
    capfd.readouterr()
    columns = ["--image", "file", "--label", "diagnosis", "--attribute", "side"]
    data = ["--dataset", str(pictures / "sides.csv"), *columns]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cli.main(["evaluate", str(folder), *data, "--use-cpu", "--quiet"]) == 0
    (pictures / "sides.csv").unlink()
    shown = capfd.readouterr()
    assert "(all): 40 examples" in shown.out
    assert shown.err == ""


def test_classes_are_matched_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", str(folder), "--use-cpu", "--quiet", "--dataset", "colored_mnist", "--data-dir", "nowhere"]
    assert cli.main(argv) == 2
    assert "nowhere" in capsys.readouterr().err
    digits = ["--dataset", "digits_on_scenes", "--part", "validation"]
    assert cli.main(["evaluate", str(folder), *digits, "--use-cpu", "--quiet"]) == 2
    assert "which the model was not trained on" in capsys.readouterr().err


def test_predictions_are_the_models_own(
    folder: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(folder, use_cpu=True)
    logits = predict_logits(run, prepared(run, load("spurious_scenes", **OPTIONS)["test"]))
    capsys.readouterr()
    assert cli.main(["predict", str(folder), str(pictures), "--use-cpu", "--quiet", "--batch-size", "7"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [Path(row["input"]).name for row in rows] == [f"{i:03d}.png" for i in range(40)]
    names = run.label_names
    assert [row["prediction"] for row in rows] == [names[i] for i in logits.argmax(1)]
    given = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(given, expected, atol=1e-5)
    output = tmp_path / "out.csv"
    argv = ["predict", str(folder), str(pictures / "table.csv"), "--column", "file", "--output", str(output)]
    assert cli.main([*argv, "--use-cpu", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    written = list(csv.DictReader(io.StringIO(output.read_text())))
    assert [row["prediction"] for row in written] == [row["prediction"] for row in rows]


def probabilities(argv: list[str], capsys: pytest.CaptureFixture[str]) -> np.ndarray:
    rows = run_json(["predict", *argv, "--use-cpu"], capsys)
    return np.array([[value for name, value in row.items() if name.startswith("p_")] for row in rows])


def test_pictures_of_every_kind_are_predicted_as_what_they_show(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, plain = write_kinds(tmp_path)
    found = probabilities([str(folder), str(tmp_path / "given")], capsys)
    expected = probabilities([str(folder), str(tmp_path / "plain")], capsys)
    assert len(given) == len(plain) == len(found)
    for path, one, other in zip(given, found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=path.name)
    assert np.ptp(expected, axis=0).max() > 1e-4
    (tmp_path / "list.csv").write_text("\n".join(["image", *(f"given/{path.name}" for path in given)]))
    np.testing.assert_array_equal(probabilities([str(folder), str(tmp_path / "list.csv")], capsys), found)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_is_one_line_with_its_path(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(path for path in write_damaged(tmp_path) if path.name == name)
    assert cli.main(["predict", str(folder), str(path), "--use-cpu", "--quiet"]) == 2
    shown = capsys.readouterr()
    assert str(path) in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_the_card_of_a_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["card", str(folder)]) == 0
    assert "library_name: peft" in capsys.readouterr().out
    assert cli.main(["card", str(folder), "--output", str(tmp_path / "card.md"), "--quiet"]) == 0
    assert "library_name: peft" in (tmp_path / "card.md").read_text()


def test_texts_and_tables_are_predicted(
    roberta_dir: Path, text_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = json.dumps({"text": "sentence", "label": "verdict"})
    argv = ["--model", str(roberta_dir), "--dataset", str(text_dir), "--dataset-options", columns,
            "--adapter", "none",
            "--epochs", "1", "--max-length", "16", "--use-cpu", "--quiet",
            "--output-dir", str(tmp_path / "run")]  # fmt: skip
    assert cli.main(["finetune", *argv]) == 0
    lines = tmp_path / "new.txt"
    lines.write_text("you are good\nthe is bad\n")
    table = tmp_path / "new.csv"
    table.write_text("sentence\nyou are good\nthe is bad\n")
    capsys.readouterr()
    assert cli.main(["predict", str(tmp_path / "run"), str(lines), "--use-cpu", "--quiet"]) == 0
    first = capsys.readouterr().out
    argv = ["predict", str(tmp_path / "run"), str(table), "--text", "sentence", "--use-cpu", "--quiet"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == first
    assert first.splitlines()[0] == "input,prediction,p_fine,p_toxic"


MISTAKES = [
    (["evaluate"], "required: RUN"),
    (["evaluate", "nowhere"], "holds no summary.json: it is no folder of a run"),
    (["predict", "RUN"], "required: INPUTS"),
    (["predict", "RUN", "nowhere.png"], "nowhere.png does not exist"),
    (["predict", "RUN", "TABLE"], "has no column 'image'"),
    (["predict", "RUN", "TABLE", "--image", "fil"], "(did you mean 'file'?)"),
    (["predict", "RUN", "EMPTY"], "holds no image"),
    (["predict", "RUN", "BROKEN"], "cannot be read as an image"),
    (["predict", "RUN", "TEXT"], "is no input for a model of image input"),
    (["predict", "RUN", "BAD.csv"], "cannot be read as a table"),
    (["predict", "RUN", "--batch-size", "0", "x"], "at least 1"),
    (["evaluate", "RUN", "--part", "tests"], "did you mean 'test'?"),
    (["evaluate", "RUN", "--dataset", "spurious_scene"], "did you mean 'spurious_scenes'"),
    (["evaluate", "DAMAGED"], "summary.json cannot be read"),
    (["evaluate", "OTHER"], "it lacks model"),
    (["evaluate", "HALF"], "adapter"),
    (["card", "nowhere"], "it is no folder of a run"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "told"), MISTAKES, ids=[" ".join(argv) for argv, _ in MISTAKES])
def test_mistakes_are_one_line(
    argv: list[str], told: str, folder: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("TEXT", "x"), ("BROKEN.png", "x"), ("BAD.csv", "a,b\n1\n1,2,3\n")):
        (tmp_path / name).write_text(content)
    for name, content in (("DAMAGED", "{"), ("OTHER", "{}"), ("HALF", (folder / "summary.json").read_text())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(content)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "HALF" / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())
    places = {"RUN": folder, "TABLE": pictures / "table.csv", "BROKEN": tmp_path / "BROKEN.png"}
    places |= {name: tmp_path / name for name in ("TEXT", "EMPTY", "DAMAGED", "OTHER", "HALF", "BAD.csv")}
    capsys.readouterr()
    assert cli.main([str(places.get(word, word)) for word in argv]) == 2
    shown = capsys.readouterr()
    lines = [line for line in shown.err.strip().splitlines() if not line.startswith(("predicting", "evaluating"))]
    assert len(lines) == 1, shown.err
    assert told in lines[0]
