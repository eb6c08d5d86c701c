"""LatentClassifier: embeddings, widths, saving, loading, and AIFS on top."""

import copy
import sys
import types

import pytest
import torch
import transformers as hf
from peft import AutoPeftModel, LoraConfig, PeftModel, get_peft_model
from torch import nn
from tuner_zoo import IMAGE, SMALL, _two_towers, batch, fill_state, logits

from aifs_peft import AIFSConfig, LatentClassifier
from aifs_peft.errors import HeadError, InvalidInputError, MissingDependencyError, ModelNotFoundError
from aifs_peft.models import TabularEncoder
from aifs_peft.tuner import find_aifs_layer

ENCODERS = {
    "clip": lambda: hf.CLIPModel(_two_towers(hf.CLIPConfig)),
    "projection": lambda: hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**SMALL, **IMAGE, projection_dim=12)),
    "siglip": lambda: hf.SiglipModel(_two_towers(hf.SiglipConfig)),
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**SMALL, **IMAGE)),
    "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**SMALL, **IMAGE)),
    "mobilenet": lambda: hf.MobileNetV2Model(hf.MobileNetV2Config(depth_multiplier=0.25, image_size=16)),
    "module": lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 16)),
}
WIDTHS = {"clip": 12, "projection": 12, "siglip": 16, "vit": 16, "dinov2": 16, "mobilenet": 1280, "module": 16}


def make(name):
    torch.manual_seed(0)
    return LatentClassifier(ENCODERS[name](), num_labels=3, dim=16 if name == "module" else None).eval()


def expected_embedding(name, encoder):
    x = batch("vit")["pixel_values"]
    with torch.no_grad():
        if name == "clip":
            return encoder.visual_projection(encoder.vision_model(x).pooler_output)
        if name == "siglip":
            return encoder.vision_model(x).pooler_output
        if name == "module":
            return encoder(x)
        out = encoder(x)
    if name == "projection":
        return out.image_embeds
    return out.last_hidden_state.mean((2, 3)) if name == "mobilenet" else out.last_hidden_state[:, 0]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_embedding_is_the_one_documented(name):
    model = make(name)
    with torch.no_grad():
        z = model.embed(batch("vit"))
    assert z.shape == (4, WIDTHS[name])
    torch.testing.assert_close(z, expected_embedding(name, model.encoder))
    out = model(**batch("vit"), labels=torch.tensor([0, 1, 2, 0]))
    assert torch.isfinite(out.loss)


@pytest.mark.parametrize("kind", ["frozen", "lora"])
@pytest.mark.parametrize("name", [n for n in ENCODERS if n != "module"])
def test_aifs_on_an_encoder_without_a_head(name, kind, tmp_path):
    base = make(name)
    inner = LoraConfig(r=2, init_lora_weights=False) if kind == "lora" else None
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(num_labels=4, encoder_adapter=inner))
    fill_state(find_aifs_layer(model))
    trained = logits(model, "vit")
    with model.disable_adapter():
        assert torch.equal(logits(model, "vit"), logits(base, "vit"))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(copy.deepcopy(base), tmp_path), "vit"), trained)
    model.train()
    model(**batch("vit"), labels=torch.tensor([0, 1, 2, 3])).loss.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing  # the text tower, which images never reach, carries no adapter
    torch.testing.assert_close(logits(model.merge_and_unload(), "vit"), trained, atol=1e-4, rtol=1e-3)


def test_clip_checkpoints_load_as_their_image_tower_and_auto_peft_model_finds_the_way(tmp_path):
    torch.manual_seed(0)
    clip = hf.CLIPModel(_two_towers(hf.CLIPConfig)).eval()
    clip.save_pretrained(tmp_path / "clip")
    base = LatentClassifier.from_pretrained(tmp_path / "clip")
    assert type(base.encoder) is hf.CLIPVisionModelWithProjection
    torch.testing.assert_close(base.embed(batch("vit")), expected_embedding("clip", clip))
    model = get_peft_model(
        base, AIFSConfig(labels=["a", "b", "c"], encoder_adapter=LoraConfig(init_lora_weights=False))
    )
    fill_state(find_aifs_layer(model))
    model.save_pretrained(tmp_path / "adapter")
    assert model.peft_config["default"].base_model_name_or_path == str(tmp_path / "clip")
    auto = AutoPeftModel.from_pretrained(tmp_path / "adapter", import_allowlist=["aifs_peft"])
    assert torch.equal(logits(auto, "vit"), logits(model, "vit"))
    with pytest.raises(ValueError, match="not in the import allowlist"):
        AutoPeftModel.from_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize("name", ["vit", "projection"])
def test_saving_and_loading_the_base_itself(name, tmp_path):
    model = make(name)
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    model.save_pretrained(tmp_path)
    again = LatentClassifier.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again, "vit"), logits(model, "vit"))
    assert again.config.label2id == {"x": 0, "y": 1, "z": 2}
    other = LatentClassifier.from_pretrained(tmp_path, num_labels=7)
    assert logits(other, "vit").shape == (4, 7)


def test_tables(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(20, 5) * 3 + 1
    base = LatentClassifier(TabularEncoder(5, 8, x.mean(0), x.std(0)), num_labels=2)
    base.save_pretrained(tmp_path / "base")
    base = LatentClassifier.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, AIFSConfig(encoder_adapter=LoraConfig(init_lora_weights=False)))
    assert set(model.peft_config["default"].nested.target_modules) == {"encoder.fc1", "encoder.fc2"}
    fill_state(find_aifs_layer(model))
    model.save_pretrained(tmp_path / "adapter")
    auto = AutoPeftModel.from_pretrained(tmp_path / "adapter", import_allowlist=["aifs_peft"])
    assert torch.equal(auto(features=x).logits, model.eval()(features=x).logits)
    assert torch.equal(auto.base_model.model.encoder.mean, x.mean(0))


def test_text_encoders_and_empty_batches():
    torch.manual_seed(0)
    model = LatentClassifier(hf.BertModel(hf.BertConfig(**SMALL, vocab_size=40))).eval()
    z = model.embed(batch("bert"))
    torch.testing.assert_close(z, model.encoder(**batch("bert")).last_hidden_state[:, 0])
    with pytest.raises(InvalidInputError, match="needs pixel_values, input_ids or features"):
        model()


def test_an_unknown_width_asks_for_it():
    with pytest.raises(HeadError, match=r"embedding is unknown; pass LatentClassifier\(encoder, dim=\.\.\.\)"):
        LatentClassifier(nn.Linear(3, 4))


def test_an_encoder_that_returns_nothing_usable():
    class Odd(nn.Module):
        def forward(self, x):
            return {"y": x}

    with pytest.raises(HeadError, match="Odd returns neither a pooled output nor hidden states"):
        LatentClassifier(Odd(), dim=3)(features=torch.zeros(1, 3))


def test_missing_models(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no model '.*nowhere'"):
        LatentClassifier.from_pretrained(tmp_path / "nowhere")
    LatentClassifier(nn.Linear(3, 4), dim=4).save_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError, match="weights of a Linear, which cannot be rebuilt from JSON"):
        LatentClassifier.from_pretrained(tmp_path)


def test_open_clip_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'aifs_peft\[openclip\]'"):
        LatentClassifier.from_pretrained("ViT-B-32", library="open_clip")
    broken = types.ModuleType("open_clip")
    broken.create_model = lambda name, **options: (_ for _ in ()).throw(RuntimeError("Model config for x not found"))
    monkeypatch.setitem(sys.modules, "open_clip", broken)
    with pytest.raises(ModelNotFoundError, match="open_clip did not load 'x': Model config for x not found"):
        LatentClassifier.from_pretrained("x", library="open_clip")
