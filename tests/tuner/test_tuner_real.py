"""A real pretrained encoder: MobileNetV2 with TensorFlow padding and folded batch norms."""

import copy

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from tuner_zoo import fill_state

from aifs_peft import AIFSConfig
from aifs_peft.tuner import find_aifs_layer


@pytest.fixture(scope="module")
def base(shared_dir):
    folder = shared_dir / "models" / "mobilenet_v2_imagenet"
    if not folder.is_dir():
        pytest.skip(f"no pretrained encoder: {folder} is absent")
    return hf.AutoModelForImageClassification.from_pretrained(folder).eval()


@pytest.mark.parametrize("kind", ["frozen", "lora"])
def test_training_leaves_the_running_statistics_and_the_base_alone(base, kind, tmp_path):
    inner = LoraConfig(r=2) if kind == "lora" else None
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(labels=["car", "truck"], encoder_adapter=inner))
    layer = find_aifs_layer(model)
    assert layer.in_features == 1280
    fill_state(layer)
    x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = {k: v.clone() for k, v in base.state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):
        model(pixel_values=x, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        trained = model(pixel_values=x).logits
        with model.disable_adapter():
            assert torch.equal(model(pixel_values=x).logits, base(pixel_values=x).logits)
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
        assert torch.equal(again(pixel_values=x).logits, trained)
        plain = again.merge_and_unload()
        torch.testing.assert_close(plain(pixel_values=x).logits, trained, atol=1e-3, rtol=1e-3)
    assert plain.config.id2label == {0: "car", 1: "truck"}
    running = [k for k in before if "running" in k]
    assert running
    assert all(torch.equal(plain.state_dict()[k], before[k]) for k in running)
