"""Latents on disk: read again for the same weights and data, made again for any others, never damaged in silence."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from torch import nn

from aifs_peft import AIFSConfig, AIFSTrainingArguments
from aifs_peft.data import load
from aifs_peft.errors import InvalidInputError
from aifs_peft.experiments import FinetuneSpec, encode, run_finetune
from aifs_peft.experiments.latent_cache import LatentCache, latent_key
from aifs_peft.experiments.prepare import ImageEncoder, PreparedDataset, TextEncoder, encode_features
from aifs_peft.models import load_model, load_processor
from aifs_peft.tuner import find_aifs_layer

ROWS = {"features": [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], "label": [0, 1, 0]}


def _features(rows=ROWS):
    return PreparedDataset(Dataset.from_dict(rows), encode_features)


def _lengths(texts):
    return {"input_ids": torch.tensor([[len(text)] for text in texts])}


class _Counting:
    """An encoder's pass that counts how often it runs."""

    def __init__(self, Z: torch.Tensor) -> None:
        self.Z, self.passes = Z, 0

    def __call__(self) -> torch.Tensor:
        self.passes += 1
        return self.Z.clone()


@pytest.fixture(scope="module")
def scenes():
    return load("spurious_scenes", n_train=12, n_validation=8, n_test=8, image_size=32)


def test_the_same_weights_and_data_are_encoded_once_and_are_equal(tmp_path):
    model, data, made = nn.Linear(2, 2), _features(), _Counting(torch.randn(3, 4))
    first = LatentCache(tmp_path).get(model, data, made)
    second = LatentCache(tmp_path).get(model, _features(), made)
    assert made.passes == 1
    assert torch.equal(first, second)


def test_what_is_written_to_the_latents_does_not_reach_the_folder(tmp_path):
    model, data, made = nn.Linear(2, 2), _features(), _Counting(torch.randn(3, 4))
    for _ in range(2):
        LatentCache(tmp_path).get(model, data, made).fill_(7.0)
    assert torch.equal(LatentCache(tmp_path).get(model, data, made), made.Z)
    assert made.passes == 1


@pytest.mark.parametrize("change", ["weight", "buffer", "structure", "row", "order", "fewer rows"])
def test_anything_the_latents_depend_on_changes_the_key(change):
    torch.manual_seed(0)
    model, rows = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), {name: list(v) for name, v in ROWS.items()}
    key = latent_key(model, _features())
    if change == "weight":
        model[0].weight.data[0, 0] += 1e-6
    elif change == "buffer":
        model[1].running_mean[0] = 1.0
    elif change == "structure":
        model = nn.Sequential(*model, nn.Identity(), nn.Linear(2, 2))
    elif change == "row":
        rows["features"][1] = [2.0, 3.0000002]
    elif change == "order":
        rows["features"] = rows["features"][::-1]
    else:
        rows = {name: values[:2] for name, values in rows.items()}
    assert latent_key(model, _features(rows)) != key


def test_the_columns_that_are_read_beside_the_inputs_change_the_key():
    model, rows, sites = nn.Linear(2, 2), Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}), torch.eye(2)

    def key(beside):
        return latent_key(model, PreparedDataset(rows, _lengths, beside=beside))

    assert key(sites) == key(sites.clone())
    assert len({key(None), key(sites), key(sites.flip(0))}) == 3


def test_labels_and_names_do_not_change_the_key():
    model = nn.Linear(2, 2)
    assert latent_key(model, _features()) == latent_key(model, _features({**ROWS, "label": [1, 1, 1]}))


def test_another_preparation_changes_the_key(scenes):
    model = load_model("tiny_clip", modality="image", label_names=["a", "b"])
    keys = set()
    for mean in (0.5, 0.4):
        processor = load_processor("tiny_clip", modality="image")
        processor.image_mean = [mean] * 3
        data = PreparedDataset(scenes["test"], ImageEncoder(processor), cache_bytes=0)
        keys |= {latent_key(model, data)}
    assert len(keys) == 2
    tokenizer = load_processor("tiny_clip", modality="text")
    texts = Dataset.from_dict({"text": ["a cat", "a dog"], "label": [0, 1]})
    assert len({latent_key(model, PreparedDataset(texts, TextEncoder(tokenizer, n))) for n in (8, 16)}) == 2


@pytest.mark.parametrize("damage", ["cut short", "another number", "no manifest", "not JSON", "empty"])
def test_a_damaged_entry_is_told_and_made_again(damage, tmp_path, caplog):
    model, data, made = nn.Linear(2, 2), _features(), _Counting(torch.randn(3, 4))
    LatentCache(tmp_path).get(model, data, made)
    (entry,) = tmp_path.iterdir()
    latents, manifest = entry / "latents.npy", entry / "manifest.json"
    if damage == "cut short":
        latents.write_bytes(latents.read_bytes()[:-8])
    elif damage == "another number":
        np.save(latents, made.Z.numpy() + 1)
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "not JSON":
        manifest.write_text("{")
    else:
        latents.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(LatentCache(tmp_path).get(model, data, made), made.Z)
    assert made.passes == 2
    assert "is damaged" in caplog.text
    assert torch.equal(LatentCache(tmp_path).get(model, data, made), made.Z)
    assert made.passes == 2


def test_rows_that_change_when_read_are_not_kept_and_this_is_told(tmp_path, caplog):
    rows, rng = Dataset.from_dict(ROWS), np.random.default_rng(0)
    rows.set_transform(lambda batch: {**batch, "features": [rng.normal(f) for f in batch["features"]]})
    made = _Counting(torch.randn(3, 4))
    data = PreparedDataset(rows, encode_features, cache_bytes=0, column="features")
    with caplog.at_level(logging.WARNING):
        LatentCache(tmp_path / "kept").get(nn.Linear(2, 2), data, made)
    assert "set_transform" in caplog.text
    assert not (tmp_path / "kept").exists()


def test_writers_at_the_same_time_leave_one_whole_entry(tmp_path):
    model, data, Z = nn.Linear(2, 2), _features(), torch.randn(3, 4)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: LatentCache(tmp_path).get(model, data, lambda: Z), range(16)))
    assert all(torch.equal(one, Z) for one in found)
    assert [path.name for path in tmp_path.iterdir()] == [latent_key(model, data)]


def test_a_folder_that_cannot_be_written_is_refused_with_its_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="file"):
        LatentCache(tmp_path / "file").get(nn.Linear(2, 2), _features(), lambda: torch.randn(3, 4))


def test_encode_reads_what_an_earlier_call_kept(scenes, tmp_path, monkeypatch):
    first = encode("tiny_clip", scenes, cache_dir=tmp_path)
    entries = sorted(path.name for path in tmp_path.iterdir())
    assert len(entries) == 3
    assert json.loads((tmp_path / entries[0] / "manifest.json").read_text())["dim"] == 160

    def refuse(*_args, **_kwargs):
        raise AssertionError("the pictures were prepared again")

    monkeypatch.setattr(ImageEncoder, "__call__", refuse)
    again = encode("tiny_clip", scenes, cache_dir=tmp_path)
    assert again["test"]["features"][:] == first["test"]["features"][:]


def test_a_second_run_of_another_seed_encodes_nothing(tmp_path, monkeypatch):
    def run(seed: int):
        args = AIFSTrainingArguments(
            output_dir=str(tmp_path / f"run{seed}"), num_train_epochs=1, use_cpu=True, disable_tqdm=True, seed=seed,
            report_to="none",
        )  # fmt: skip
        spec = FinetuneSpec(
            dataset="spurious_scenes", adapter="none", latent_cache=str(tmp_path / "kept"), audit=False,
            dataset_options={"n_train": 40, "n_validation": 16, "n_test": 16, "image_size": 32},
        )  # fmt: skip
        return run_finetune(spec, args, [])

    run(0)
    kept = {path: path.stat().st_mtime_ns for path in Path(tmp_path / "kept").rglob("*")}
    monkeypatch.setattr(ImageEncoder, "__call__", lambda *_: pytest.fail("encoded again"))
    assert run(1).metrics["n"] == 16
    assert {path: path.stat().st_mtime_ns for path in Path(tmp_path / "kept").rglob("*")} == kept


def test_encoding_by_name_says_nothing_of_a_head_that_nobody_reads(scenes, capsys, caplog):
    with caplog.at_level(logging.WARNING):
        encode("tiny_clip", scenes["test"])
    assert "MISSING" not in caplog.text
    assert "MISSING" not in capsys.readouterr().err


def test_the_layers_that_are_read_and_their_scales_change_the_key(scenes):
    data = PreparedDataset(scenes["test"], ImageEncoder(load_processor("tiny_clip", modality="image")), cache_bytes=0)

    def adapted(latents):
        return get_peft_model(
            load_model("tiny_clip", modality="image", label_names=["a", "b"]), AIFSConfig(latents=latents)
        )

    last, multi, scaled = adapted("last"), adapted("multi"), adapted("multi")
    blocks = find_aifs_layer(scaled).blocks
    blocks.fit(torch.randn(9, blocks.dim, generator=torch.Generator().manual_seed(0)))
    assert latent_key(multi, data) == latent_key(adapted("multi"), data)
    assert len({latent_key(model, data) for model in (last, multi, scaled)}) == 3
