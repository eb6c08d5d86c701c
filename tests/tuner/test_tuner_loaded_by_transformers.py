"""An adapter folder that transformers loads itself: what is missing or damaged in it is refused, as with PEFT."""

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.tuner import AIFSConfig, find_aifs_layer

WEIGHTS = "adapter_model.safetensors"
PIXELS = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of an adapter, its tensors, its logits, and the folder of its base model."""
    base, folder = (tmp_path_factory.mktemp(name) for name in ("base", "adapter"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    hf.ViTForImageClassification(hf.ViTConfig(num_labels=2, image_size=8, patch_size=4, **sizes)).save_pretrained(base)
    model = get_peft_model(
        hf.AutoModelForImageClassification.from_pretrained(base),
        AIFSConfig(encoder_adapter=LoraConfig(target_modules=["q_proj"], r=2)),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    find_aifs_layer(model).state.update(mask=torch.linspace(0, 1, 8))
    model.save_pretrained(folder)
    return folder, load_file(folder / WEIGHTS), model.eval()(PIXELS).logits, base


def load(saved, tensors):
    folder = saved[0]
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return hf.AutoModelForImageClassification.from_pretrained(folder)


def test_a_sound_one_gives_its_logits_and_can_be_moved_and_frozen(saved):
    model = load(saved, saved[1])
    torch.testing.assert_close(model(PIXELS).logits, saved[2])
    model.to(torch.float64).requires_grad_(requires_grad=False)
    for module in model.modules():
        module.requires_grad_(requires_grad=False)


@pytest.mark.parametrize(
    ("part", "told"), [("aifs_head", "aifs_head.default"), ("lora_B", "lora_B"), ("aifs_state.mask", "mask"), ("", "")]
)
def test_what_is_missing_is_refused(saved, part, told):
    with pytest.raises(CheckpointMismatchError, match=rf"{told}.*: not saved"):
        load(saved, {name: value for name, value in saved[1].items() if part not in name})


@pytest.mark.parametrize("part", ["aifs_head", "lora_A", "aifs_state.mask", "aifs_state.ema"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(saved, part, value):
    damaged = {n: torch.full_like(v, value) if part in n else v for n, v in saved[1].items()}
    with pytest.raises(CheckpointMismatchError, match="holds NaN or infinite values"):
        load(saved, damaged)


def test_a_state_that_no_training_makes_is_refused(saved):
    damaged = {n: v + 7 if "aifs_state.mask" in n else v for n, v in saved[1].items()}
    with pytest.raises(CheckpointMismatchError, match=r"state is damaged: mask must lie in \[0, 1\]"):
        load(saved, damaged)


@pytest.mark.parametrize("loaded", [True, False])
def test_an_adapter_that_peft_loads_or_makes_is_left_alone(saved, loaded):
    base = hf.AutoModelForImageClassification.from_pretrained(saved[3])
    save_file(saved[1], saved[0] / WEIGHTS, {"format": "pt"})
    layer = find_aifs_layer(PeftModel.from_pretrained(base, saved[0]) if loaded else get_peft_model(base, AIFSConfig()))
    assert layer.requires_grad_(requires_grad=False) is layer
    assert not any(parameter.requires_grad for parameter in layer.parameters())
