"""`FusedClassifier`: pictures or texts with columns of a table, scaled alike, saved, and adapted as any model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.models import FusedClassifier, FusedConfig
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig, find_aifs_layer

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.rand(70, 3, generator=GENERATOR) * torch.tensor([1.0, 500.0, 0.0]) + 2
PIXELS = torch.randn(70, 3, 16, 16, generator=GENERATOR)
IDS = torch.randint(3, 40, (70, 6), generator=GENERATOR)
IMAGES = {"pixel_values": PIXELS, "features": FEATURES}
TEXTS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "features": FEATURES}


def encoder(name: str) -> Any:
    torch.manual_seed(1)
    image = {"image_size": 16, "patch_size": 8}
    return {
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**SMALL, **image)),
        "clip": lambda: hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**SMALL, **image, projection_dim=12)),
        "mobilenet": lambda: hf.MobileNetV2Model(hf.MobileNetV2Config(depth_multiplier=0.25, image_size=32)),
        "bert": lambda: hf.BertModel(hf.BertConfig(**SMALL, vocab_size=40)),
    }[name]()


def examples(name: str) -> dict[str, torch.Tensor]:
    return TEXTS if name == "bert" else IMAGES


def fused(name: str = "vit", tabular: str = "identity") -> FusedClassifier:
    made = encoder(name)
    torch.manual_seed(0)
    return FusedClassifier.for_examples(made, examples(name), ["no", "yes"], tabular).eval()


@torch.no_grad()
def logits(model: Any, name: str = "vit") -> torch.Tensor:
    out: torch.Tensor = model.eval()(**examples(name)).logits
    return out


@pytest.mark.parametrize("tabular", ["identity", "mlp"])
@pytest.mark.parametrize("name", ["vit", "clip", "mobilenet", "bert"])
def test_files_give_an_equal_model(name: str, tabular: str, tmp_path: Path) -> None:
    model = fused(name, tabular)
    model.save_pretrained(tmp_path)
    assert isinstance(hf.AutoConfig.from_pretrained(tmp_path), FusedConfig)
    for loader in (FusedClassifier, hf.AutoModel):
        again = loader.from_pretrained(tmp_path)
        assert type(again) is FusedClassifier
        assert again.config.id2label == {0: "no", 1: "yes"}
        assert again.blocks.fitted
        assert torch.equal(logits(again, name), logits(model, name))


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_both_kinds_of_input_get_the_same_variance(name: str) -> None:
    model = fused(name)
    with torch.no_grad():
        z = model.blocks(model.latents(examples(name)))
    assert model.blocks.widths == [16, 3]
    first, second = (part.var(0, correction=0).sum().item() for part in z.split([16, 3], 1))
    assert first == pytest.approx(19 / 2, rel=1e-3)
    assert second == pytest.approx(19 / 2, rel=1e-3)
    columns = z[:, 16:].var(0, correction=0)  # each column alike, but for the one that is constant
    torch.testing.assert_close(columns, torch.tensor([19 / 4, 19 / 4, 0.0]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("latents", ["last", "multi"])
@pytest.mark.parametrize("tuning", [{}, {"encoder_adapter": LoraConfig(r=2, init_lora_weights=False)}])
@pytest.mark.parametrize("name", ["vit", "mobilenet", "bert"])
def test_adapters_are_saved_reloaded_and_merged(name: str, tuning: Any, latents: Any, tmp_path: Path) -> None:
    base = fused(name)
    base.save_pretrained(tmp_path / "base")
    before = logits(base, name)
    model = get_peft_model(FusedClassifier.from_pretrained(tmp_path / "base"), AIFSConfig(latents=latents, **tuning))
    layer = find_aifs_layer(model)
    assert layer.state.dim == base.blocks.dim + sum(w for _, w in model.peft_config["default"].latent_blocks or [])
    with torch.no_grad():
        for parameter in layer.head.parameters():
            parameter.add_(0.1)
    after = logits(model, name)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), before)
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(FusedClassifier.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    assert torch.equal(logits(again, name), after)
    if latents == "multi":
        return
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged, name), after, atol=1e-5, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(hf.AutoModel.from_pretrained(tmp_path / "merged"), name), logits(merged, name))


@pytest.mark.parametrize("options", [{}, {"cache_latents": True}])
def test_a_trainer_trains_on_both(options: dict[str, Any], tmp_path: Path) -> None:
    """A shortcut that only the table knows: discovery finds it in the joined latents, and the head turns away."""
    rng = torch.Generator().manual_seed(3)
    rows = []
    for i in range(600):
        label = i % 2
        site = label if i % 20 > 1 else 1 - label
        pixels = 0.5 * torch.randn(3, 16, 16, generator=rng)
        pixels += 0.3 * (label - 0.5)
        features = torch.tensor([1.0 - site, float(site), float(torch.rand((), generator=rng))])
        rows.append({"pixel_values": pixels, "features": features, "label": label, "site": site})
    sample = {name: torch.stack([row[name] for row in rows[:200]]) for name in ("pixel_values", "features")}
    base = FusedClassifier.for_examples(encoder("vit"), sample, ["no", "yes"])
    args = AIFSTrainingArguments(
        str(tmp_path), num_train_epochs=6, per_device_train_batch_size=32, learning_rate=1e-2, use_cpu=True,
        disable_tqdm=True, save_strategy="no", seed=0, **options,
    )  # fmt: skip
    trainer = AIFSTrainer(get_peft_model(base, AIFSConfig()), args, train_dataset=rows)
    trainer.train()
    state = trainer.layer.state
    assert state.has_basis
    assert float(base.blocks.shares(state.basis.T)[0, 1]) > 0.9  # the table's
    values = state.groups == torch.tensor([row["site"] for row in rows])
    assert max(values.float().mean(), 1 - values.float().mean()) > 0.95


def test_what_does_not_fit_is_refused() -> None:
    model = fused()
    with pytest.raises(
        InvalidInputError, match=r"needs features, and pixel_values or input_ids; it has \['features'\]"
    ):
        model(features=FEATURES)
    with pytest.raises(InvalidInputError, match=r"features have shape \(70, 2\); this model needs \(batch, 3\)"):
        model(pixel_values=PIXELS, features=FEATURES[:, :2])
    for wrong in (
        {"pixel_values": PIXELS},
        {"features": FEATURES},
        {"pixel_values": PIXELS[:1], "features": FEATURES[:1]},
    ):
        with pytest.raises(InvalidInputError, match="examples must hold features"):
            FusedClassifier.for_examples(encoder("vit"), wrong, ["a", "b"])
    with pytest.raises(InvalidInputError, match="features must be finite, and as many as pixel_values: 70; got 69"):
        FusedClassifier.for_examples(encoder("vit"), {"pixel_values": PIXELS, "features": FEATURES[1:]}, ["a", "b"])
    with pytest.raises(InvalidConfigError, match="encoder must be one of 'mlp', 'identity'"):
        FusedConfig({"model_type": "vit"}, 3, tabular="tree")
    for unknown in (FusedConfig(), FusedConfig({"model_type": "no such model"})):
        with pytest.raises(InvalidConfigError, match="encoder must be a configuration of transformers"):
            FusedClassifier(unknown)
    with pytest.raises(InvalidConfigError, match="dictionary with its model_type"):
        FusedConfig({}, 3)


def test_a_decoder_is_read_at_its_last_token_that_is_no_padding() -> None:
    """Its first token has seen nothing of the text."""
    torch.manual_seed(0)
    llama = hf.LlamaModel(hf.LlamaConfig(**SMALL, vocab_size=40, pad_token_id=0))
    model = FusedClassifier.for_examples(llama, TEXTS, ["no", "yes"]).eval()
    assert model.get_input_embeddings() is llama.embed_tokens
    padded = {name: value[:4].clone() for name, value in TEXTS.items()}
    padded["input_ids"][:, 4:] = 0
    padded["attention_mask"][:, 4:] = 0
    short = {name: value[:, :4] if name != "features" else value for name, value in padded.items()}
    with torch.no_grad():
        z, same, other = (model.latents(inputs)[0] for inputs in (padded, short, {n: v[:4] for n, v in TEXTS.items()}))
    torch.testing.assert_close(z, same)
    assert not torch.allclose(z, other)
