"""`aifs finetune` on data sets whose groups overlap and on tables, offline, in this process."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from latents_npz import write_latents
from wilds_csv import write_wilds

from aifs_peft.cli import finetune
from aifs_peft.cli.options import parse
from aifs_peft.data import group_array, group_spec, load
from aifs_peft.experiments import run_finetune
from aifs_peft.report import save_run


def run(folder: Path, *options: str) -> dict:
    """One epoch; the summary that the run leaves behind."""
    common = ["--output-dir", str(folder), "--num-train-epochs", "1", "--use-cpu"]
    assert finetune.main([*common, *options]) == 0
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("name", ["civilcomments", "civilcomments_coarse"])
def test_civilcomments_under_both_definitions(
    name: str, roberta_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "wilds"
    source.mkdir()
    write_wilds(source)
    options = ("--model", str(roberta_dir), "--adapter", "none", "--max-length", "16", "--method", "erm")
    summary = run(tmp_path / "run", *options, "--dataset", name, "--data-dir", str(source))
    data = load(name, source)
    spec = group_spec(data)
    assert list(summary["metrics"]["groups"]) == list(spec.names)
    for split, part in data.items():
        wanted = spec.counts(group_array(part)).tolist()
        assert list(summary["groups"][split].values()) == wanted
    in_test = [entry["n"] for entry in summary["metrics"]["groups"].values()]
    assert in_test == list(summary["groups"]["test"].values())
    assert summary["metrics"]["n"] == len(data["test"]) == 100
    assert (sum(in_test) > 100) == spec.overlapping
    assert (summary["metrics"]["adjusted_average_accuracy"] is None) == spec.overlapping
    assert summary["metrics"]["compared_over"] == ("groups" if spec.overlapping else "attributes")
    assert summary["group_definition"] == spec.definition
    out = capsys.readouterr().out
    assert ("groups are read for the table alone" if spec.overlapping else "attribute values are read") in out
    assert spec.names[0] in out


def reloaded_logits(folder: Path, features: torch.Tensor) -> torch.Tensor:
    """Logits of the saved model, loaded by the lines of its own model card."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)[1]
    names: dict = {}
    exec(code.replace("path/to/this/folder", str(folder)), names)
    with torch.no_grad():
        return names["model"](features=features).logits


@pytest.mark.parametrize("adapter", ["lora", "none", "full"])
def test_compas_from_the_command_line_and_back(adapter: str, shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data" / "compas"
    spec, args, _ = parse(
        ["--dataset", "compas", "--data-dir", str(source), "--adapter", adapter, "--num-train-epochs", "2",
         "--output-dir", str(tmp_path / "work"), "--use-cpu"]
    )  # fmt: skip
    result = run_finetune(spec, args, callbacks=[])
    summary = result.summary
    assert (summary["model"], summary["task"]) == ("mlp", "tabular-classification")
    assert list(summary["metrics"]["groups"]) == list(group_spec(load("compas", source)).names)
    assert summary["metrics"]["average_accuracy"] > 0.6  # 0.53 is the larger class alone
    folder = save_run(result.model, result.processor, summary, tmp_path / "run")
    test = load("compas", source)["test"]
    features = torch.tensor(test["features"][:])
    with torch.no_grad():
        expected = result.model.eval()(features=features).logits
    assert torch.equal(reloaded_logits(folder, features), expected)
    right = (expected.argmax(1).numpy() == np.asarray(test["label"][:])).mean()
    assert right == pytest.approx(summary["metrics"]["average_accuracy"])


@pytest.mark.parametrize(("model", "adapter"), [("identity", "none"), ("mlp", "full")])
def test_latents_from_the_command_line(model: str, adapter: str, tmp_path: Path) -> None:
    write_latents(tmp_path)
    options = ("--dataset", "dominoes_latents", "--data-dir", str(tmp_path), "--model", model, "--adapter", adapter)
    summary = run(tmp_path / "run", *options, "--method", "aifs")
    assert (summary["model"], summary["method"]) == (model, "aifs")
    assert summary["metrics"]["n"] == 200
    assert (tmp_path / "run" / "base_model" / "config.json").is_file()
    features = torch.tensor(load("dominoes_latents", tmp_path)["test"]["features"][:])
    logits = reloaded_logits(tmp_path / "run", features)
    right = logits.argmax(1).numpy() == np.asarray(load("dominoes_latents", tmp_path)["test"]["label"][:])
    assert right.mean() == pytest.approx(summary["metrics"]["average_accuracy"])


def test_a_model_of_tables_reads_the_metadata_of_pictures(tmp_path: Path) -> None:
    options = json.dumps({"n_train": 60, "n_validation": 20, "n_test": 20, "image_size": 16})
    summary = run(tmp_path, "--dataset", "spurious_scenes", "--dataset-options", options, "--model", "mlp",
                  "--method", "erm")  # fmt: skip
    assert summary["modality"] == "features"


def test_a_saved_base_model_is_a_model_to_start_from(tmp_path: Path) -> None:
    write_latents(tmp_path)
    data = ("--dataset", "dominoes_latents", "--data-dir", str(tmp_path), "--method", "erm")
    run(tmp_path / "first", *data)
    base = tmp_path / "first" / "base_model"
    summary = run(tmp_path / "second", *data, "--model", str(base))
    assert summary["model"] == str(base)
    assert not (tmp_path / "second" / "base_model").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "identity"), "no layers between its input and its head; adapter was 'lora'"),
        (("--model", "tiny_clip"), "no classifier of tables was found in 'tiny_clip' (it holds a model of type"),
        (("--quantization", "8bit"), "'mlp' starts from scratch and is not quantised"),
        (("--adapter", "full", "--quantization", "4bit"), "use adapter='lora'"),
    ],
)
def test_what_does_not_go_with_a_table_is_one_line(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_latents(tmp_path)
    data = ("--dataset", "dominoes_latents", "--data-dir", str(tmp_path), "--output-dir", str(tmp_path / "run"))
    assert finetune.main([*data, *options]) == 2
    assert message in capsys.readouterr().err


def test_texts_have_no_default_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "wilds"
    source.mkdir()
    write_wilds(source)
    data = ("--dataset", "civilcomments", "--data-dir", str(source), "--output-dir", str(tmp_path / "run"))
    assert finetune.main(data) == 2
    assert "No model was given and text input has no default" in capsys.readouterr().err
