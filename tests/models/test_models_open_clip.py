"""open_clip by folder: model, processor, trainer, prompts and audit, without its image transforms."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback_hub import LoopbackHub
from open_clip_alone import import_open_clip
from peft import LoraConfig, PeftModel
from PIL import Image
from tuner_zoo import batch

from aifs_peft import AIFSTrainer, AIFSTrainingArguments, LatentClassifier, data
from aifs_peft.audit import audit_model
from aifs_peft.discovery import embed_prompts
from aifs_peft.errors import InvalidConfigError, ModelNotFoundError
from aifs_peft.models import load_model, load_processor
from aifs_peft.models.open_clip import open_clip_processor
from aifs_peft.report.usage import snippets

open_clip = import_open_clip()
SUPPORT = Path(__file__).parents[1] / "support"
VISION = {"image_size": 16, "layers": 2, "width": 16, "patch_size": 8, "head_width": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CONFIG = {"embed_dim": 12, "vision_cfg": VISION, "text_cfg": TEXT}
PREPROCESS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random open_clip model, saved as open_clip saves it."""
    path = tmp_path_factory.mktemp("open_clip")
    torch.manual_seed(0)
    torch.save(open_clip.model.CLIP(**CONFIG).state_dict(), path / "open_clip_pytorch_model.bin")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}))
    return path


@pytest.fixture(scope="module")
def scenes():
    loaded = data.load("spurious_scenes", n_train=64, n_validation=8, n_test=8, image_size=24)
    return loaded.select_columns(["image", "label"])


def logits(model):
    with torch.no_grad():
        return model.eval()(**batch("vit")).logits


def test_a_classifier_by_folder(folder):
    torch.manual_seed(0)
    model = load_model(str(folder), modality="image", label_names=["disc", "cross", "ring"])
    assert model.config.id2label == {0: "disc", 1: "cross", 2: "ring"}
    assert not model.encoder.training
    with torch.no_grad():
        expected = model.encoder.encode_image(batch("vit")["pixel_values"])
        torch.testing.assert_close(logits(model), model.classifier(expected))


def test_saved_and_loaded_again_without_code(folder, tmp_path):
    model = load_model(str(folder), modality="image", label_names=["disc", "cross"])
    model.save_pretrained(tmp_path)
    again = LatentClassifier.from_pretrained(tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert again.config.id2label == {0: "disc", 1: "cross"}
    # And again, and with other classes.
    again.save_pretrained(tmp_path / "second")
    other = load_model(str(tmp_path / "second"), modality="image", label_names=["a", "b", "c"])
    assert torch.equal(other.embed(batch("vit")), model.embed(batch("vit")))
    assert load_processor(str(tmp_path / "second"), modality="image").image_mean == (0.4, 0.5, 0.6)


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_the_processor_does_what_open_clip_does(folder, mode, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {**PREPROCESS, "resize_mode": mode}})
    )
    processor = load_processor(str(tmp_path), modality="image")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    image = Image.fromarray(pixels, "RGBA").convert("RGB")
    if mode == "shortest":
        small = np.asarray(image.resize((24, 16), Image.Resampling.BICUBIC), dtype=np.float64)[:, 4:20]
    else:
        small = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC), dtype=np.float64)
    expected = (small / 255 - np.array(PREPROCESS["mean"])) / np.array(PREPROCESS["std"])
    given = processor(images=[image], return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(given, expected.transpose(2, 0, 1), atol=1e-5)


def test_the_processor_of_a_model_is_that_of_its_folder(folder):
    model = LatentClassifier.from_pretrained(folder)
    ours, theirs = open_clip_processor(model.encoder).to_dict(), load_processor(str(folder), modality="image").to_dict()
    assert ours == theirs
    assert (ours["crop_size"]["height"], ours["image_mean"]) == (16, (0.4, 0.5, 0.6))


# PEFT looks for a config.json of transformers beside the weights, to see whether a vocabulary was resized.
@pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning")
def test_trained_by_folder_saved_and_reloaded(folder, scenes, tmp_path):
    args = AIFSTrainingArguments(output_dir=str(tmp_path / "run"), num_train_epochs=1, per_device_train_batch_size=16,
                                 report_to="none", use_cpu=True)  # fmt: skip
    trainer = AIFSTrainer(str(folder), args, peft_config=LoraConfig(r=2), train_dataset=scenes["train"])
    trainer.train()
    trained = logits(trainer.model)
    trainer.save_model(str(tmp_path / "adapter"))
    base = load_model(str(folder), modality="image", label_names=["benign", "malignant"])
    again = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.equal(logits(again), trained)
    merged = again.merge_and_unload()
    torch.testing.assert_close(logits(merged), trained, atol=1e-5, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        logits(LatentClassifier.from_pretrained(tmp_path / "merged")), trained, atol=1e-5, rtol=1e-4
    )


def test_prompts_and_an_audit_with_words(folder, scenes):
    model = LatentClassifier.from_pretrained(folder).encoder
    embedded = embed_prompts(model, open_clip.SimpleTokenizer(context_length=16), ["a disc", "a cross"])
    assert embedded.shape == (2, 12)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1.0, atol=1e-6)
    assert audit_model(str(folder), scenes["train"], harm=False).looked_at["d"] == 12


def test_missing_weights_are_refused_and_not_drawn(folder, tmp_path):
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    with pytest.raises(ModelNotFoundError, match="open_clip did not load"):
        LatentClassifier.from_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError, match="open_clip did not load 'ViT-B-32'"):
        LatentClassifier.from_pretrained("ViT-B-32", library="open_clip")
    with pytest.raises(ModelNotFoundError, match=r"the Hub did not give open_clip_config\.json"):
        load_processor("hf-hub:nobody/no-such-model", modality="image")


def test_what_open_clip_cannot_is_refused(folder, tmp_path):
    for wrong in ({"modality": "text"}, {"quantization": "4bit"}, {"revision": "main"}):
        with pytest.raises(InvalidConfigError, match="is a model of open_clip"):
            load_model(str(folder), **{"modality": "image", "label_names": ["a", "b"], **wrong})
    longest = {"model_cfg": CONFIG, "preprocess_cfg": {"resize_mode": "longest"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(longest))
    with pytest.raises(InvalidConfigError, match="resize_mode='longest' to 16 x 16"):
        load_processor(str(tmp_path), modality="image")


def test_the_card_loads_it_by_name():
    summary = {"model": "hf-hub:me/clip", "task": "image-classification", "label_names": ["a", "b"]}
    found = snippets(summary)
    assert "load_model('hf-hub:me/clip', modality='image', label_names=['a', 'b'])" in found[0].code
    assert [snippet.title for snippet in found] == ["With PEFT", "As a plain model, without PEFT"]


def test_pushed_and_read_back(folder, tmp_path):
    with LoopbackHub() as hub:
        env = {
            **os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        script = [sys.executable, str(SUPPORT / "push_open_clip.py"), str(folder)]
        done = subprocess.run(script, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("done")
        files = hub.files["me/open-clip"]
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= set(files)
    assert str(folder) not in files["README.md"].decode()
