"""What encoding once saves: 540 pictures, a frozen MobileNetV2, five epochs, against the encoder in every epoch.

Both arms train the same adapter on the same data from the same seed; they take turns within one run, and each round
begins with the other one. Counted are pictures that pass the encoder; timed are seconds from a built trainer to the
predictions of the test set, on the clock and of the processor. The arm that encodes in every epoch reads and resizes
each picture once, too, and keeps its pixels. The logits of both arms are compared.

    AIFS_SHARED=DIR python benchmarks/frozen_epochs.py [--rounds 2] [--epochs 5] [--pixels 96] [--model FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from aifs_peft.experiments import FinetuneSpec, PreparedDataset, provenance
from aifs_peft.experiments.build import Assembled, build_trainer
from aifs_peft.experiments.run import encode_splits, train
from aifs_peft.training import AIFSTrainingArguments

RESULT = Path(__file__).parent / "results" / "frozen_epochs.json"
SHARED = Path(os.environ.get("AIFS_SHARED", Path(__file__).parents[2] / "shared"))
ARMS = ("encode_once", "every_epoch")
SIDE = 96


def write_pictures(folder: Path, n: int) -> Path:
    """Pictures of two classes, a bright or a dark square in noise, and a mark that goes with the class for 95 %."""
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        label = i % 2
        mark = label if i // 2 % 20 else 1 - label
        pixels = rng.normal(110, 30, (SIDE, SIDE, 3))
        pixels[30:60, 30:60] += 25 * (2 * label - 1)
        pixels[4:16, 4 + 70 * mark : 16 + 70 * mark] = 250
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i:04d}.png")
        rows.append((f"{i:04d}.png", ("dark", "bright")[label], ("left", "right")[mark]))
    pd.DataFrame(rows, columns=["path", "label", "mark"]).to_csv(folder / "pictures.csv", index=False)
    return folder / "pictures.csv"


def build(table: Path, model: str, epochs: int, folder: str) -> Assembled:
    """A run that is ready to train, as `aifs finetune --adapter none` builds it."""
    spec = FinetuneSpec(model=model, dataset=str(table), image="path", label="label", attribute="mark", adapter="none")
    args = AIFSTrainingArguments(
        output_dir=folder, method="aifs", num_train_epochs=epochs, learning_rate=1.5e-3, eval_strategy="epoch",
        save_strategy="epoch", save_total_limit=1, load_best_model_at_end=True, per_device_train_batch_size=32,
        per_device_eval_batch_size=64, disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    return build_trainer(spec, args, [])


def measure(arm: str, table: Path, model: str, epochs: int, pixels: int) -> tuple[dict[str, float], np.ndarray]:
    """Pictures through the encoder, seconds, and logits of the test set."""
    with tempfile.TemporaryDirectory() as folder:
        run = build(table, model, epochs, folder)
        run.processor.size, run.processor.crop_size = {"shortest_edge": pixels}, {"height": pixels, "width": pixels}
        passed = 0

        def count(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal passed
            passed += len(args[0] if args else kwargs["pixel_values"])

        encoder = run.trainer.adapted.get_base_model().base_model
        encoder.register_forward_pre_hook(count, with_kwargs=True)
        clock, processor = time.perf_counter(), time.process_time()
        latents = {}
        if arm == "encode_once":
            latents = encode_splits(run, lambda _: None)
        else:
            run.prepared = {
                name: PreparedDataset(rows, run.prepared[name].encode, column=run.modality, split=name)
                for name, rows in run.splits.items()
            }
        logits = train(run, run.trainer.args, latents, lambda _: None)
        seconds = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
    return {"pictures_encoded": passed, **seconds}, logits


def main() -> None:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=540)
    parser.add_argument("--pixels", type=int, default=96, help="side of what the encoder is given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default=str(SHARED / "models" / "mobilenet_v2_imagenet"))
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seen: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    logits: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = write_pictures(Path(folder), given.pictures)
        for number in range(given.rounds):
            for arm in ARMS if number % 2 == 0 else ARMS[::-1]:
                numbers, logits[arm] = measure(arm, table, given.model, given.epochs, given.pixels)
                seen[arm].append(numbers)
                print(f"round {number + 1}  {arm:11}  {numbers}", flush=True)
    once, every = (seen[arm] for arm in ARMS)
    result = {
        "model": Path(given.model).name,
        **{name: getattr(given, name) for name in ("pictures", "epochs", "rounds", "pixels", "threads")},
        "arms": seen,
        "pictures_encoded": {arm: seen[arm][0]["pictures_encoded"] for arm in ARMS},
        "ratio": {  # every epoch over once, the median of the rounds
            clock: statistics.median(e[clock] / o[clock] for e, o in zip(every, once, strict=True))
            for clock in ("clock", "processor")
        },
        "largest_difference_of_logits": float(np.abs(logits[ARMS[0]] - logits[ARMS[1]]).max()),
        "provenance": provenance(),
    }
    given.out.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    print(json.dumps({name: result[name] for name in ("pictures_encoded", "ratio", "largest_difference_of_logits")}))


if __name__ == "__main__":
    main()
