"""A sweep over transformers' architectures: a short sample here, all of them behind the marker `architectures`."""

import os
import subprocess
import sys
from pathlib import Path

import architectures
import pytest
import torch
import transformers
from architectures import ROWS, Row, classifier, config_for, inputs_for, run_one, save_encoder
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

from aifs_peft import AIFSConfig
from aifs_peft.errors import HeadError, InvalidConfigError
from aifs_peft.tuner.merging import check_mergeable
from aifs_peft.tuner.trial import decides, taking_part

# Reasons for which an architecture may not work; anything else is a fault of ours.
ALLOWED = ("equal", "refused: ", "not tried: ")
SAMPLE = {
    "image": {"convnext": "equal", "regnet": "equal", "swin": "equal", "textnet": "equal", "swiftformer": "refused"},
    "text": {
        "bart": "equal",
        "canine": "equal",
        "fnet": "equal",
        "t5": "equal",
        "xlnet": "equal",
        "opt": "equal",
        "qwen3": "equal",
        "t5gemma": "refused",
    },
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(level)


def fresh_process(folder: Path) -> dict[str, torch.Tensor]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, architectures.__file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(folder / "fresh.safetensors")


def sweep(cases: list[tuple[str, str]], folder: Path) -> list[Row]:
    rows, expected = [], {}
    for kind, model_type in cases:
        row, logits = run_one(kind, model_type, folder / kind / model_type)
        rows.append(row)
        expected |= {f"{kind}/{model_type}/{tuning}": value for tuning, value in logits.items()}
    found = fresh_process(folder)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    return rows


def test_a_sample_of_architectures(tmp_path):
    cases = [(kind, name) for kind, names in SAMPLE.items() for name in names]
    for row in sweep(cases, tmp_path):
        expected = SAMPLE[row.kind][row.model_type]
        assert row.frozen.startswith(expected), row
        assert row.lora.startswith(expected), row


@pytest.mark.architectures
@pytest.mark.filterwarnings("ignore")  # of architectures' own code
def test_all_architectures(tmp_path):
    cases = [(kind, name) for kind in architectures.MAPPINGS for name in architectures.names(kind)]
    rows = sweep(cases, tmp_path)
    assert [row for row in rows if not (row.frozen.startswith(ALLOWED) and row.lora.startswith(ALLOWED))] == []
    assert sum(row.frozen == "equal" for row in rows) >= 80


def loaded(kind, model_type, folder):
    save_encoder(kind, config_for(kind, model_type), folder)
    return classifier(kind, folder, seed=0)


def test_a_head_that_does_not_have_the_last_word_is_refused(tmp_path):
    model = loaded("image", "swiftformer", tmp_path)  # averages two heads
    assert decides(model, "head") is False
    with pytest.raises(
        HeadError, match="logits of this SwiftFormerForImageClassification are not what its head 'head'"
    ):
        get_peft_model(model, AIFSConfig())


def test_a_trial_knows_what_a_prediction_depends_on_and_leaves_the_model_alone(tmp_path):
    model = loaded("text", "canine", tmp_path).train()
    model.requires_grad_(False)
    modes = {module: module.training for module in model.modules()}
    before = torch.get_rng_state()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    unused = set(names) - set(taking_part(model, names))
    assert unused
    assert all("final_char_encoder" in name or "projection" in name for name in unused)
    assert decides(model, "classifier") is True
    assert {module: module.training for module in model.modules()} == modes
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module._forward_hooks for module in model.modules())


class Standardised(nn.Conv2d):
    """Standardises its weight at every call."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias)


class Plain(nn.Conv2d):
    """Has a forward of its own that computes what torch's does: merging into it is exact."""

    def forward(self, x):
        return super().forward(x.contiguous())


class Tiny(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.conv, self.classifier = layer(3, 8, 1), nn.Linear(8, 3)

    def forward(self, pixel_values):
        return self.classifier(self.conv(pixel_values).mean((2, 3)))


def tiny(layer):
    torch.manual_seed(0)
    inner = LoraConfig(r=2, target_modules=["conv"], init_lora_weights=False)
    return get_peft_model(Tiny(layer), AIFSConfig(encoder_adapter=inner)).eval()


@pytest.mark.parametrize("merge", ["merge_and_unload", "merge_adapter"])
def test_merging_into_a_layer_that_transforms_its_weight_is_refused(merge):
    pixels = inputs_for("image", config_for("image", "vit"))["pixel_values"][:, :, :8, :8]
    assert len(pixels) == ROWS
    model = tiny(Standardised)
    before = model(pixels)
    with pytest.raises(InvalidConfigError, match="'conv' is a Standardised, which transforms its weight"):
        getattr(model, merge)()
    assert torch.equal(model(pixels), before)
    model = tiny(Plain)
    before = model(pixels)
    merged = getattr(model, merge)() or model
    torch.testing.assert_close(merged(pixels), before, atol=1e-5, rtol=1e-4)
    check_mergeable(merged)
