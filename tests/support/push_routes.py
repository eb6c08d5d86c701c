"""Run in a fresh process against a loopback Hub: one trainer, every way to write its card and to push it.

`python push_routes.py FOLDER ROBERTA` writes "done" at its end.
"""

import copy
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import datasets
import torch
from huggingface_hub import HfApi, hf_hub_download
from peft import get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from aifs_peft.report import (
    attach_card,
    push_adapter,
    summary_from_trainer,
)
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig

warnings.simplefilter("ignore")


def make_trainer(folder: Path, roberta: str, method: str, **arguments: object) -> AIFSTrainer:
    """A text classifier of two classes on twenty texts, two epochs."""
    tokenizer = AutoTokenizer.from_pretrained(roberta)
    texts = [f"{('the', 'you')[i % 2]} {('is', 'are')[i % 2]} {('good', 'bad')[i // 2 % 2]}" for i in range(20)]
    rows = datasets.Dataset.from_dict({"text": texts, "label": [i // 2 % 2 for i in range(20)]})
    rows = rows.map(lambda row: tokenizer(row["text"]), remove_columns="text")
    base = AutoModelForSequenceClassification.from_pretrained(roberta, num_labels=2)
    args = AIFSTrainingArguments(
        output_dir=str(folder), method=method, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch",
        logging_strategy="epoch", load_best_model_at_end=True, use_cpu=True, disable_tqdm=True, **arguments,
    )  # fmt: skip
    return AIFSTrainer(
        get_peft_model(base, AIFSConfig(recipe="erm")), args, train_dataset=rows, eval_dataset=rows,
        processing_class=tokenizer,
    )  # fmt: skip


def main(folder: Path, roberta: str) -> None:
    """Push to me/trainer, me/model and me/adapter; write the card of `create_model_card` to FOLDER/run."""
    trainer = make_trainer(folder / "run", roberta, "erm", hub_model_id="me/trainer")
    trainer.train()
    trainer.create_model_card("en", "mit", tags="mine")
    trainer.push_to_hub("pushed by the trainer", license="mit")
    summary = summary_from_trainer(trainer)
    model = trainer.adapted
    attach_card(model, summary, trainer.processing_class)
    model.save_pretrained(folder / "saved")
    model.push_to_hub("me/model")
    push_adapter(model, trainer.processing_class, summary, "me/adapter")
    other = copy.deepcopy(model)  # as save_run does: what is attached does not stand in the way
    with torch.no_grad():
        next(p for p in other.parameters() if p.requires_grad).zero_()
    other.push_to_hub("me/other")
    push_on_a_hub_base(folder, roberta)
    push_while_training(folder, roberta)
    sys.stdout.write("done")


def push_on_a_hub_base(folder: Path, roberta: str) -> None:
    """The base model is on the Hub, too: every snippet of the pushed card runs as a reader would run it."""
    api = HfApi()
    api.create_repo("me/base")
    api.upload_folder(repo_id="me/base", folder_path=roberta)
    trainer = make_trainer(folder / "hub", "me/base", "erm", hub_model_id="me/on-hub-base")
    trainer.train()
    trainer.push_to_hub(blocking=False).result()
    os.chdir(folder)
    card = Path(hf_hub_download("me/on-hub-base", "README.md")).read_text()
    tokens = {"input_ids": torch.tensor([[0, 8, 9, 6, 2]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    expected = trainer.adapted.eval()(**tokens).logits
    space: dict[str, Any] = {}
    codes = re.findall(r"```python\n(.*?)\n```", card, flags=re.DOTALL)
    assert len(codes) == 4, card
    for code in codes:
        exec(code, space)
        made = space["classify"].model if "pipeline" in code else space["plain" if "plain" in code else "model"]
        torch.testing.assert_close(made(**tokens).logits, expected, atol=1e-5, rtol=0)
    assert space["classify"]("you are good")[0]["label"] in ("LABEL_0", "LABEL_1")


def push_while_training(folder: Path, roberta: str) -> None:
    """`push_to_hub=True`: every checkpoint is pushed, and the last one's folder beside the adapter."""
    trainer = make_trainer(
        folder / "live", roberta, "erm", hub_model_id="me/live", push_to_hub=True, hub_strategy="checkpoint",
        hub_always_push=True,
    )  # fmt: skip
    trainer.train()
    trainer.push_in_progress.wait_until_done()
    for job in trainer.push_in_progress.jobs:
        job.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
