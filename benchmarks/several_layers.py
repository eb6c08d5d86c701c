"""A weak mark in pictures, by the last latent of an encoder and by blocks at three depths beside it.

    python benchmarks/several_layers.py CACHE_DIR

CIFAR-10 automobiles and trucks, 64 px, with and without a pale square in a corner (see discovery_encode_cars.py),
frozen MobileNetV2 under `AIFSConfig(latents="multi")`. Each picture is encoded once with and once without the mark; a
draw takes 2,000 of 3,000 training pictures and gives the mark to 95 % of one class and 5 % of the other. Measured per
draw, for both kinds of latents: contrasts of mark and class in standard deviations, held out; whether `discover` finds
the mark, and for how many examples it tells the right value; worst-group accuracy of plain logistic regression, of
`AIFSClassifier` and of `AIFSClassifier(groups=the true values)` on 800 test pictures with and without the mark. About
6 minutes on one core; the cache stays outside the repository.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from discovery_dominoes import shared
from discovery_encode_cars import BATCH, marked, pictures, strength
from numpy.typing import NDArray
from peft import get_peft_model
from transformers import AutoModelForImageClassification

from aifs_peft import AIFSClassifier, AIFSConfig
from aifs_peft.experiments import provenance
from aifs_peft.latent.blocks import ScaledBlocks
from aifs_peft.metrics import group_metrics
from aifs_peft.tuner import find_aifs_layer

RESULT = Path(__file__).parent / "results" / "several_layers.json"
OPACITIES, DRAWS, N, SHARE = (0.7, 0.4), 5, 2000, 0.95
N_TRAIN, N_TEST, PICTURES = 3000, 800, 7


@torch.no_grad()
def encode(model: Any, x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Latents of all layers that are read, side by side and not scaled."""
    layer, parts = find_aifs_layer(model), []
    for start in range(0, len(x), BATCH):
        pixels = torch.from_numpy(x[start : start + BATCH]).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        model.eval()(pixel_values=pixels)
        parts.append(layer.take_output().z.numpy())
    return np.concatenate(parts)


def encoded(cache: Path) -> tuple[dict[str, NDArray[Any]], list[int]]:
    """Latents of both splits without the mark and with it by opacity, labels, and the widths of the layers."""
    base = AutoModelForImageClassification.from_pretrained(str(shared() / "models" / "mobilenet_v2_imagenet"))
    model = get_peft_model(base, AIFSConfig(latents="multi", num_labels=2))
    cache.mkdir(parents=True, exist_ok=True)
    out: dict[str, NDArray[Any]] = {}
    for split, n in (("train", N_TRAIN), ("test", N_TEST)):
        x, out[f"{split} y"] = pictures(split, n, seed=PICTURES)
        for opacity in (0, *OPACITIES):
            file = cache / f"layers_{split}_{opacity}.npy"
            if not file.is_file():
                np.save(file, encode(model, marked(x, opacity) if opacity else x))
                print("encoded", file.name, flush=True)
            out[f"{split} {opacity}"] = np.load(file)
    return out, find_aifs_layer(model).blocks.widths  # type: ignore[union-attr]


def latents(kind: str, widths: list[int], raw: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The last latent, or all of them scaled by the first array."""
    if kind == "last":
        return [z[:, -widths[-1] :] for z in raw]
    blocks = ScaledBlocks(widths)
    blocks.fit(torch.from_numpy(raw[0]))
    return [blocks(torch.from_numpy(z).split(widths, 1)).numpy() for z in raw]


def one_draw(data: dict[str, NDArray[Any]], widths: list[int], opacity: float, kind: str, draw: int) -> dict[str, Any]:
    """One row of the result."""
    rng = np.random.default_rng([draw, 15])
    rows = rng.permutation(N_TRAIN)[:N]
    y, test_y = data["train y"][rows], np.tile(data["test y"], 2)
    a = np.where(rng.random(N) < SHARE, y, 1 - y)
    plain, mark = data["train 0"][rows], data[f"train {opacity}"][rows]
    test = np.concatenate([data["test 0"], data[f"test {opacity}"]])
    Z, Z_plain, Z_mark, Z_test = latents(kind, widths, [np.where(a[:, None] == 1, mark, plain), plain, mark, test])
    contrast = strength(np.stack([Z_plain, Z_mark], 1), y)
    test_a = np.repeat([0, 1], N_TEST)
    fitted = {
        "erm": AIFSClassifier("erm", random_state=draw).fit(Z, y),
        "aifs": AIFSClassifier(random_state=draw).fit(Z, y),
        "known groups": AIFSClassifier(random_state=draw).fit(Z, y, groups=a),
    }
    found = fitted["aifs"].discovery_
    told = np.mean(np.asarray(found.groups_) == a) if found is not None and found.found else None
    worst = {
        name: round(float(group_metrics(test_y, model.predict(Z_test), 2 * test_y + test_a)["worst_group_accuracy"]), 4)
        for name, model in fitted.items()
    }
    return {
        "opacity": opacity,
        "latents": kind,
        "draw": draw,
        "contrast": contrast,
        "found": told is not None,
        "right_values": None if told is None else round(float(max(told, 1 - told)), 4),
        "worst_group_accuracy": worst,
    }


def main() -> None:
    """Measure all draws that the file does not hold yet, and write it after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--draws", type=int, nargs="+", default=list(range(DRAWS)))
    parser.add_argument("--opacities", type=float, nargs="+", default=list(OPACITIES))
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    data, widths = encoded(options.cache)
    before = json.loads(options.output.read_text())["rows"] if options.output.is_file() else []
    rows = {(row["opacity"], row["latents"], row["draw"]): row for row in before}
    for opacity in options.opacities:
        for draw in options.draws:
            for kind in ("last", "multi"):
                if (opacity, kind, draw) not in rows:
                    rows[opacity, kind, draw] = one_draw(data, widths, opacity, kind, draw)
                    print(json.dumps(rows[opacity, kind, draw]), flush=True)
                    result = {"rows": [rows[key] for key in sorted(rows)], "provenance": provenance()}
                    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
