"""A ViT tuned with LoRA, on pictures whose background goes with the class; saved as an adapter and loaded again.

Run `python examples/vit.py`: the encoder that ships with this package.
Run `python examples/vit.py google/vit-base-patch16-224-in21k`: or any other name on the Hub, or a folder.
"""

import sys
from tempfile import TemporaryDirectory

import numpy as np
import torch
from _offline import quiet
from peft import LoraConfig, PeftModel
from transformers import PrinterCallback

from aifs_peft import AIFSTrainer, AIFSTrainingArguments, data
from aifs_peft.metrics import group_metrics
from aifs_peft.models import load_model


def main(name: str) -> None:
    """Train, test on pictures whose background is independent of the class, save, reload."""
    splits = data.load("digits_on_scenes")  # or your own: data.load_own("my_folder"), or any datasets.DatasetDict
    with TemporaryDirectory() as folder:
        args = AIFSTrainingArguments(
            folder, num_train_epochs=2, learning_rate=1.5e-3, per_device_train_batch_size=32,
            per_device_eval_batch_size=128, disable_tqdm=True,
        )  # fmt: skip
        trainer = AIFSTrainer(
            name, args, peft_config=LoraConfig(r=8), train_dataset=splits["train"], eval_dataset=splits["validation"]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        test = trainer.predict(splits["test"])
        result = group_metrics(splits["test"]["label"][:], test.predictions.argmax(1), splits["test"]["group"][:])
        print(trainer.audit().sentence)
        print(f"test: average {result['average_accuracy']:.3f}, worst of label x background "
              f"{result['worst_group_accuracy']:.3f}")  # fmt: skip

        trainer.adapted.save_pretrained(folder)  # head, mask, basis and LoRA
        names = splits["train"].features["label"].names
        loaded = PeftModel.from_pretrained(load_model(name, modality="image", label_names=names), folder).eval()
        pictures = trainer.processing_class(images=splits["test"]["image"][:8], return_tensors="pt")
        with torch.no_grad():
            again = loaded(**pictures).logits.numpy()
        print("the reloaded adapter predicts the same:", np.allclose(again, test.predictions[:8], atol=1e-4))


if __name__ == "__main__":
    quiet()
    main(sys.argv[1] if len(sys.argv) > 1 else "tiny_clip")
