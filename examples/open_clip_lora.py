"""An open_clip model tuned with LoRA; saved as an adapter, loaded again, merged. Needs the extra `openclip`.

Run `python examples/open_clip_lora.py`: a tiny random open_clip model.
Run `python examples/open_clip_lora.py hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K`: or a folder.
"""

import sys
from tempfile import TemporaryDirectory

import numpy as np
import torch
from _offline import quiet
from _open_clip import tiny_open_clip
from peft import LoraConfig, PeftModel
from transformers import PrinterCallback

from aifs_peft import AIFSTrainer, AIFSTrainingArguments, data
from aifs_peft.metrics import group_metrics
from aifs_peft.models import load_model


def main(name: str | None) -> None:
    """The latent is the projected image embedding; the preprocessing is what open_clip_config.json says."""
    splits = data.load("spurious_scenes", n_train=600, n_validation=100, n_test=300, image_size=32)
    splits = splits.remove_columns("features")  # its metadata; only the pictures are read here
    with TemporaryDirectory() as folder:
        if name is None:
            try:
                name = tiny_open_clip(f"{folder}/base")
            except (ImportError, RuntimeError) as error:
                print(f"skipped: open_clip cannot be imported ({error}); pip install 'aifs_peft[openclip]', beside a "
                      "torchvision that fits torch")  # fmt: skip
                return
        args = AIFSTrainingArguments(folder, num_train_epochs=1, per_device_train_batch_size=32, disable_tqdm=True)
        trainer = AIFSTrainer(name, args, peft_config=LoraConfig(r=8), train_dataset=splits["train"])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        test = trainer.predict(splits["test"])
        result = group_metrics(splits["test"]["label"][:], test.predictions.argmax(1), splits["test"]["group"][:])
        print(f"test: average {result['average_accuracy']:.3f}, worst of label x scanner mark "
              f"{result['worst_group_accuracy']:.3f}")  # fmt: skip

        trainer.adapted.save_pretrained(f"{folder}/adapter")
        base = load_model(name, modality="image", label_names=splits["train"].features["label"].names)
        plain = PeftModel.from_pretrained(base, f"{folder}/adapter").merge_and_unload().eval()
        pictures = trainer.processing_class(images=splits["test"]["image"][:8], return_tensors="pt")
        with torch.no_grad():
            again = plain(**pictures).logits.numpy()
        print("reloaded and merged it predicts the same:", np.allclose(again, test.predictions[:8], atol=1e-4))


if __name__ == "__main__":
    quiet()
    main(sys.argv[1] if len(sys.argv) > 1 else None)
