"""Pictures with columns of a table, in one model: the shortcut is a shift that only the table knows.

Run `python examples/multimodal.py`; replace `examples_of` by your pictures and columns, and TINY_CLIP by your encoder.
"""

from tempfile import TemporaryDirectory

import numpy as np
import torch
from _offline import quiet
from datasets import Dataset
from peft import PeftModel, get_peft_model
from transformers import AutoImageProcessor, AutoModel, PrinterCallback

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments
from aifs_peft.data import load
from aifs_peft.metrics import group_metrics
from aifs_peft.models import FusedClassifier, resolve_model

TINY_CLIP = resolve_model("tiny_clip")


def examples_of(rows: Dataset) -> Dataset:
    """What the model takes: `pixel_values`, the table's columns as `features`, and the label."""
    pixels = AutoImageProcessor.from_pretrained(TINY_CLIP)(rows["image"][:], return_tensors="np").pixel_values
    columns = {"pixel_values": list(pixels), "features": rows["features"][:], "label": rows["label"][:]}
    return Dataset.from_dict(columns).with_format("torch")


def main() -> None:
    """Accuracy of the worst cell of flaw and shift, where the shift says nothing: plain training, then AIFS."""
    shift = {"world": "factory", "shortcuts": ("shift",), "core_strength": 2.0, "image_size": 32}
    data = load("spurious_scenes", n_train=2000, n_test=1000, **shift)
    train, test = examples_of(data["train"]), examples_of(data["test"])
    labels, cells = (np.array(data["test"][column][:]) for column in ("label", "group"))
    base = FusedClassifier.for_examples(TINY_CLIP, train[:500], ["stain", "crack"])
    with TemporaryDirectory() as folder:
        base.save_pretrained(f"{folder}/base")
        for recipe in ("erm", "discovery"):
            torch.manual_seed(0)
            model = get_peft_model(AutoModel.from_pretrained(f"{folder}/base"), AIFSConfig(recipe=recipe))
            schedule = {"num_train_epochs": 20, "per_device_train_batch_size": 64, "learning_rate": 1e-2}
            args = AIFSTrainingArguments(folder, cache_latents=True, disable_tqdm=True, save_strategy="no", **schedule)
            trainer = AIFSTrainer(model, args, train_dataset=train)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            logits = trainer.predict(test).predictions
            print(recipe, round(group_metrics(labels, logits.argmax(1), cells)["worst_group_accuracy"], 3))
        share = base.blocks.shares(trainer.layer.state.basis.T)[0, 1].item()
        print(f"of the direction that was found, {share:.0%} lies in the table's latents")
        model.save_pretrained(f"{folder}/adapter")
        again = PeftModel.from_pretrained(AutoModel.from_pretrained(f"{folder}/base"), f"{folder}/adapter").eval()
        same = again(pixel_values=test[:8]["pixel_values"], features=test[:8]["features"]).logits.detach().numpy()
        print("the reloaded adapter predicts the same:", np.allclose(same, logits[:8], atol=1e-4))


if __name__ == "__main__":
    quiet()
    main()
