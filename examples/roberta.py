"""A RoBERTa tuned with LoRA on texts in which a place name goes with the label: plain training and AIFS, side by side.

Run `python examples/roberta.py`: a tiny random model, made on the spot.
Run `python examples/roberta.py FacebookAI/roberta-base`: or any other text encoder on the Hub, or a folder.
"""

import sys
from tempfile import TemporaryDirectory

import numpy as np
from _offline import clinic_reviews, quiet, tiny_roberta
from peft import LoraConfig
from transformers import PrinterCallback

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments
from aifs_peft.metrics import group_metrics


def main(name: str | None) -> None:
    """Train twice on biased texts, test on texts where the place says nothing."""
    train, test = clinic_reviews(1200, 0.95, seed=0), clinic_reviews(1000, 0.5, seed=1)  # columns text, label, clinic
    with TemporaryDirectory() as folder:
        model = name or tiny_roberta(f"{folder}/base")
        for recipe in ("erm", "discovery"):
            args = AIFSTrainingArguments(
                f"{folder}/{recipe}", num_train_epochs=3 if name else 10, learning_rate=5e-4 if name else 5e-3,
                per_device_train_batch_size=32, save_strategy="no", disable_tqdm=True,
            )  # fmt: skip
            lora = LoraConfig(r=8, target_modules=["query", "value", "dense"])
            config = AIFSConfig(recipe=recipe, encoder_adapter=lora)  # peft_config=lora alone is the default recipe
            trainer = AIFSTrainer(model, args, peft_config=config, train_dataset=train)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            predicted = trainer.predict(test)
            labels, cells = predicted.label_ids, 2 * predicted.label_ids + np.asarray(test["clinic"][:])
            result = group_metrics(labels, predicted.predictions.argmax(1), cells)
            print(f"{recipe:9}  average {result['average_accuracy']:.3f}  worst of label x clinic "
                  f"{result['worst_group_accuracy']:.3f}")  # fmt: skip
        print(trainer.audit().sentence)


if __name__ == "__main__":
    quiet()
    main(sys.argv[1] if len(sys.argv) > 1 else None)
