"""CLIP with prompts: a zero-shot head made of sentences, a plain linear head, and one that ignores the background.

Run `python examples/clip_prompts.py`: the CLIP that ships with this package.
Run `python examples/clip_prompts.py openai/clip-vit-base-patch16`: or any other CLIP on the Hub, or a folder.
"""

import sys

import numpy as np
from _offline import quiet
from transformers import AutoProcessor, CLIPModel

from aifs_peft import AIFSClassifier, data, encode
from aifs_peft.discovery import embed_prompts
from aifs_peft.metrics import group_metrics
from aifs_peft.models import LatentClassifier, resolve_model

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def main(name: str) -> None:
    """Digits on photographs, the class is 0-4 or 5-9; in training the photograph goes with the class."""
    clip = CLIPModel.from_pretrained(resolve_model(name)).eval()
    processor = AutoProcessor.from_pretrained(resolve_model(name))
    splits = data.load("digits_on_scenes")
    # CLIP's projected image embeddings, which share a space with its sentences.
    latents = encode(LatentClassifier(clip, num_labels=2), splits, processor=processor.image_processor)

    def unit(split: str) -> np.ndarray:
        Z = np.asarray(latents[split]["features"][:])
        return Z / np.linalg.norm(Z, axis=1, keepdims=True)

    Z, y, Z_test = unit("train"), np.asarray(latents["train"]["label"][:]), unit("test")

    head = embed_prompts(clip, processor, [f"a photo of the digit {word}" for word in DIGITS])  # (10, d), no training
    predictions = {"zero-shot, ten prompts": (Z_test @ head.T).argmax(1) // 5}
    for title, recipe in (("plain linear head", "erm"), ("AIFS", "discovery")):
        classifier = AIFSClassifier(recipe, random_state=0).fit(Z, y)
        predictions[title] = classifier.predict(Z_test)
    for title, predicted in predictions.items():
        result = group_metrics(latents["test"]["label"][:], predicted, latents["test"]["group"][:])
        print(f"{title:23} average {result['average_accuracy']:.3f}  worst of label x photograph "
              f"{result['worst_group_accuracy']:.3f}")  # fmt: skip
    print(classifier.discovery_.message_)


if __name__ == "__main__":
    quiet()
    main(sys.argv[1] if len(sys.argv) > 1 else "tiny_clip")
