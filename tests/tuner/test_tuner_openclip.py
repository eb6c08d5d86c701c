"""open_clip models through LatentClassifier."""

import copy
import json

import pytest
import torch
from open_clip_alone import import_open_clip
from peft import LoraConfig, PeftModel, get_peft_model
from tuner_zoo import batch, fill_state, logits

from aifs_peft import AIFSConfig, LatentClassifier
from aifs_peft.tuner import find_aifs_layer

open_clip = import_open_clip()

CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2},
}


def make():
    torch.manual_seed(0)
    return LatentClassifier(open_clip.model.CLIP(**CONFIG), num_labels=3).eval()


def test_the_embedding_is_encode_image():
    model = make()
    with torch.no_grad():
        z = model.embed(batch("vit"))
        assert torch.equal(z, model.encoder.encode_image(batch("vit")["pixel_values"]))
    assert model.classifier.in_features == 12


@pytest.mark.parametrize("targets", [None, ["c_fc", "c_proj"], "frozen"], ids=["attn", "mlp", "frozen"])
def test_aifs_trains_saves_reloads_and_merges(targets, tmp_path):
    base = make()
    inner = None if targets == "frozen" else LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(num_labels=4, encoder_adapter=inner))
    if targets is None:
        found = model.peft_config["default"].nested.target_modules
        assert set(found) == {f"encoder.visual.transformer.resblocks.{i}.attn" for i in range(2)}
    fill_state(find_aifs_layer(model))
    trained = logits(model, "vit")
    with model.disable_adapter():
        disabled, reference = logits(model, "vit"), logits(base, "vit")
    # PEFT's layer around nn.MultiheadAttention leaves PyTorch's fused path, disabled or not: last bits differ there.
    tolerance = {"atol": 1e-6, "rtol": 1e-5} if targets is None else {"atol": 0, "rtol": 0}
    torch.testing.assert_close(disabled, reference, **tolerance)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, adapter_name="other")
    assert torch.equal(logits(again, "vit"), trained)
    model.train()
    model(**batch("vit"), labels=torch.tensor([0, 1, 2, 3])).loss.backward()
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable)
    torch.testing.assert_close(logits(again.merge_and_unload(), "vit"), trained, atol=1e-5, rtol=1e-4)


def test_a_local_folder_is_loaded_by_its_config(tmp_path):
    encoder = make().encoder
    folder = tmp_path / "model"
    folder.mkdir()
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    torch.save(encoder.state_dict(), folder / "open_clip_pytorch_model.bin")
    model = LatentClassifier.from_pretrained(folder, num_labels=3).eval()
    assert model.config.library == "open_clip"
    with torch.no_grad():
        assert torch.equal(model.embed(batch("vit")), encoder.eval().encode_image(batch("vit")["pixel_values"]))
