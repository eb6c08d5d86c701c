"""Zero-shot heads from sentences, saved, tuned from there, and interpolated with what they were tuned to."""

import copy
from importlib.resources import files

import numpy as np
import pytest
import torch
from open_clip_alone import import_open_clip
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoProcessor, CLIPModel

from aifs_peft import AIFSConfig, LatentClassifier
from aifs_peft.discovery import embed_prompts
from aifs_peft.errors import InvalidInputError
from aifs_peft.models import wise_ft, zero_shot_classifier

FOLDER = str(files("aifs_peft") / "assets" / "tiny_clip")
PROMPTS = {
    "red": ["a red background", "a scene on a red wall"],
    "blue": "a blue background",
    "green": ["a green scene"],
}


@pytest.fixture(scope="module")
def clip():
    return CLIPModel.from_pretrained(FOLDER).eval(), AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def logits(model, pixels):
    with torch.no_grad():
        return model.eval()(pixel_values=pixels).logits


def test_an_ensemble_is_the_mean_direction_of_its_sentences(clip):
    both = embed_prompts(*clip, [["a red background", "a scene on a red wall"], "a blue background"])
    alone = embed_prompts(*clip, ["a red background", "a scene on a red wall", "a blue background"])
    mean = alone[:2].mean(axis=0)
    np.testing.assert_allclose(both[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(both[1], alone[2], atol=1e-6)
    with pytest.raises(InvalidInputError, match="or of lists of them"):
        embed_prompts(*clip, ["a red background", []])


def test_one_sentence_per_class_gives_the_logits_of_clip(clip, pixels):
    model, processor = clip
    sentences = ["a red background", "a blue background"]
    ours = logits(zero_shot_classifier(model, processor, dict(zip(["r", "b"], sentences, strict=True))), pixels)
    with torch.no_grad():
        tokens = processor(text=sentences, padding=True, return_tensors="pt")
        theirs = model(pixel_values=pixels, **tokens).logits_per_image
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_saved_and_loaded_again_it_predicts_the_same(clip, pixels, tmp_path):
    made = zero_shot_classifier(*clip, PROMPTS)
    made.save_pretrained(tmp_path)
    again = LatentClassifier.from_pretrained(tmp_path)
    assert again.config.id2label == {0: "red", 1: "blue", 2: "green"}
    torch.testing.assert_close(logits(again, pixels), logits(made, pixels))
    assert torch.allclose(again.embed({"pixel_values": pixels}).norm(dim=1), torch.ones(6))


@pytest.mark.parametrize("inner", [None, LoraConfig(r=2)], ids=["frozen", "lora"])
def test_tuned_from_there_and_interpolated(clip, pixels, inner):
    zero_shot = zero_shot_classifier(copy.deepcopy(clip[0]), clip[1], PROMPTS)
    before = copy.deepcopy(zero_shot)
    model = get_peft_model(zero_shot, AIFSConfig(encoder_adapter=inner))
    torch.testing.assert_close(logits(model, pixels), logits(before, pixels))  # it starts as the zero-shot head
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=torch.tensor([0, 1, 2, 0, 1, 2])).loss.backward()
        optimizer.step()
    tuned = model.merge_and_unload()
    assert not torch.allclose(logits(tuned, pixels), logits(before, pixels), atol=1e-2)
    for share, end in ((0.0, before), (1.0, tuned)):
        torch.testing.assert_close(
            logits(wise_ft(before, tuned, share), pixels), logits(end, pixels), atol=1e-4, rtol=1e-4
        )
    half = wise_ft(before, tuned)
    expected = (before.classifier.weight + tuned.classifier.weight) / 2
    torch.testing.assert_close(half.classifier.weight, expected)


def test_an_open_clip_model_has_a_zero_shot_head_too():
    open_clip = import_open_clip()
    vision = {"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8}
    text = {"context_length": 16, "width": 16, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    model = open_clip.model.CLIP(embed_dim=12, vision_cfg=vision, text_cfg=text).eval()
    tokenize = open_clip.SimpleTokenizer(context_length=16)
    small = torch.randn(3, 3, 16, 16)
    ours = logits(zero_shot_classifier(model, tokenize, {"a": "a disc", "b": "a cross"}), small)
    with torch.no_grad():
        image, texts, scale = model(small, tokenize(["a disc", "a cross"]))[:3]
    torch.testing.assert_close(ours, scale * image @ texts.T, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_is_refused(clip):
    with pytest.raises(InvalidInputError, match="at least two"):
        zero_shot_classifier(*clip, {"red": "a red background"})
    with pytest.raises(InvalidInputError, match="merge_and_unload"):
        wise_ft(nn.Linear(2, 1), nn.Linear(3, 1))
    with pytest.raises(InvalidInputError, match="share"):
        wise_ft(nn.Linear(2, 1), nn.Linear(2, 1), 1.5)
