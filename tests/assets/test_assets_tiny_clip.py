"""The embedded encoder: loads where a big CLIP does, is small, knows its scenes; its scenes are what they claim."""

import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoProcessor,
    AutoTokenizer,
    CLIPModel,
    CLIPVisionModelWithProjection,
)

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "aifs_peft" / "assets" / "tiny_clip"


@pytest.fixture(scope="module")
def scripts():
    """The pretraining scripts, imported from their folder as when they are run."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import tiny_clip_captions
        import tiny_clip_report
        import tiny_clip_scenes
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return tiny_clip_scenes, tiny_clip_captions, tiny_clip_report


def test_the_folder_is_small_and_belongs_to_the_package():
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(files.values()) <= 8_000_000
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "README.md"} <= set(files)


def test_loads_as_clip_in_float32():
    model = CLIPModel.from_pretrained(FOLDER)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 1_000_000 < sum(p.numel() for p in model.vision_model.parameters()) < 2_500_000
    assert CLIPVisionModelWithProjection.from_pretrained(FOLDER).config.projection_dim == 128


def test_loads_as_an_image_classifier_with_a_new_head():
    model = AutoModelForImageClassification.from_pretrained(FOLDER, num_labels=3).eval()
    processor = AutoProcessor.from_pretrained(FOLDER)
    image = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    pixels = processor(images=[image], return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 32, 32)
    assert model(pixel_values=pixels).logits.shape == (1, 3)
    assert any(name.endswith("q_proj") for name, _ in model.named_modules())


def test_image_processor_alone_normalises_as_documented():
    processor = AutoImageProcessor.from_pretrained(FOLDER)
    image = np.full((32, 32, 3), 255, dtype=np.uint8)
    pixels = processor(images=[image], return_tensors="pt").pixel_values
    assert torch.allclose(pixels, torch.full_like(pixels, 2.0))


def test_tokenizer_round_trip(scripts):
    _, captions, _ = scripts
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    texts = [text for name in captions.PROMPTS for text in captions.prompts(name)]
    for text in [*texts, "a zebra über alles, 100 % new: ☂"]:
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in ids[:-1]
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        assert decoded.replace(" ", "") == text.lower().replace(" ", "")
    assert max(len(tokenizer(t).input_ids) for t in texts) <= 16
    config = CLIPModel.from_pretrained(FOLDER).config.text_config
    assert config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == config.vocab_size


def test_zero_shot_beats_chance_on_fresh_scenes_with_fonts_never_seen(scripts):
    scenes, _, report = scripts
    result = report.zero_shot(FOLDER, report.fresh_scenes(600, scenes.HELD_OUT_FONTS, seed=77))
    least = {"digit": 0.8, "subject": 0.75, "ground": 0.9, "color": 0.85, "tone": 0.9, "position": 0.85}
    for name, accuracy in least.items():
        assert result[name]["accuracy"] > accuracy, name
    # The weakest attribute: above chance by more than three standard errors of 600 scenes.
    assert result["texture"]["accuracy"] > result["texture"]["chance"] + 0.05


def test_the_card_is_rendered_from_the_report(scripts, tmp_path):
    _, _, report = scripts
    (tmp_path / "training_report.json").write_text((FOLDER / "training_report.json").read_text())
    assert report.write_card(tmp_path) == (FOLDER / "README.md").read_text()
    assert (ROOT / "model_cards" / "tiny_clip.md").read_text() == (FOLDER / "README.md").read_text()
    numbers = json.loads((FOLDER / "training_report.json").read_text())
    model = CLIPModel.from_pretrained(FOLDER)
    assert numbers["parameters"]["total"] == sum(p.numel() for p in model.parameters())


def test_attributes_are_independent(scripts):
    scenes, _, _ = scripts
    from scipy.stats import chi2_contingency

    labels = scenes.draw_labels(20_000, torch.Generator().manual_seed(0))
    values = []
    for a, b in combinations(labels, 2):
        table = np.zeros((len(scenes.ATTRIBUTES[a]), len(scenes.ATTRIBUTES[b])))
        np.add.at(table, (labels[a].numpy(), labels[b].numpy()), 1)
        values.append(chi2_contingency(table).pvalue)
    # 21 pairs: under independence the smallest p-value is below 0.0005 in one of a hundred draws.
    assert min(values) > 0.0005


def test_an_attribute_of_the_subject_leaves_the_background_alone(scripts):
    scenes, _, _ = scripts
    labels = scenes.draw_labels(64, torch.Generator().manual_seed(1))
    bank = scenes.subject_bank(scenes.TRAIN_FONTS[:2])
    other = {**labels, "subject": (labels["subject"] + 1) % len(scenes.SUBJECTS)}
    first = scenes.render(labels, bank, torch.Generator().manual_seed(2))
    second = scenes.render(other, bank, torch.Generator().manual_seed(2))
    assert first.shape == (64, 3, 32, 32)
    assert first.min() >= 0
    assert first.max() <= 1
    changed = (first != second).any(dim=1).flatten(1).float().mean(1)
    assert (changed > 0.01).all()
    # A subject covers at most two thirds of a scene; everything else is the same to the bit.
    assert changed.max() < 0.67


def test_rendering_is_deterministic_and_textures_differ(scripts):
    scenes, _, _ = scripts
    labels = scenes.draw_labels(16, torch.Generator().manual_seed(1))
    bank = scenes.subject_bank(scenes.HELD_OUT_FONTS[:1])
    twice = [scenes.render(labels, bank, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*twice)
    fields = scenes.texture_field(torch.arange(8), torch.Generator().manual_seed(0))
    assert fields[0].abs().max() == 0
    assert all(0.02 < field.std() < 0.6 for field in fields[1:])


def test_fonts_are_held_out(scripts):
    scenes, _, _ = scripts
    assert not set(scenes.TRAIN_FONTS) & set(scenes.HELD_OUT_FONTS)


def test_a_caption_is_true_of_its_scene_and_of_others_only_if_all_it_names_agrees(scripts):
    scenes, captions, _ = scripts
    import random

    labels = scenes.draw_labels(300, torch.Generator().manual_seed(0))
    texts, truth = captions.scene_captions(labels, random.Random(0))
    assert truth.diagonal().all()
    assert 0 < truth.sum() - 300 < 300 * 299 * 0.05
    names = {name: [scenes.ATTRIBUTES[name][i] for i in values.tolist()] for name, values in labels.items()}
    for i, j in torch.nonzero(truth).tolist():
        if names["texture"][i] in texts[j].split():
            continue
        # The only way for scene i to have another texture: caption j names none.
        assert names["texture"][i] == names["texture"][j] or names["texture"][j] not in texts[j].split()
