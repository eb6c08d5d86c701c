"""The working folder of somebody who reads the docs: what the pages' code finds there, each a tiny stand-in.

Models are random and have one layer; they lie in folders that have the names of models on the Hub, so that
`from_pretrained("FacebookAI/roberta-base")` in a page finds them without a network.
"""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import report_runs
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

ROOT = Path(__file__).parents[2]
VIT, ROBERTA = "google/vit-base-patch16-224-in21k", "FacebookAI/roberta-base"


def fill(folder: Path) -> None:
    """Write everything that pages of README and docs read."""
    scans = runpy.run_path(str(ROOT / "benchmarks" / "render_data_docs.py"))["write_scans"]
    scans(folder)  # scans.csv, images/, latents/encoded.npz
    class_folders(folder / "my_images")
    reviews(folder / "texts" / "reviews.csv")
    latents(folder / "latents" / "latents.parquet")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(folder / VIT)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / VIT)
    report_runs.save_roberta(folder / ROBERTA)


def class_folders(folder: Path) -> None:
    """40 pictures, cats and dogs, in `train` and `validation`."""
    for position in range(40):
        split = ("train", "validation")[position % 4 > 1]
        kind = ("cat", "dog")[position % 2]
        (folder / split / kind).mkdir(parents=True, exist_ok=True)
        shade = 100 * (position % 2) + position
        Image.new("RGB", (16, 16), (shade, shade, 40)).save(folder / split / kind / f"{position}.png")


def reviews(path: Path, n: int = 600) -> None:
    """Short texts with a label and the site that they come from, which goes with the label for four in five."""
    good = np.arange(n) % 2 == 0
    site = np.where(np.arange(n) // 2 % 5 == 0, ~good, good)
    text = [f"the {'good' if g else 'bad'} you are {'the' if s else 'is'}" for g, s in zip(good, site, strict=True)]
    columns = {"text": text, "label": np.where(good, "good", "bad"), "site": np.where(site, "A", "B")}
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)


def latents(path: Path, n: int = 3000) -> None:
    """Planted latents in columns z0 to z15, a label, and the scanner that goes with it for 95 %."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    scanner = np.where(rng.random(n) < 0.95, y, 1 - y)
    Z = rng.normal(size=(n, 16))
    Z[:, 0] += 2 * y
    Z[:, 1] += 6 * scanner
    table = pd.DataFrame(Z, columns=[f"z{i}" for i in range(16)])
    table.assign(label=y, scanner=np.array(["A", "B"])[scanner]).to_parquet(path, index=False)
