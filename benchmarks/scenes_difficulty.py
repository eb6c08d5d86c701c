"""How hard are the worlds of SpuriousScenes? Plain training against a group-label oracle on a frozen encoder.

    AIFS_SHARED=DIR python benchmarks/scenes_difficulty.py [--seeds 5] [--out FILE]

Encoder: frozen ImageNet MobileNetV2 (`models/mobilenet_v2_imagenet` of the folder of inputs), 96 px, 1,280 features.
Head: logistic regression, C = 0.001, on standardised features; the oracle weights the true groups equally. Default
options (95 % aligned, core strength 1) with 1,600 training and 600 test images; worst-group accuracy per seed.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel

from aifs_peft.data import group_array, load
from aifs_peft.data.spurious_scenes import WORLDS

SIZES = {"n_train": 1600, "n_validation": 10, "n_test": 600}


@torch.inference_mode()
def features(model: Any, part: Any) -> np.ndarray:
    """Pooled features (n, 1280) of a split."""
    chunks = []
    for start in range(0, len(part), 100):
        pixels = np.stack([np.asarray(image) for image in part[start : start + 100]["image"]])
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        scaled = torch.nn.functional.interpolate(scaled, size=96, mode="bilinear", align_corners=False)
        chunks.append(model(scaled).pooler_output.numpy())
    return np.concatenate(chunks)


def one(model: Any, world: str, seed: int) -> dict[str, float]:
    """Worst-group and average accuracy of plain training and of the oracle."""
    data = load("spurious_scenes", world=world, seed=seed, **SIZES)
    scaler = StandardScaler().fit(z := features(model, data["train"]))
    train, test = scaler.transform(z), scaler.transform(features(model, data["test"]))
    y, y_test = np.asarray(data["train"]["label"][:]), np.asarray(data["test"]["label"][:])
    groups, g_test = group_array(data["train"]), group_array(data["test"])
    balanced = (len(groups) / 4 / np.bincount(groups, minlength=4))[groups]
    result: dict[str, float] = {"seed": seed}
    for name, weight in (("erm", None), ("oracle", balanced)):
        head = LogisticRegression(C=1e-3, max_iter=500).fit(train, y, sample_weight=weight)
        right = head.predict(test) == y_test
        result[f"{name}_worst_group"] = round(min(float(right[g_test == g].mean()) for g in range(4)), 4)
        result[f"{name}_average"] = round(float(right.mean()), 4)
    return result


def main() -> None:
    """Run all worlds; the file is rewritten after each, so that a cut-off loses at most one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scenes_difficulty.json")
    args = parser.parse_args()
    shared = Path(os.environ.get("AIFS_SHARED", Path(__file__).parents[2] / "shared"))
    model = AutoModel.from_pretrained(shared / "models" / "mobilenet_v2_imagenet").eval()
    result: dict[str, Any] = {
        "what": "SpuriousScenes at its defaults, frozen MobileNetV2 at 96 px, logistic head",
        **SIZES,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "worlds": {world: [] for world in WORLDS},
    }
    for seed in range(args.seeds):
        for world in WORLDS:
            result["worlds"][world].append(one(model, world, seed))
            print(world, result["worlds"][world][-1], flush=True)
            args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
