"""Runs whose training split is streamed: the numbers of the same run in memory, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from PIL import Image

from aifs_peft.cli.evaluate import main as evaluate
from aifs_peft.cli.finetune import main
from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.experiments import FinetuneSpec, loading, run_finetune
from aifs_peft.experiments.streamed import PreparedStream, check_streaming
from aifs_peft.training import AIFSTrainingArguments

pytestmark = pytest.mark.filterwarnings("ignore:.*fewer than 10 test examples")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Tables of pictures in three splits; the mark in the corner goes with the finding for most."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "p").mkdir()
    rng = np.random.default_rng(0)
    for part, n in (("train", 96), ("validation", 32), ("test", 32)):
        y = rng.integers(0, 2, n)
        site = np.where(rng.random(n) < 0.9, y, 1 - y)
        rows = []
        for i in range(n):
            pixels = rng.integers(0, 60, (16, 16, 3)).astype(np.uint8)
            pixels[:4, :4, 0] += np.uint8(180 * site[i])
            pixels[8:, 8:, 1] += np.uint8(120 * y[i])
            Image.fromarray(pixels).save(folder / "p" / f"{part}{i}.png")
            rows.append({"path": f"p/{part}{i}.png", "finding": "ab"[y[i]], "site": "AB"[site[i]]})
        pd.DataFrame(rows).to_csv(folder / f"{part}.csv", index=False)
    return folder


def run(folder: Path, out: Path, **options):
    spec = FinetuneSpec(dataset=str(folder), image="path", label="finding", attribute="site", **options)
    args = AIFSTrainingArguments(
        str(out), num_train_epochs=1, per_device_train_batch_size=32, save_strategy="no", report_to="none",
        use_cpu=True, learning_rate=1e-3, disable_tqdm=True,
    )  # fmt: skip
    return run_finetune(spec, args, callbacks=[])


def test_a_frozen_encoder_gives_the_run_of_the_set_in_memory(pictures, tmp_path):
    """Its latents are held, so that any method trains on them, in any order."""
    whole = run(pictures, tmp_path / "a", adapter="none")
    streamed = run(pictures, tmp_path / "b", adapter="none", streaming=True)
    assert np.array_equal(streamed.logits, whole.logits)
    assert streamed.summary["metrics"] == whole.summary["metrics"]
    assert streamed.summary["groups"] == whole.summary["groups"]
    assert streamed.summary["audit"]["groups"] == whole.summary["audit"]["groups"]
    assert streamed.summary["comparison"] == whole.summary["comparison"]


def test_a_tuned_encoder_trains_on_the_stream(pictures, tmp_path):
    result = run(pictures, tmp_path, streaming=True)
    assert result.summary["state"] is not None
    assert result.trainer.state.global_step == 3
    assert result.trainer.args.stream_shuffle_buffer == 1000
    assert result.logits.shape == (32, 2)
    assert isinstance(result.prepared["train"], PreparedStream)


def test_the_command(pictures, tmp_path, capsys):
    words = ["--dataset", str(pictures), "--image", "path", "--label", "finding", "--streaming", "--use-cpu", "true",
             "--epochs", "1", "--json", "--quiet", "--output-dir", str(tmp_path / "run")]  # fmt: skip
    assert main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["spec"]["streaming"]
    assert summary["modality"] == "image"
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()


def test_a_streamed_run_is_evaluated_without_holding_its_training_split(pictures, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    data = ["--dataset", str(pictures), "--image", "path", "--label", "finding", "--attribute", "site"]
    words = [*data, "--streaming", "--adapter", "none", "--use-cpu", "--epochs", "1", "--quiet"]
    assert main([*words, "--output-dir", str(folder)]) == 0

    def results(*more):
        capsys.readouterr()
        assert evaluate([str(folder), "--use-cpu", "--json", "--quiet", *more]) == 0
        return json.loads(capsys.readouterr().out)

    whole = {part: results(*data, "--part", part) for part in ("train", "validation")}
    monkeypatch.setattr(loading, "load_data", None)  # nobody loads all of it
    summary = json.loads((folder / "summary.json").read_text())
    assert results()["metrics"]["groups"] == summary["metrics"]["groups"]
    for part, told in whole.items():
        streamed = results("--part", part)
        assert (streamed["n"], streamed["comparison"]) == (told["n"], told["comparison"])
        assert results(*data, "--streaming", "--part", part)["comparison"] == told["comparison"]
    assert results(*data, "--streaming")["part"] == "test"
    assert evaluate([str(folder), *data, "--streaming", "--part", "all"]) == 2
    assert "streaming reads one part of the data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--method", "jtt"], "a streamed training set gives each example once per epoch, and method 'jtt' draws"),
        (["--test-share", "0.2"], "streaming cuts no splits, which needs all rows: test_share cannot be given"),
        (["--split", "random"], "streaming cuts no splits"),
        (["--latent-cache", "cache"], "leave one of latent_cache and streaming out"),
    ],
)
def test_what_needs_the_whole_set_is_refused_in_one_line(pictures, tmp_path, capsys, options, told):
    words = ["--dataset", str(pictures), "--image", "path", "--label", "finding", "--streaming", "--use-cpu", "true"]
    assert main([*words, *options, "--output-dir", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert told in lines[-1]
    assert lines[-1].startswith("error: ")


def test_a_known_data_set_is_streamed(tmp_path):
    spec = FinetuneSpec(
        dataset="spurious_scenes", dataset_options={"n_train": 64, "n_validation": 16, "n_test": 16, "image_size": 16},
        adapter="none", streaming=True, audit=False, baseline="none",
    )  # fmt: skip
    args = AIFSTrainingArguments(str(tmp_path), num_train_epochs=1, save_strategy="no", report_to="none", use_cpu=True)
    streamed = run_finetune(spec, args, callbacks=[])
    spec.streaming = False
    whole = run_finetune(spec, args, callbacks=[])
    assert np.array_equal(streamed.logits, whole.logits)
    assert streamed.summary["group_definition"] == whole.summary["group_definition"]


def stream(inputs, n=3):
    rows = Dataset.from_dict({"label": [0, 1, 1][:n]})
    return PreparedStream(rows, inputs, lambda part: {"x": torch.tensor([[float(v)] for v in part])}, "features")


def test_rows_are_read_on_and_from_the_beginning_again():
    passes = []

    def inputs():
        passes.append(1)
        yield [1, 2]
        yield [3]

    data = stream(inputs)
    assert [data.batch(i, i + 1)["x"].item() for i in range(3)] == [1.0, 2.0, 3.0]
    assert len(passes) == 1
    assert data.batch(1, 3)["x"].flatten().tolist() == [2.0, 3.0]
    assert data.batch(0, 1)["x"].item() == 1.0
    assert len(passes) == 3


@pytest.mark.parametrize("given", [[1, 2], [1, 2, 3, 4]])
def test_a_stream_of_another_length_is_told(given):
    with pytest.raises(InvalidInputError, match=rf"gave {len(given)} examples on this pass, and 3 on the first one"):
        list(stream(lambda: iter([given])))


def test_what_is_checked_before_anything_is_loaded():
    check_streaming(FinetuneSpec(dataset="folder", streaming=True))
    with pytest.raises(InvalidConfigError, match="latent_cache"):
        check_streaming(FinetuneSpec(dataset="folder", streaming=True, latent_cache="kept"))
