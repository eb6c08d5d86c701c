"""Evaluation of the embedded tiny CLIP on freshly rendered scenes, and the model card rendered from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny_clip_captions import prompts
from tiny_clip_scenes import ATTRIBUTES, HELD_OUT_FONTS, TRAIN_FONTS, draw_labels, render, subject_bank
from transformers import AutoModelForImageClassification, AutoProcessor, CLIPModel

Scenes = tuple[list[np.ndarray], dict[str, torch.Tensor]]


def fresh_scenes(n: int, fonts: tuple[str, ...], seed: int) -> Scenes:
    """`n` scenes as uint8 arrays (32, 32, 3), and their attribute values."""
    generator = torch.Generator().manual_seed(seed)
    labels = draw_labels(n, generator)
    pixels = render(labels, subject_bank(fonts), generator)
    return list((pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()), labels


@torch.no_grad()
def zero_shot(folder: Path, scenes: Scenes) -> dict[str, dict[str, float]]:
    """Zero-shot accuracy and chance per attribute, with CLIPModel and the first prompt of each attribute.

    `digit` is the ten-way choice among digits, on images of digits. `subject` chooses among all subjects; its
    chance is the best constant answer's.
    """
    model, processor = CLIPModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    images, labels = scenes
    result = {}
    pixels = processor(images=images, return_tensors="pt").pixel_values
    for name, values in labels.items():
        texts = processor(text=prompts(name), return_tensors="pt", padding=True)
        logits = model(pixel_values=pixels, **texts).logits_per_image
        chance = values.bincount().max().item() / len(values)
        result[name] = {"accuracy": _accuracy(logits, values), "chance": round(chance, 4)}
        if name == "subject":
            rows = values < 10
            digits = {"accuracy": _accuracy(logits[rows, :10], values[rows]), "chance": 0.1}
            result["digit"] = digits
    return result


def _accuracy(scores: torch.Tensor, values: torch.Tensor) -> float:
    return round((scores.argmax(1) == values).float().mean().item(), 4)


@torch.no_grad()
def classifier_latents(folder: Path, images: list[Any]) -> np.ndarray:
    """What CLIPForImageClassification feeds its classifier, the mean of the patch tokens: (n, 160) float32."""
    model = AutoModelForImageClassification.from_pretrained(folder, num_labels=2).eval()
    # The classifier is new: taking it away leaves its input as the output.
    model.classifier = torch.nn.Identity()
    pixels = AutoProcessor.from_pretrained(folder)(images=images, return_tensors="pt").pixel_values
    return torch.cat([model(pixel_values=part).logits for part in pixels.split(500)]).numpy()


def linear_probe(folder: Path, train: Scenes, tests: dict[str, Scenes]) -> dict[str, dict[str, float]]:
    """Accuracy of logistic regression on the classifier's latents, per attribute and test set."""
    z = classifier_latents(folder, train[0])
    latents = {name: classifier_latents(folder, scenes[0]) for name, scenes in tests.items()}
    result: dict[str, dict[str, float]] = {}
    for attribute in (*ATTRIBUTES, "digit"):
        column = "subject" if attribute == "digit" else attribute
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        y = train[1][column].numpy()
        rows = y < 10 if attribute == "digit" else np.ones(len(y), dtype=bool)
        probe.fit(z[rows], y[rows])
        result[attribute] = {}
        for name, scenes in tests.items():
            values = scenes[1][column].numpy()
            rows = values < 10 if attribute == "digit" else np.ones(len(values), dtype=bool)
            result[attribute][name] = round(float(probe.score(latents[name][rows], values[rows])), 4)
    return result


def evaluate(folder: Path, seed: int, n: int = 2000, n_probe: int = 6000) -> dict[str, Any]:
    """Zero-shot and linear-probe accuracy on scenes with the training fonts and with fonts never trained on."""
    tests = {
        "training_fonts": fresh_scenes(n, TRAIN_FONTS, 1000 + seed),
        "held_out_fonts": fresh_scenes(n, HELD_OUT_FONTS, 2000 + seed),
    }
    model = CLIPModel.from_pretrained(folder)
    return {
        "evaluation": {"seed": seed, "test_scenes": n, "probe_scenes": n_probe},
        "parameters": {
            "vision": sum(p.numel() for p in model.vision_model.parameters()),
            "text": sum(p.numel() for p in model.text_model.parameters()),
            "total": sum(p.numel() for p in model.parameters()),
        },
        "zero_shot": {name: zero_shot(folder, scenes) for name, scenes in tests.items()},
        "linear_probe": linear_probe(folder, fresh_scenes(n_probe, TRAIN_FONTS, 3000 + seed), tests),
    }


def _table(report: dict[str, Any]) -> str:
    shot, probe = report["zero_shot"], report["linear_probe"]
    lines = [
        "| attribute | values | chance | zero-shot, training fonts | zero-shot, held-out fonts "
        "| linear probe, training fonts | linear probe, held-out fonts |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in ("digit", *ATTRIBUTES):
        values = 10 if name == "digit" else len(ATTRIBUTES[name])
        cells = [
            shot["training_fonts"][name]["chance"],
            *(shot[fonts][name]["accuracy"] for fonts in ("training_fonts", "held_out_fonts")),
            *(probe[name][fonts] for fonts in ("training_fonts", "held_out_fonts")),
        ]
        lines.append(f"| {name} | {values} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines)


def _command(report: dict[str, Any]) -> str:
    options = " ".join(f"--{name} {report[name]}" for name in ("steps", "seed", "threads"))
    return f"python scripts/pretrain_tiny_clip.py --output-dir DIR {options}"


def _ending(report: dict[str, Any]) -> str:
    """A sentence on how the clock shaped the run, where it did."""
    if report["max_minutes"] is None:
        return ""
    return (
        f" The run was\nlimited to {report['max_minutes']:g} minutes and its decay fitted to them, so "
        "the command below repeats the recipe,\nnot every bit of the weights."
    )


def write_card(folder: Path) -> str:
    """Render `README.md` from `training_report.json` in `folder`; returns the text."""
    report = json.loads((folder / "training_report.json").read_text())
    parameters = report["parameters"]
    text = f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [clip, tiny]
---

# tiny_clip: a small CLIP that ships with aifs_peft

A real CLIP in the Hugging Face format: it loads where `openai/clip-vit-base-patch16` does, without a network.
It exists so that the demo, the examples and the tests fine-tune a *pretrained* encoder in seconds on a CPU. It has
never seen a photograph or handwriting, and is no replacement for a CLIP trained on images from the world.

```python
from importlib.resources import files
from transformers import AutoModelForImageClassification, AutoProcessor, CLIPModel

folder = str(files("aifs_peft") / "assets" / "tiny_clip")
model = AutoModelForImageClassification.from_pretrained(folder, num_labels=2)
processor = AutoProcessor.from_pretrained(folder)
```

## Model

* Vision: ViT, 32 x 32 pixels, patches of 8, width 160, 4 layers, 5 heads; {parameters["vision"]:,} parameters.
* Text: width 128, 2 layers, 4 heads, byte-level BPE trained on the captions; {parameters["text"]:,} parameters.
* Projection: 128; {parameters["total"]:,} parameters in all. Stored in float16, loaded in float32.
* Pixels: `(x / 255 - 0.5) / 0.25`, short side resized to 32, centre crop.

## Data

Procedural scenes, no downloaded image: a light digit, letter or shape on a darker textured background, with captions
from templates. Seven attributes are independent of each other: {", ".join(ATTRIBUTES)}.
Fonts are those that Matplotlib ships; {len(HELD_OUT_FONTS)} of them are never trained on
({", ".join(HELD_OUT_FONTS)}).
60 % of the subjects are digits. Letters that some fonts draw like digits are left out. Captions are lower case:
upper-case letters are named "letter a".

## Training

CLIP's contrastive loss with every true caption as a positive, on long captions and on short ones of one attribute,
and the cross-entropy of a linear head per attribute (thrown away afterwards), half on the class token and half on the
mean patch token, which is what `CLIPForImageClassification` classifies.
{report["steps"]:,} steps of {report["batch_size"]} scenes, AdamW, learning rate {report["learning_rate"]:g}
with warm-up and cosine decay, captions in every {report["text_every"]}th step, seed {report["seed"]};
{report["seconds"] / 60:.0f} minutes on {report["threads"]} CPU thread(s).{_ending(report)}

    {_command(report)}

## Accuracy

On {report["evaluation"]["test_scenes"]:,} fresh scenes per column. Zero-shot: `CLIPModel`, one prompt per value.
Linear probe: logistic regression on the mean patch token of {report["evaluation"]["probe_scenes"]:,} scenes.
`digit`: ten digits, on images of digits; `subject`: all {len(ATTRIBUTES["subject"])}.

{_table(report)}

Rendered from `training_report.json` by `scripts/tiny_clip_report.py`; nothing here is typed by hand.

## Limits

One subject per image, 32 pixels, light on dark; a dark subject on a light background was never shown.
Text other than the templates' is encoded, but means nothing to the model.
"""
    (folder / "README.md").write_text(text)
    return text
