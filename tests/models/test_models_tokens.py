"""Token features in the space of the latents: found for each architecture, refused where there are none."""

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    SiglipConfig,
    SiglipForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from aifs_peft.errors import InvalidConfigError
from aifs_peft.models import resolve_tokens
from aifs_peft.tuner import AIFSConfig, find_aifs_layer

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE = {"image_size": 16, "patch_size": 4}
TEXT = {"vocab_size": 40, "max_position_embeddings": 24}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
TOWER = {**SIZES, "vocab_size": 30, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}

CASES = {
    "vit": (lambda: ViTForImageClassification(ViTConfig(**SIZES, **IMAGE)), "layernorm", 1),
    "clip": (
        lambda: CLIPForImageClassification(CLIPConfig(vision_config={**SIZES, **IMAGE}, text_config=TOWER)), "", 1
    ),
    "siglip": (
        lambda: SiglipForImageClassification(SiglipConfig(vision_config={**SIZES, **IMAGE}, text_config=TOWER)),
        "post_layernorm",
        0,
    ),
    "roberta": (lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES, **TEXT)), "", 1),
    "bert": (lambda: BertForSequenceClassification(BertConfig(**SIZES, **TEXT)), "pooler.dense", 1),
    "distilbert": (
        lambda: DistilBertForSequenceClassification(DistilBertConfig(**DISTIL, **TEXT)), "pre_classifier", 1
    ),
}  # fmt: skip


def forward(model, images):
    """Last hidden states, latents and inputs of two examples in evaluation mode."""
    torch.manual_seed(1)
    wrapped = get_peft_model(model, AIFSConfig.paper()).eval()
    if images:
        inputs = {"pixel_values": torch.randn(2, 3, 16, 16)}
    else:
        mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
        inputs = {"input_ids": torch.randint(5, 30, (2, 9)), "attention_mask": mask}
    with torch.no_grad():
        hidden = wrapped(**inputs, output_hidden_states=True)["hidden_states"][-1]
    return wrapped, hidden, find_aifs_layer(wrapped).take_output().z, inputs


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_mapped_as_the_latent_is(name):
    torch.manual_seed(0)
    make, ending, prefix = CASES[name]
    images = name in ("vit", "clip", "siglip")
    model, hidden, z, inputs = forward(make(), images)
    tokens = resolve_tokens(
        model, hidden, z, attention_mask=inputs.get("attention_mask"), pixels=inputs.get("pixel_values")
    )
    assert tokens.name.endswith(ending)
    assert (tokens.name == "") == (ending == "")
    assert tokens.prefix == prefix
    assert tokens.grid == ((4, 4) if images else None)
    features = tokens(hidden)
    assert features.shape == (2, hidden.shape[1] - prefix, z.shape[1])
    whole = tokens.transform(hidden)
    pooled = whole.mean(1) if name == "siglip" else whole[:, 1:].mean(1) if name == "clip" else whole[:, 0]
    torch.testing.assert_close(pooled, z, atol=1e-5, rtol=1e-4)
    mask = tokens.mask(inputs.get("attention_mask"))
    assert mask is None if images else mask.shape == (2, 8)


def test_a_latent_that_is_no_pooled_token_is_refused():
    torch.manual_seed(0)
    model, hidden, z, inputs = forward(Dinov2ForImageClassification(Dinov2Config(**SIZES, **IMAGE)), images=True)
    with pytest.raises(InvalidConfigError, match="of another width"):
        resolve_tokens(model, hidden, z, pixels=inputs["pixel_values"])
    with pytest.raises(InvalidConfigError, match=r"off by .* \(relative\)"):
        resolve_tokens(model, hidden, torch.randn(2, 16), pixels=inputs["pixel_values"])


def test_the_grid_comes_from_the_patch_size_or_from_a_square():
    hidden = torch.randn(2, 9, 4)
    pixels = torch.zeros(2, 3, 12, 12)
    assert resolve_tokens(nn.Linear(2, 2), hidden, hidden[:, 0], pixels=pixels).grid == (3, 3)
    with pytest.raises(InvalidConfigError, match="8 tokens of images of"):
        resolve_tokens(nn.Linear(2, 2), hidden[:, :8], hidden[:, 0], pixels=pixels)


def test_half_precision_features_come_out_in_single():
    hidden = torch.randn(2, 5, 4).bfloat16()
    tokens = resolve_tokens(nn.Linear(2, 2), hidden, hidden[:, 0].float())
    assert tokens(hidden).dtype == torch.float32
