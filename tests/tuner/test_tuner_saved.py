"""Adapters that were written by this release and earlier ones predict what they predicted then."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from saved_adapters import CONFIGS, EXPECTED, SAVED, base_model, observed, write

from aifs_peft import __version__
from aifs_peft.tuner import find_aifs_layer

FOLDERS = sorted(path.name for path in SAVED.iterdir() if path.is_dir())


def test_every_recipe_of_this_release_is_there():
    assert {f"{__version__}-{name}" for name in CONFIGS} <= set(FOLDERS)
    assert sum(file.stat().st_size for file in SAVED.rglob("*") if file.is_file()) < 150_000


@pytest.mark.parametrize("name", FOLDERS)
def test_a_saved_adapter_predicts_what_it_did(name):
    then = json.loads((SAVED / name / EXPECTED).read_text())
    now = observed(PeftModel.from_pretrained(base_model(), str(SAVED / name)))
    np.testing.assert_allclose(now["logits"], then["logits"], rtol=1e-5, atol=1e-6)
    for buffer, value in then["state"].items():
        assert now["state"][buffer] == value, buffer
    assert np.abs(np.asarray(then["logits"])).max() > 0.01


@pytest.mark.parametrize("name", CONFIGS)
def test_it_trains_on_and_is_saved_as_it_was_loaded(name, tmp_path):
    model = PeftModel.from_pretrained(base_model(), str(SAVED / f"{__version__}-{name}"), is_trainable=True)
    assert any(parameter.requires_grad for parameter in find_aifs_layer(model).head.parameters())
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base_model(), str(tmp_path))
    assert observed(again) == observed(model)


def test_what_is_written_now_has_the_same_names_and_shapes(tmp_path):
    from safetensors.torch import load_file

    for name in CONFIGS:
        write(name, tmp_path / name)
        now = load_file(tmp_path / name / "adapter_model.safetensors")
        then = load_file(SAVED / f"{__version__}-{name}" / "adapter_model.safetensors")
        assert {key: value.shape for key, value in now.items()} == {key: value.shape for key, value in then.items()}
        assert all(torch.equal(now[key], then[key]) for key in now)
