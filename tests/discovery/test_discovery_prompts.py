"""Text prompts as hints, with the embedded CLIP and real images."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, CLIPModel

from aifs_peft.discovery import discover, embed_prompts
from aifs_peft.errors import InvalidInputError

FOLDER = str(files("aifs_peft") / "assets" / "tiny_clip")


@pytest.fixture(scope="module")
def clip():
    return CLIPModel.from_pretrained(FOLDER).eval(), AutoProcessor.from_pretrained(FOLDER)


def coloured_blocks(n, rho, seed=0):
    """A light or dark square (the label) on a red or blue ground (the attribute), with noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < rho, y, 1 - y)
    images = rng.normal(0, 25, (n, 32, 32, 3)) + np.array([[200, 60, 60], [60, 60, 200]])[a][:, None, None]
    for i in range(n):
        top, left = rng.integers(4, 16, 2)
        images[i, top : top + 12, left : left + 12] = (225 if y[i] else 25) + rng.normal(0, 25, (12, 12, 3))
    return np.clip(images, 0, 255).astype(np.uint8), y, a


def test_prompts_name_an_attribute_of_images(clip):
    model, processor = clip
    images, y, a = coloured_blocks(1500, 0.9)
    with torch.no_grad():
        pixels = processor(images=list(images), return_tensors="pt").pixel_values
        out = model.get_image_features(pixel_values=pixels)
    Z = (out if isinstance(out, torch.Tensor) else out.pooler_output).numpy()
    ground = embed_prompts(model, processor, ["a red background", "a blue background"])
    assert ground.shape == (2, Z.shape[1])
    np.testing.assert_allclose(np.linalg.norm(ground, axis=1), 1.0, atol=1e-5)
    result = discover(Z, y, attributes={"ground": ground}, random_state=0)
    record = next(c for c in result.candidates_ if c.source == "hint:attribute:ground")
    assert record.accepted, record.reason
    assert result.found
    assert np.mean(result.groups_ == a) > 0.95


def test_the_tokenizer_alone_is_enough_and_one_sentence_does_not_depend_on_the_others(clip):
    model, processor = clip
    both = embed_prompts(model, processor.tokenizer, ["a dog", "a photo of the digit 3 on a red background"])
    alone = embed_prompts(model, processor, ["a dog"])
    np.testing.assert_allclose(both[:1], alone, atol=1e-5)


@pytest.mark.parametrize("prompts", ["a dog", []])
def test_prompts_must_be_a_list(clip, prompts):
    with pytest.raises(InvalidInputError, match="needed is a list of sentences"):
        embed_prompts(*clip, prompts)


def test_a_model_without_text_is_refused():
    with pytest.raises(InvalidInputError, match="Linear embeds no text"):
        embed_prompts(torch.nn.Linear(2, 2), None, ["a dog"])
