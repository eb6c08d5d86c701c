"""Cross-modal retrieval with a shortcut: contrastive LoRA tuning of the embedded CLIP, plain and robust.

    python benchmarks/retrieval.py --out benchmarks/results/retrieval.json

SpuriousScenes, world `factory`: plates with a stain or a crack (plain to see, `core_strength=2`), lit from the left or
right, on one of two lines whose rails are blue or orange. In the 1,000 training pairs the line goes with the flaw for
95 %, in the test it does not. Captions name the flaw and the light, half of them the line, too. LoRA of rank 8 on every
linear layer of both towers, 3 epochs of batches of 50, AdamW, 1e-3 with cosine decay; nothing is chosen on the test.

`plain` is CLIP's loss. `robust` is `RetrievalTrainer`, which draws the cells of flaw and inferred line equally often;
`moved` is the same with `moved=0.5`: pairs moved to the other line must match, too. The line is inferred from the
untuned image latents and the flaw; no group label is read.

*Image to text*: each of 1,000 test images among the 36 captions of the world; a hit is a caption that is true of it.
*Text to image*: each of the 24 captions that name a line among 100 test images, for 10 galleries; a hit is an image
that it is true of. Groups are flaw x line, of the image or of the caption. Rows that the output file already holds are
not computed again; seed 0 and those from 100 on were for development.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoProcessor, CLIPModel, PrinterCallback, TrainingArguments

from aifs_peft import data
from aifs_peft.data.spurious_scenes import caption_gallery, captions
from aifs_peft.metrics import recall_at_k
from aifs_peft.models import resolve_model
from aifs_peft.training import RetrievalTrainer

GROUPS = ("stain, line 1", "stain, line 2", "crack, line 1", "crack, line 2")
LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
REGIMES = ("plain", "robust", "moved")
GALLERY = 100


def splits(seed: int, n_train: int, n_test: int) -> Any:
    """Scenes with captions."""
    scenes = data.load(
        "spurious_scenes", world="factory", n_train=n_train, n_validation=10, n_test=n_test, image_size=32,
        core_strength=2.0, seed=seed,
    )  # fmt: skip
    train, test = scenes["train"], scenes["test"]
    return train.add_column("text", captions(train, seed=seed).texts), test.add_column("text", captions(test).texts)


def measured(trainer: RetrievalTrainer, test: Any) -> dict[str, Any]:
    """Recall of both directions."""
    gallery = caption_gallery(test)
    images, _ = trainer.embed(test)
    texts, _ = _texts(trainer, gallery.texts)
    true = gallery.true_of(test)
    scores = images @ texts.T
    cells = np.asarray(test["group"][:])
    to_text = recall_at_k(scores, true, (1, 5), cells, GROUPS)
    named = np.flatnonzero(gallery.first >= 0)
    queries, right, groups = [], [], []
    for start in range(0, len(test) - GALLERY + 1, GALLERY):
        rows = slice(start, start + GALLERY)
        # A caption of which no image of the gallery is true is no query.
        kept = named[true[rows][:, named].any(axis=0)]
        queries.append(scores[rows][:, kept].T)
        right.append(true[rows][:, kept].T)
        groups.append(2 * gallery.core[kept] + gallery.first[kept])
    to_image = recall_at_k(
        np.concatenate(queries), np.concatenate(right), (1, 5), np.concatenate(groups), GROUPS
    )  # fmt: skip
    return {"image_to_text": to_text, "text_to_image": to_image}


def _texts(trainer: RetrievalTrainer, texts: list[str]) -> tuple[Any, None]:
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    tokens = trainer.processing_class.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = model.get_base_model().get_text_features(**tokens)
    features = out if isinstance(out, torch.Tensor) else out.pooler_output
    return torch.nn.functional.normalize(features, dim=-1).numpy(), None


def run(seed: int, regime: str, n_train: int, n_test: int, epochs: int) -> dict[str, Any]:
    """One row."""
    began = time.time()
    train, test = splits(seed, n_train, n_test)
    name = resolve_model("tiny_clip")
    torch.manual_seed(seed)
    model = get_peft_model(CLIPModel.from_pretrained(name), LoraConfig(r=8, lora_alpha=16, target_modules=LAYERS))
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=50, per_device_eval_batch_size=200,
            learning_rate=1e-3, lr_scheduler_type="cosine", warmup_steps=10, report_to="none", disable_tqdm=True,
            save_strategy="no", logging_strategy="no", seed=seed, use_cpu=True,
        )  # fmt: skip
        trainer = RetrievalTrainer(
            model, args, train_dataset=train, processing_class=AutoProcessor.from_pretrained(name),
            discovery=False if regime == "plain" else None,
            moved=0.5 if regime == "moved" else 0.0,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        # The same for all regimes of a seed.
        untuned = measured(trainer, test) if regime == "plain" else None
        trainer.train()
        found = trainer.robust
        line = np.asarray(train["factor_line"][:])
        right = float(np.mean(trainer.discovery.groups_ == line)) if found else None
        return {
            "seed": seed, "regime": regime, "found": found, "line_inferred_right": right, "untuned": untuned,
            **measured(trainer, test), "seconds": round(time.time() - began, 1),
        }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard error over the seeds, per regime and direction."""
    out: dict[str, Any] = {}
    for regime in REGIMES:
        own = [row for row in rows if row["regime"] == regime]
        if not own:
            continue
        out[regime] = {}
        for direction in ("image_to_text", "text_to_image"):
            out[regime][direction] = {}
            for name in ("recall@1", "worst_group_recall@1", "recall@5", "worst_group_recall@5"):
                values = np.array([row[direction][name] for row in own])
                error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
                out[regime][direction][name] = {"mean": float(values.mean()), "error": error}
    return out


def main() -> None:
    """Compute what is missing and write the file after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    parser.add_argument("--regimes", nargs="*", default=list(REGIMES), choices=REGIMES)
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--n-test", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after so long")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    saved = json.loads(args.out.read_text()) if args.out.is_file() else {"rows": []}
    rows = saved["rows"]
    began = time.time()
    done = {(row["seed"], row["regime"]) for row in rows}
    for regime in args.regimes:
        for seed in args.seeds:
            if (seed, regime) in done or time.time() - began > 60 * args.minutes:
                continue
            rows.append(run(seed, regime, args.n_train, args.n_test, args.epochs))
            last = rows[-1]
            for direction in ("image_to_text", "text_to_image"):
                found = last[direction]
                print(f"seed {seed}, {regime}, {direction}: recall@1 {found['recall@1']:.3f}, worst group "
                      f"{found['worst_group_recall@1']:.3f}", flush=True)  # fmt: skip
            versions = {"torch": torch.__version__, "transformers": transformers.__version__}
            result = {
                "settings": {"n_train": args.n_train, "n_test": args.n_test, "epochs": args.epochs},
                "versions": {**versions, "python": platform.python_version()},
                "summary": summary(rows), "rows": rows,
            }  # fmt: skip
            args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
