"""Journey 2: a CSV of texts, twelve lines, the adapter on a Hub, and `pipeline` in another process."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from loopback_hub import LoopbackHub
from report_runs import save_roberta

# What a user writes, and all of it: names, plain rows, string labels.
TWELVE_LINES = """
from datasets import load_dataset
from peft import LoraConfig

from aifs_peft import AIFSTrainer, AIFSTrainingArguments

reviews = load_dataset("csv", data_files="reviews.csv", split="train").train_test_split(0.2, seed=0)
args = AIFSTrainingArguments("run", num_train_epochs=20, learning_rate=1e-2, hub_model_id="me/reviews")
trainer = AIFSTrainer("me/roberta", args, peft_config=LoraConfig(r=4), train_dataset=reviews["train"],
                      eval_dataset=reviews["test"])
trainer.train()
trainer.push_to_hub()
"""
# In the same process, for the comparison: what the trained model says, before it was saved, pushed or loaded.
SAY = """
import json
import torch

model, tokenizer, texts = trainer.adapted.eval(), trainer.processing_class, json.load(open("held_out.json"))
with torch.no_grad():
    inputs = [tokenizer(text, return_tensors="pt").to(model.device) for text in texts]
    said = [model(**one).logits[0].softmax(-1).tolist() for one in inputs]
json.dump([dict(zip(model.config.id2label.values(), row)) for row in said], open("said.json", "w"))
"""
FRESH = """
import json
import aifs_peft
from transformers import pipeline

classify = pipeline("text-classification", model="me/reviews", top_k=None)
rows = classify(json.load(open("held_out.json")))
json.dump([{entry["label"]: entry["score"] for entry in row} for row in rows], open("loaded.json", "w"))
"""


def write_reviews(folder: Path) -> None:
    """200 reviews of "good" and "bad", of which 95 % begin as those of their class usually do."""
    draw = random.Random(0)
    rows = ["text,label"]
    for i in range(200):
        label = ("praise", "complaint")[i % 2]
        opening = i % 2 if draw.random() < 0.95 else 1 - i % 2
        word = ("good", "bad")[i % 2]
        rows.append(f"{('the', 'you')[opening]} {('is', 'are')[draw.randrange(2)]} {word} {draw.randrange(9)},{label}")
    (folder / "reviews.csv").write_text("\n".join(rows) + "\n")
    held_out = [f"{a} {b} {c}" for a in ("the", "you") for b in ("is", "are") for c in ("good", "bad")]
    (folder / "held_out.json").write_text(json.dumps(held_out))


def run(folder: Path, code: str, endpoint: str, home: str) -> None:
    """Python code in a fresh process that knows one Hub, and nothing of what another process has downloaded."""
    env = {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_x", "HF_HOME": str(folder / home),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_the_code_is_twelve_lines_at_most() -> None:
    assert len([line for line in TWELVE_LINES.splitlines() if line.strip()]) <= 12
    compile(TWELVE_LINES, "twelve lines", "exec")


@pytest.mark.slow
def test_from_a_csv_to_a_pipeline_in_another_process(tmp_path: Path) -> None:
    write_reviews(tmp_path)
    base = save_roberta(tmp_path / "roberta")
    with LoopbackHub() as hub:
        hub.files["me/roberta"] = {path.name: path.read_bytes() for path in base.iterdir()}
        run(tmp_path, TWELVE_LINES + SAY, hub.endpoint, "author")
        pushed = hub.files["me/reviews"]
        run(tmp_path, FRESH, hub.endpoint, "reader")

    said, loaded = (json.loads((tmp_path / name).read_text()) for name in ("said.json", "loaded.json"))
    assert [max(row, key=row.get) for row in said] == ["praise", "complaint"] * 4
    assert len(loaded) == len(said) == 8
    for ours, theirs in zip(said, loaded, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5)

    card = pushed["README.md"].decode()
    data = yaml.safe_load(card.split("---")[1])
    assert (data["base_model"], data["pipeline_tag"]) == ("me/roberta", "text-classification")
    assert "pipeline('text-classification', model='me/reviews')" in card
    assert "Class labels only" in card
    assert {"adapter_config.json", "adapter_model.safetensors", "summary.json", "tokenizer.json"} <= set(pushed)
    assert "training_args.bin" not in pushed
    assert str(tmp_path).encode() not in b"".join(pushed.values())
