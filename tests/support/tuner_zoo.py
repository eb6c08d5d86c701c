"""Tiny random models of every supported family, built from configurations, with inputs for them.

Also run as a script in a fresh process: `python tuner_zoo.py FOLDER NAME...` reloads saved adapters, prints their
logits' digest and writes them, so that a test can compare them bit for bit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers as hf
from peft import IA3Config, LoraConfig

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE = {"image_size": 16, "patch_size": 8}
TEXT = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}


def _two_towers(cls):
    extra = {"projection_dim": 12} if cls is hf.CLIPConfig else {}
    text = {**SMALL, **TEXT, **extra}
    return cls(vision_config={**SMALL, **IMAGE, **extra}, text_config=text, num_labels=3, **extra)


def build(name: str) -> torch.nn.Module:
    """A fresh model with 3 classes; the same weights for the same name."""
    torch.manual_seed(sum(map(ord, name)))
    makers = {
        "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**SMALL, **IMAGE, num_labels=3)),
        "dinov2": lambda: hf.Dinov2ForImageClassification(
            hf.Dinov2Config(**{**SMALL, "mlp_ratio": 2}, **IMAGE, num_labels=3)
        ),
        "siglip": lambda: hf.SiglipForImageClassification(_two_towers(hf.SiglipConfig)),
        "clip": lambda: hf.CLIPForImageClassification(_two_towers(hf.CLIPConfig)),
        "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**SMALL, **TEXT, num_labels=3)),
        "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**SMALL, vocab_size=40, num_labels=3)),
        "distilbert": lambda: hf.DistilBertForSequenceClassification(
            hf.DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=32, num_labels=3)
        ),
        "mobilenet": lambda: hf.MobileNetV2ForImageClassification(
            hf.MobileNetV2Config(depth_multiplier=0.25, image_size=32, tf_padding=True, num_labels=3)
        ),
    }
    return makers[name]().eval()


IMAGE_MODELS = ("vit", "dinov2", "siglip", "clip")
TEXT_MODELS = ("roberta", "bert", "distilbert")


def batch(name: str, n: int = 4) -> dict[str, torch.Tensor]:
    """Inputs for a model, always the same."""
    generator = torch.Generator().manual_seed(0)
    if name in TEXT_MODELS:
        ids = torch.randint(3, 40, (n, 6), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    size = 32 if name == "mobilenet" else 16
    return {"pixel_values": torch.randn(n, 3, size, size, generator=generator)}


def encoder_adapter(kind: str):
    """Configurations whose initial weights already change the model."""
    return {
        "frozen": lambda: None,
        "lora": lambda: LoraConfig(r=2, init_lora_weights=False),
        "dora": lambda: LoraConfig(r=2, use_dora=True, init_lora_weights=False),
        "ia3": lambda: IA3Config(init_ia3_weights=False),
    }[kind]()


def fill_state(layer) -> None:
    """A mask, basis, displacements, groups and evidence that are not the initial ones, and a trained-looking head."""
    generator = torch.Generator().manual_seed(1)
    d = layer.in_features
    basis, _ = torch.linalg.qr(torch.randn(d, 2, generator=generator))
    layer.state.update(
        mask=torch.tensor([0.25, 1.0]),
        basis=basis,
        displacements=torch.randn(3, d, generator=generator),
        ema=torch.rand(d, generator=generator, dtype=torch.float64),
        groups=torch.randint(0, 3, (11,), generator=generator),
        evidence=torch.tensor([1.5, -0.25], dtype=torch.float64),
    )
    with torch.no_grad():
        for p in layer.head.parameters():
            p.add_(torch.randn(p.shape, generator=generator).to(p) * 0.1)


@torch.no_grad()
def logits(model, name: str) -> torch.Tensor:
    """Logits in eval mode; the mode before is restored."""
    mode = model.training
    model.eval()
    out = model(**batch(name)).logits
    model.train(mode)
    return out


def _main(folder: Path, names: list[str]) -> None:
    from peft import PeftModel
    from safetensors.torch import save_file

    import aifs_peft  # noqa: F401 - registers AIFS

    found = {}
    for case in names:
        name = case.split("-")[0]
        base = type(build(name)).from_pretrained(folder / name)
        model = PeftModel.from_pretrained(base, folder / case)
        found[f"{case}/logits"] = logits(model, name)
        for key, value in model.state_dict().items():
            if "aifs_" in key:
                found[f"{case}/{key}"] = value.clone()
    save_file(found, folder / "fresh.safetensors")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
