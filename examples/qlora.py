"""QLoRA: a base model in 4 bits (bitsandbytes), LoRA and AIFS on top, on the GPU or the CPU.

Run `python examples/qlora.py`: a tiny random model, made on the spot.
Run `python examples/qlora.py FacebookAI/roberta-base`: or any other text encoder on the Hub, or a folder.
"""

import sys
from importlib.util import find_spec
from tempfile import TemporaryDirectory

import numpy as np
from _offline import clinic_reviews, quiet, tiny_roberta
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments
from aifs_peft.metrics import group_metrics
from aifs_peft.models import load_model, load_processor


def main(name: str | None) -> None:
    """Train on biased texts, test on texts where the place says nothing; what the weights weigh."""
    train, test = clinic_reviews(1200, 0.95, seed=0), clinic_reviews(500, 0.5, seed=1)
    with TemporaryDirectory() as folder:
        source = name or tiny_roberta(folder)
        classes = ["complaint", "praise"]
        base = load_model(source, modality="text", label_names=classes, quantization="4bit")
        lora = LoraConfig(r=8, target_modules=["query", "value", "dense"])
        model = get_peft_model(base, AIFSConfig(encoder_adapter=lora))
        args = AIFSTrainingArguments(
            folder, num_train_epochs=3 if name else 10, learning_rate=5e-4 if name else 5e-3,
            per_device_train_batch_size=32, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        tokenizer = load_processor(source, modality="text")
        trainer = AIFSTrainer(model, args, train_dataset=train, processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        predicted = trainer.predict(test)
    stored = [p for p in base.parameters() if not p.is_floating_point()]
    size = sum(p.numel() * p.element_size() for p in stored)
    print(f"{len(stored)} layers in 4 bits: {size:,} bytes, {8 * size:,} in 32 bits")
    labels, cells = predicted.label_ids, 2 * predicted.label_ids + np.asarray(test["clinic"][:])
    result = group_metrics(labels, predicted.predictions.argmax(1), cells)
    print(f"average {result['average_accuracy']:.3f}  worst of label x clinic {result['worst_group_accuracy']:.3f}")


if __name__ == "__main__":
    quiet()
    if find_spec("bitsandbytes") is None:
        print("skipped: bitsandbytes is not installed; pip install bitsandbytes (the extra `quantization`)")
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
