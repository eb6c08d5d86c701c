"""`TabularClassifier`: sizes, standardisation, files, and the adapters that go on it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModel, ViTConfig, ViTForImageClassification

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.models.tabular import ENCODERS, TabularClassifier, TabularConfig
from aifs_peft.tuner import AIFSConfig

FEATURES = torch.randn(60, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 9, 0.1, 2, 0]) + 3


def fresh(encoder: str = "mlp") -> TabularClassifier:
    torch.manual_seed(0)
    return TabularClassifier.for_features(FEATURES, ["no", "maybe", "yes"], encoder).eval()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_files_give_an_equal_model(encoder: str, tmp_path: Path) -> None:
    model = fresh(encoder)
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), TabularConfig)
    for loader in (TabularClassifier, AutoModel):
        again = loader.from_pretrained(tmp_path)
        assert type(again) is TabularClassifier
        assert again.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
        assert again.state_dict().keys() == model.state_dict().keys()
        assert torch.equal(again(FEATURES).logits, model(FEATURES).logits)


def test_the_identity_standardises_and_nothing_else() -> None:
    model = fresh("identity")
    z = model.encoder(FEATURES)
    assert model.config.hidden_size == 5
    torch.testing.assert_close(z.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.tensor([1.0, 1, 1, 1, 0]))  # the last column is constant
    assert torch.equal(model.classifier(z), model(FEATURES).logits)


def test_the_global_generator_decides_and_a_signal_gets_through() -> None:
    assert torch.equal(fresh().encoder.fc1.weight, fresh().encoder.fc1.weight)
    assert 0.2 < fresh().encoder(FEATURES).std() < 1
    labels = torch.arange(60) % 3
    out = fresh()(features=FEATURES, labels=labels)
    assert out.loss.item() == pytest.approx(torch.nn.functional.cross_entropy(out.logits, labels).item())


@pytest.mark.parametrize(
    "tuning",
    [{}, {"encoder_adapter": LoraConfig(r=2)}, {"trained_modules": "all-linear"}],
    ids=["frozen", "lora", "full"],
)
def test_adapters_train_what_they_should_and_reload_equal(tuning: dict[str, Any], tmp_path: Path) -> None:
    base = fresh()
    before = base(FEATURES).logits
    model = get_peft_model(base, AIFSConfig(**tuning))
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert any("encoder" in name for name in trainable) == bool(tuning)
    if "trained_modules" in tuning:
        assert sum(p.numel() for p in trainable.values()) == sum(p.numel() for p in fresh().parameters())
    with torch.no_grad():
        for p in trainable.values():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    logits = model.eval()(features=FEATURES).logits
    assert not torch.equal(logits, before)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(fresh(), tmp_path).eval()
    assert torch.equal(again(features=FEATURES).logits, logits)
    with again.disable_adapter():
        assert torch.equal(again(features=FEATURES).logits, before)
    torch.testing.assert_close(model.merge_and_unload()(features=FEATURES).logits, logits)


def test_whole_layers_of_a_pretrained_model_train_and_reload_equal(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes)).save_pretrained(tmp_path / "base")
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = get_peft_model(
        ViTForImageClassification.from_pretrained(tmp_path / "base"), AIFSConfig(trained_modules="all-linear")
    )
    model(pixel_values=pixels).logits.square().sum().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum("aifs_copy" in name and name.endswith("weight") for name in trained) == 6
    assert all(p.grad is not None for p in trained.values())
    with torch.no_grad():
        for p in trained.values():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    model.save_pretrained(tmp_path / "adapter")
    base = ViTForImageClassification.from_pretrained(tmp_path / "base")
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.equal(again(pixel_values=pixels).logits, model.eval()(pixel_values=pixels).logits)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"encoder must be one of 'mlp', 'identity'; got 'tree'"):
        TabularConfig(num_features=3, encoder="tree")
    with pytest.raises(InvalidConfigError, match="must be at least 1; got 0 and 64"):
        TabularConfig(num_features=0)
    for wrong in (FEATURES[0], FEATURES[:0], FEATURES / 0):
        with pytest.raises(InvalidInputError, match="features must be finite, of shape"):
            TabularClassifier.for_features(wrong, ["a", "b"])
    with pytest.raises(InvalidInputError, match=r"features have shape \(60, 4\); this model needs \(batch, 5\)"):
        fresh()(FEATURES[:, :4])
