"""Pictures with columns of a table: a shortcut in the picture, in the table, or in both.

    python benchmarks/multimodal.py

SpuriousScenes, world `factory`: a stain or a crack on a plate (core strength 2), the colour of the line in the picture,
the shift in the table (one-hot, with a number that means nothing). Encoded by `FusedClassifier` with the embedded tiny
CLIP, frozen. *image*: the line goes with the label; *table*: the shift does; *shared*: both show the line. Share of
aligned examples 0.95 in training, 0.5 in the test; 2,000 examples each; groups are label x value of the shortcut.

Measured per seed: worst-group accuracy of plain logistic regression, of `AIFSClassifier`, and of two oracles on the
same latents: logistic regression with the true groups weighed evenly, its penalty by held-out worst-group accuracy, and
`AIFSClassifier` that is told the true values; whether discovery found a shortcut, for
how many examples it tells the right value, and which share of the direction lies in the table's latents; the same
discovery on latents that stand side by side as they are. About 6 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from transformers import AutoImageProcessor

from aifs_peft import AIFSClassifier, discover
from aifs_peft.data import load
from aifs_peft.experiments import provenance
from aifs_peft.metrics import group_metrics
from aifs_peft.models import FusedClassifier

RESULT = Path(__file__).parent / "results" / "multimodal.json"
WHERE = {"image": "line", "table": "shift", "shared": "line"}
SEEDS, N, SHARE, CORE = 5, 2000, 0.95, 2.0
PENALTIES, FOLDS = (1e-4, 1e-3, 1e-2, 0.1, 1.0), 2
TINY_CLIP = str(files("aifs_peft") / "assets" / "tiny_clip")


def scenes(where: str, seed: int) -> dict[str, dict[str, Any]]:
    """Pixels, columns, labels and values of the shortcut of both splits."""
    options: dict[str, Any] = {"n_train": N, "n_validation": 1, "n_test": N, "image_size": 32, "seed": seed}
    data = load(
        "spurious_scenes", world="factory", shortcuts=(WHERE[where],), aligned=SHARE, core_strength=CORE, **options
    )
    processor = AutoImageProcessor.from_pretrained(TINY_CLIP)
    out = {}
    for split in ("train", "test"):
        rows = data[split]
        features = np.array(rows["features"][:], dtype=np.float32)
        value = np.array(rows[f"factor_{WHERE[where]}"][:])
        if where == "shared":  # the table says the line, too
            features[:, 0], features[:, 1] = 1 - value, value
        pixels = processor(rows["image"][:], return_tensors="pt").pixel_values
        inputs = {"pixel_values": pixels, "features": torch.from_numpy(features)}
        out[split] = {"inputs": inputs, "y": np.array(rows["label"][:]), "a": value}
    return out


@torch.no_grad()
def parts_of(model: FusedClassifier, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The latents of both kinds of input, not scaled."""
    starts = range(0, len(inputs["features"]), 200)
    parts = [model.latents({k: v[start : start + 200] for k, v in inputs.items()}) for start in starts]
    return [torch.cat(part) for part in zip(*parts, strict=True)]


def worst(y: NDArray[Any], a: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Accuracy of the worst group."""
    return float(group_metrics(y, predicted, 2 * y + a)["worst_group_accuracy"])


def oracle(Z: NDArray[Any], y: NDArray[Any], a: NDArray[Any]) -> Any:
    """Logistic regression with evenly weighed true groups, on whitened principal components."""
    whitened = PCA(min(Z.shape[1] - 2, 256), whiten=True, random_state=0).fit(Z)
    X = whitened.transform(Z)
    cell = 2 * y + a
    weights = len(y) / (4 * np.bincount(cell, minlength=4)[cell])

    def fit(rows: NDArray[Any], penalty: float) -> Any:
        model = LogisticRegression(C=penalty, max_iter=2000)
        return model.fit(X[rows], y[rows], sample_weight=weights[rows])

    scores = []
    for penalty in PENALTIES:
        told = np.zeros_like(y)
        for rows, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, cell):
            told[held_out] = fit(rows, penalty).predict(X[held_out])
        scores.append(worst(y, a, told))
    return make_pipeline(whitened, fit(np.arange(len(y)), PENALTIES[int(np.argmax(scores))]))


def right_values(found: Any, a: NDArray[Any]) -> float | None:
    """For how many examples discovery tells the right value; None where it found nothing."""
    if not found.found:
        return None
    same = float(np.mean(np.asarray(found.groups_) == a))
    return round(max(same, 1 - same), 4)


def one_run(where: str, seed: int) -> dict[str, Any]:
    """One row of the result."""
    data = scenes(where, seed)
    train, test = data["train"], data["test"]
    torch.manual_seed(seed)
    sample = {name: value[:500] for name, value in train["inputs"].items()}
    model = FusedClassifier.for_examples(TINY_CLIP, sample, ["stain", "crack"])
    parts = {split: parts_of(model, rows["inputs"]) for split, rows in data.items()}
    Z, Z_test = (model.blocks(parts[split]).numpy() for split in ("train", "test"))
    y, a = train["y"], train["a"]
    fitted = {
        "erm": AIFSClassifier("erm", random_state=seed).fit(Z, y),
        "aifs": AIFSClassifier(random_state=seed).fit(Z, y),
        "oracle": oracle(Z, y, a),
        "known groups": AIFSClassifier(random_state=seed).fit(Z, y, groups=a),
    }
    found = fitted["aifs"].discovery_
    as_they_are = np.concatenate([parts["train"][0].numpy(), train["inputs"]["features"].numpy()], axis=1)
    share = model.blocks.shares(torch.from_numpy(found.basis_.T.copy()))[:, 1] if found.found else None
    return {
        "where": where,
        "seed": seed,
        "worst_group_accuracy": {
            name: round(worst(test["y"], test["a"], m.predict(Z_test)), 4) for name, m in fitted.items()
        },
        "right_values": right_values(found, a),
        "share_of_table": None if share is None else [round(float(value), 3) for value in share],
        "right_values_unscaled": right_values(discover(as_they_are, y, random_state=seed), a),
    }


def main() -> None:
    """Measure all runs that the file does not hold yet, and write it after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(SEEDS)))
    parser.add_argument("--where", nargs="+", default=list(WHERE), choices=list(WHERE))
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    before = json.loads(options.output.read_text())["rows"] if options.output.is_file() else []
    rows = {(row["where"], row["seed"]): row for row in before}
    for seed in options.seeds:
        for where in options.where:
            if (where, seed) not in rows:
                rows[where, seed] = one_run(where, seed)
                print(json.dumps(rows[where, seed]), flush=True)
                result = {"rows": [rows[key] for key in sorted(rows)], "provenance": provenance()}
                options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
