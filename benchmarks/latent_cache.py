"""What the latent cache saves: a pass of ViT-B/16 against writing, reading and training on its latents.

Pictures are encoded once by a ViT-B/16 with random weights (224 px), which gives the time per picture; the cache then
takes latents of as many rows as `--rows` says. Timed are its key (every weight and picture is hashed), writing, reading
(with the comparison of its digest), and one epoch of the default method's head on the latents. A run of 50 epochs of
a small encoder counts the pictures that pass the encoder, with and without the folder of an earlier run.

    python benchmarks/latent_cache.py [--pictures 16] [--rows 10000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from aifs_peft import AIFSTrainingArguments
from aifs_peft.experiments import FinetuneSpec, PreparedDataset, provenance, run_finetune
from aifs_peft.experiments.latent_cache import LatentCache
from aifs_peft.experiments.latents import latents_of
from aifs_peft.experiments.prepare import ImageEncoder
from aifs_peft.training import LatentSchedule, fit_on_latents

RESULT = Path(__file__).parent / "results" / "performance" / "latent_cache.json"
EPOCHS = 50


def median_seconds(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of the median round."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def vit_b16(pictures: int, rounds: int, rows: int) -> dict[str, float]:
    """Seconds per picture and per latent of each stage."""
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(num_labels=2)).eval()
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (224, 224, 3), dtype=np.uint8) for _ in range(pictures)]
    labels = [i % 2 for i in range(pictures)]
    source = Dataset.from_dict({"image": [Image.fromarray(p) for p in pixels], "label": labels})
    data = PreparedDataset(source, ImageEncoder(ViTImageProcessor()), cache_bytes=0)
    encode = median_seconds(lambda: latents_of(model, data, batch_size=8), rounds)
    Z = torch.randn(rows, 768)
    with tempfile.TemporaryDirectory() as folder:
        few = Z[:pictures]
        write = median_seconds(
            lambda: LatentCache(Path(tempfile.mkdtemp(dir=folder))).get(model, data, lambda: few), rounds
        )
        kept = LatentCache(Path(folder) / "kept")
        kept.get(model, data, lambda: few)
        read = median_seconds(lambda: kept.get(model, data, lambda: few), rounds)
    y = torch.arange(rows) % 2
    Z += y[:, None] * 0.1
    epochs = {
        n: median_seconds(
            lambda n=n: fit_on_latents("aifs", Z, y, num_labels=2, schedule=LatentSchedule(epochs=n)), rounds
        )
        for n in (1, 6)
    }
    per_epoch = (epochs[6] - epochs[1]) / 5 / rows
    return {
        "encode_seconds_per_picture": encode / pictures,
        "key_and_write_seconds": write,
        "key_and_read_seconds": read,
        "epoch_seconds_per_latent": per_epoch,
        "ratio": encode / pictures / per_epoch,
    }


def passes() -> dict[str, float]:
    """Passes of a frozen encoder over the training pictures in 50 epochs, in a first and in a second run."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in ("first_run", "second_run"):
            prepared = 0
            original = ImageEncoder.__call__

            def count(self: ImageEncoder, images: Any) -> Any:
                nonlocal prepared
                prepared += len(images)
                return original(self, images)  # noqa: B023 - used within the round

            ImageEncoder.__call__ = count  # type: ignore[method-assign]
            try:
                args = AIFSTrainingArguments(
                    output_dir=f"{folder}/{number}", num_train_epochs=EPOCHS, use_cpu=True, disable_tqdm=True,
                    report_to="none", save_strategy="no", per_device_train_batch_size=64,
                )  # fmt: skip
                sizes = {"n_train": 400, "n_validation": 100, "n_test": 100, "image_size": 32}
                spec = FinetuneSpec(
                    dataset="spurious_scenes", dataset_options=sizes, adapter="none", audit=False,
                    latent_cache=f"{folder}/kept",
                )  # fmt: skip
                run_finetune(spec, args, [])
            finally:
                ImageEncoder.__call__ = original  # type: ignore[method-assign]
            found[number] = prepared / sum(sizes[f"n_{name}"] for name in ("train", "validation", "test"))
    return found


def main() -> None:
    """Measure, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    result = {
        "arguments": vars(given),
        "vit_b16": vit_b16(given.pictures, given.rounds, given.rows),
        "passes_in_50_epochs": passes(),
        "provenance": provenance(),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
