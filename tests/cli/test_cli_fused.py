"""`aifs finetune --fuse`: pictures or texts with columns of a table, from the command line and back from the folder."""

import csv
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as Picture
from PIL import Image

from aifs_peft import cli
from aifs_peft.data.notes import DataWarning
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.experiments import FinetuneSpec
from aifs_peft.experiments.columns import Column, TableEncoding
from aifs_peft.experiments.fused import check_fused
from aifs_peft.experiments.saved import load_run, predict_logits, prepared
from aifs_peft.models import FusedClassifier
from aifs_peft.tuner import find_aifs_layer

TRAIN = ["--adapter", "none", "--epochs", "2", "--batch-size", "32", "--learning-rate", "0.01", "--use-cpu", "--quiet"]


def make_rows(n: int, text: bool = False, aligned: float = 0.95) -> list[dict[str, Any]]:
    """Lesions whose site goes with the diagnosis; the table knows the site, the input hardly shows the diagnosis."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(n):
        y = i % 2
        site = y if rng.random() < aligned else 1 - y
        shade = np.clip(rng.normal(120 + 12 * (2 * y - 1), 45, (16, 16, 3)), 0, 255).astype(np.uint8)
        rows.append(
            {
                "input": f"finding {'dark' if y else 'light'} number {i}" if text else shade,
                "diagnosis": ("benign", "malignant")[y],
                "site": "AB"[site],
                "age": "" if i % 40 == 7 else f"{rng.normal(50, 10):.1f}",
            }
        )
    return rows


def write_table(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "diagnosis", "site", "age"])
        for i, row in enumerate(rows):
            Image.fromarray(row["input"]).save(folder / f"{i}.png")
            writer.writerow([f"{i}.png", row["diagnosis"], row["site"], row["age"]])
    return folder / "table.csv"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("lesions"), make_rows(800))


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures with site and age."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = ["--dataset", str(table), "--image", "file", "--label", "diagnosis", "--attribute", "site"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # small cells
        argv = [*data, "--fuse", "site", "age", *TRAIN, "--output-dir", str(folder)]
        assert cli.main(["finetune", *argv]) == 0
    return folder


def told(folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return out


def test_a_shortcut_that_only_the_table_knows_is_found_in_the_table(run: Path) -> None:
    summary = told(run)
    assert summary["found"]
    assert summary["fused"]["features"] == ["site = A", "site = B", "age", "age is missing"]
    assert summary["fused"]["in_table"][0] > 0.9
    assert summary["modality"] == "image"
    assert summary["audit"]["found"]


def test_every_sentence_says_that_the_attribute_is_an_input(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from aifs_peft.experiments.telling import finish_text

    text = finish_text(told(run))
    assert "attribute values are read for the table, and as an input of the model" in text
    assert "read beside each image: site, age; of the spurious direction " in text
    card = (run / "README.md").read_text()
    assert "**Inputs.** Read beside each image: site, age; of the spurious direction " in card
    assert "which the model reads as an input, too" in card
    assert "read for this table only" not in card
    capsys.readouterr()
    assert cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Read beside each image: site, age" in page
    assert "read for this table only" not in page


def test_evaluate_gives_the_runs_own_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = told(run)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert cli.main(["evaluate", str(run), "--use-cpu", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["cell"]: row["method"] for row in result["comparison"]["rows"]}
    assert rows == {row["cell"]: row["method"] for row in summary["comparison"]["rows"]}
    assert len(rows) > 4


def test_predict_reads_the_columns_of_a_table(
    run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same picture from the other site is another input, and so is one without a site."""
    lines = ["file,age,site,more", f"{table.parent}/0.png,50.0,A,x", f"{table.parent}/0.png,50.0,B,x"]
    (tmp_path / "new.csv").write_text("\n".join([*lines, f"{table.parent}/0.png,50.0,,x"]) + "\n")
    capsys.readouterr()
    argv = ["predict", str(run), str(tmp_path / "new.csv"), "--image", "file", "--use-cpu", "--quiet"]
    assert cli.main(argv) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    got = np.asarray([float(row["p_malignant"]) for row in rows])
    assert len({round(p, 6) for p in got}) == 3
    loaded = load_run(run, use_cpu=True)
    image = Dataset.from_dict({"image": [str(table.parent / "0.png")] * 3}).cast_column("image", Picture())
    cells = {"site": ["A", "B", None], "age": [50.0] * 3}
    assert loaded.fused is not None
    logits = predict_logits(loaded, prepared(loaded, image, loaded.fused.encode(cells)))
    np.testing.assert_allclose(got, torch.softmax(torch.from_numpy(logits), 1)[:, 1].numpy(), atol=1e-6)


def test_the_card_loads_the_model(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (run / "README.md").read_text().split("```python\n")[1].split("```")[0]
    space: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(run)), space)
    model = space["model"]
    assert isinstance(model.get_base_model(), FusedClassifier)
    assert len(find_aifs_layer(model).state.groups)
    with pytest.raises(InvalidInputError, match="features"):
        model(pixel_values=torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["new.png"], "is no table, and the model reads site, age beside each image"),
        (["lacking.csv"], "has no column 'age' (did you mean 'aged'?), which the model reads beside its inputs"),
    ],
)
def test_inputs_without_the_columns_are_refused(
    words: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "new.png")
    (tmp_path / "lacking.csv").write_text("image,site,aged\nnew.png,A,50\n")
    capsys.readouterr()
    assert cli.main(["predict", str(run), *(str(tmp_path / word) for word in words), "--use-cpu", "--quiet"]) == 2
    assert message in capsys.readouterr().err


def test_texts_with_an_encoder_that_is_tuned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from report_runs import save_roberta

    rows = make_rows(120, text=True)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["report", "diagnosis", "site", "age"])
        writer.writerows([[row["input"], row["diagnosis"], row["site"], row["age"]] for row in rows])
    argv = ["--dataset", str(tmp_path / "table.csv"), "--text", "report", "--label", "diagnosis", "--fuse", "age"]
    model = ["--model", str(save_roberta(tmp_path / "roberta")), "--max-length", "12"]
    common = ["--epochs", "1", "--use-cpu", "--quiet", "--output-dir", str(tmp_path / "run")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert cli.main(["finetune", *argv, *model, *common]) == 0
        capsys.readouterr()
        assert cli.main(["evaluate", str(tmp_path / "run"), "--use-cpu", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["groups"] == told(tmp_path / "run")["metrics"]["groups"]
    assert told(tmp_path / "run")["fused"]["features"] == ["age", "age is missing"]


def test_numbers_are_numbers_and_few_whole_ones_are_codes() -> None:
    train = Dataset.from_dict(
        {
            "age": [40.5, None, 60.5], "ward": [3, 1, 3],
            "ward_with_gaps": [3.0, None, 1.0], "smokes": [True, None, False],
            "dose": [12, 13, 14], "unit": ["x", "NA", "y"], "vector": [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]],
        }
    )  # fmt: skip
    kinds = {c.name: (c.kind, c.values) for c in TableEncoding.learn(train, train.column_names).columns}
    assert kinds["age"] == ("number", ())
    assert kinds["ward"] == kinds["ward_with_gaps"] == ("category", ("1", "3"))
    assert kinds["smokes"] == ("category", ("False", "True"))
    assert kinds["unit"] == ("category", ("x", "y"))
    assert kinds["vector"] == ("vector", ())
    many = Dataset.from_dict({"dose": list(range(11))})
    assert TableEncoding.learn(many, ["dose"]).columns[0].kind == "number"


def test_what_was_learnt_on_the_training_split_alone_encodes_the_others_and_survives_json() -> None:
    train = Dataset.from_dict({"age": [40.0, 60.0] * 10, "site": [f"s{i % 3}" for i in range(20)]})
    # Whole numbers of two values: codes.
    encoding = TableEncoding.learn(train, ["age", "site"])
    again = TableEncoding.from_dict(json.loads(json.dumps(encoding.to_dict())))
    assert again == encoding
    with pytest.warns(DataWarning, match=r"values that no training example had, 45, in 1 of 2 rows"):
        out = again.encode({"age": [45, 60], "site": ["s2", None]})
    assert out.tolist() == [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0]]


def test_names_of_classes_stand_for_their_numbers() -> None:
    features = Features({"place": ClassLabel(names=["land", "water"]), "label": Value("int64")})
    rows = Dataset.from_dict({"place": [0, 1], "label": [0, 1]}, features=features)
    assert TableEncoding.learn(rows, ["place"]).features == ["place = land", "place = water"]


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"age": [1.5, 2.5]}, ["ages"], r"no column 'ages' \(did you mean 'age'\?\); it has age"),
        ({"label": [0, 1]}, ["label"], "the column 'label' is what is predicted"),
        ({"name": [f"n{i}" for i in range(101)]}, ["name"], "101 different values in 101 training examples"),
        ({"age": [None, None]}, ["age"], "'age' is empty in every training example"),
        ({"age": [0.5, float("inf")]}, ["age"], "'age' holds infinite numbers"),
        ({"v": [[0.0, 1.0], [1.0]]}, ["v"], "'v' held vectors of 2 numbers in the training examples; row 1 is none"),
    ],
)
def test_columns_that_say_nothing_of_new_examples_are_refused(
    columns: dict[str, list[Any]], names: list[str], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TableEncoding.learn(Dataset.from_dict(columns), names)


def test_cells_of_another_kind_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="'age' held numbers in the training examples, and 'old' is none"):
        Column("age", "number").encode([1.0, "old"])
    for damaged in ([], [{"name": "age"}], [{"name": "age", "kind": "word", "values": []}], 3):
        with pytest.raises(InvalidInputError, match="is no encoding of a table's columns"):
            TableEncoding.from_dict(damaged)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fuse": []}, "fuse names no column"),
        ({"streaming": True}, "goes with no streaming"),
        ({"unlabelled": "new.csv", "quantization": "4bit"}, "goes with no unlabelled and no quantization=4bit"),
        ({"model": "mlp"}, "goes with no model=mlp"),
    ],
)
def test_what_it_does_not_go_with_is_told_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        check_fused(FinetuneSpec(**{"fuse": ["age"], **options}))


def test_features_alone_have_nothing_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["z0,z1,label,site", *(f"{i},{i * i},{i % 2},{'AB'[i % 3 == 0]}" for i in range(60))]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    argv = ["--dataset", str(tmp_path / "table.csv"), "--label", "label", "--features", "z0", "z1", "--fuse", "site"]
    assert cli.main(["finetune", *argv, "--use-cpu", "--quiet", "--output-dir", str(tmp_path / "run")]) == 2
    assert "fuse needs pictures or texts" in capsys.readouterr().err


def test_a_fused_model_without_fuse_is_refused(
    run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--dataset", str(table), "--image", "file", "--label", "diagnosis", "--output-dir", str(tmp_path / "again")]
    base = ["--model", str(run / "base_model"), "--use-cpu", "--quiet"]
    for more in ([], ["--fuse", "age"]):
        assert cli.main(["finetune", *data, *base, *more]) == 2
        assert "is a FusedClassifier, made for the columns of one table" in capsys.readouterr().err
