"""Captions found by pictures, with CLIP tuned plainly, and so that a shortcut does not decide.

Run `python examples/clip_retrieval.py`: the CLIP that ships with this package.
Run `python examples/clip_retrieval.py openai/clip-vit-base-patch16`: or any other CLIP on the Hub, or a folder.
"""

import sys
from tempfile import TemporaryDirectory

import numpy as np
import torch
from _offline import quiet
from peft import LoraConfig, get_peft_model
from transformers import AutoProcessor, CLIPModel, PrinterCallback, TrainingArguments

from aifs_peft import data
from aifs_peft.data.spurious_scenes import captions
from aifs_peft.metrics import recall_at_k
from aifs_peft.models import resolve_model
from aifs_peft.training import RetrievalTrainer

LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def main(name: str) -> None:
    """Plates with a stain or a crack; in training the line, which not every caption names, goes with it."""
    scenes = data.load("spurious_scenes", world="factory", n_train=1000, n_validation=10, n_test=400, image_size=32,
                       core_strength=2.0)  # fmt: skip
    # Yours: a data set with images, captions in `text`, and a `label` that says what each caption is about.
    train, test = (scenes[split].add_column("text", captions(scenes[split]).texts) for split in ("train", "test"))
    processor = AutoProcessor.from_pretrained(resolve_model(name))
    for title, discovery in (("plain", False), ("robust", None)):
        torch.manual_seed(0)
        clip = CLIPModel.from_pretrained(resolve_model(name))
        with TemporaryDirectory() as folder:
            args = TrainingArguments(folder, num_train_epochs=3, per_device_train_batch_size=50, learning_rate=1e-3,
                                     lr_scheduler_type="cosine", report_to="none", disable_tqdm=True)  # fmt: skip
            trainer = RetrievalTrainer(get_peft_model(clip, LoraConfig(r=8, target_modules=LAYERS)), args,
                                       train_dataset=train, processing_class=processor,
                                       discovery=discovery)  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            images, texts = trainer.embed(test)
        # A caption is right for a picture if it is true of it; here the data set knows, yours may have pairs alone.
        right = captions(test).true_of(test)
        found = recall_at_k(images @ texts.T, right, k=(1,), groups=np.asarray(test["group"][:]))
        print(f"{title:7} captions of pictures: recall@1 {found['recall@1']:.3f}, worst of flaw x line "
              f"{found['worst_group_recall@1']:.3f}")  # fmt: skip
    print(trainer.discovery.message_)


if __name__ == "__main__":
    quiet()
    main(sys.argv[1] if len(sys.argv) > 1 else "tiny_clip")
