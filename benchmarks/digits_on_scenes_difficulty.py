"""How hard is digits_on_scenes? Plain training against a group-label oracle, with the embedded encoder.

    python benchmarks/digits_on_scenes_difficulty.py --seeds 5

For every seed: a frozen linear probe and LoRA (r=8 on q_proj and v_proj, linear head), each once plainly and once with
the true groups balanced (the oracle: weights for the probe, balanced batches for LoRA). Worst-group and mean-of-groups
accuracy on the test. Beside it what discovery needs: that the photograph and the digit's class are both decodable from
the frozen latents, and that examples on the other class's photograph lie towards the other class.
"""

import argparse
import json
import logging
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForImageClassification, AutoProcessor

from aifs_peft.data.digits_on_scenes import GROUP_NAMES, load_digits_on_scenes

ROOT = Path(__file__).parent.parent
ENCODER = ROOT / "aifs_peft" / "assets" / "tiny_clip"
RESULT = ROOT / "benchmarks" / "results" / "digits_on_scenes_difficulty.json"

Split = tuple[torch.Tensor, np.ndarray, np.ndarray]


def tensors(part: Dataset, processor: Any) -> Split:
    """Pixels (n, 3, 32, 32), labels (n,) and groups (n,) of a split."""
    pixels = processor(images=list(part["image"]), return_tensors="pt").pixel_values
    return pixels, np.asarray(part["label"]), np.asarray(part["group"])


def encoder() -> Any:
    """The encoder with a new linear head on the mean patch token."""
    return AutoModelForImageClassification.from_pretrained(ENCODER, num_labels=2)


@torch.no_grad()
def frozen_latents(pixels: torch.Tensor) -> np.ndarray:
    """Input of the classifier, (n, 160)."""
    model = encoder().eval()
    model.classifier = torch.nn.Identity()
    return torch.cat([model(pixel_values=part).logits for part in pixels.split(256)]).numpy()


def scores(predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Accuracy per group, of the worst, and their mean (the groups of the test are equally large)."""
    accuracy = [float((predicted == labels)[groups == g].mean()) for g in range(4)]
    return {"worst_group": min(accuracy), "mean": float(np.mean(accuracy)), "groups": accuracy}


def probe(z: dict[str, np.ndarray], data: dict[str, Split], *, oracle: bool) -> dict[str, Any]:
    """Logistic regression on frozen latents; the oracle weighs examples by inverse size of their true group."""
    _, y, g = data["train"]
    weights = 1 / np.bincount(g)[g] * len(g) / 4 if oracle else np.ones(len(g))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(z["train"], y, logisticregression__sample_weight=weights)
    return scores(model.predict(z["test"]), *data["test"][1:])


def lora(data: dict[str, Split], seed: int, args: argparse.Namespace, *, oracle: bool) -> dict[str, Any]:
    """LoRA fine-tuning, last epoch; the oracle draws every batch evenly from the true groups."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
    model = get_peft_model(encoder(), config)
    pixels, y, g = data["train"]
    labels = torch.from_numpy(y)
    steps = args.epochs * len(y) // args.batch_size
    weights = torch.from_numpy(1 / np.bincount(g)[g] if oracle else np.ones(len(g)))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(steps):
        rows = torch.multinomial(weights, args.batch_size, replacement=oracle, generator=generator)
        loss = torch.nn.functional.cross_entropy(model(pixel_values=pixels[rows]).logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(pixel_values=part).logits for part in data["test"][0].split(256)])
    return scores(logits.argmax(1).numpy(), *data["test"][1:])


def geometry(z: np.ndarray, y: np.ndarray, attribute: np.ndarray) -> dict[str, float]:
    """Where conflicting examples lie in PCA space (16 whitened directions, no group label used to find it).

    Along the line between the two class means: area under the ROC curve for telling conflicting from aligned examples
    inside a class, averaged over the classes. 1: displaced entirely towards the other class; 0.5: not at all.
    """
    reduced = PCA(16, whiten=True, random_state=0).fit_transform(z)
    axis = reduced[y == 1].mean(0) - reduced[y == 0].mean(0)
    position = reduced @ axis
    areas = [roc_auc_score(attribute[y == c] != c, position[y == c] * (1 if c == 0 else -1)) for c in range(2)]
    return {"conflict_auc_along_class_axis": float(np.mean(areas))}


def decodable(seed: int, processor: Any) -> dict[str, float]:
    """Test accuracy of probes for photograph and class when photographs are independent of the class."""
    splits = load_digits_on_scenes(seed=seed, aligned_share=0.5)
    z = {name: frozen_latents(tensors(splits[name], processor)[0]) for name in ("train", "test")}
    result = {}
    for column in ("attribute", "label"):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        model.fit(z["train"], splits["train"][column])
        result[f"decoded_{column}"] = float(model.score(z["test"], splits["test"][column]))
    return result


def run_seed(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """All measurements of one seed."""
    processor = AutoProcessor.from_pretrained(ENCODER)
    splits = load_digits_on_scenes(seed=seed)
    data = {name: tensors(splits[name], processor) for name in ("train", "test")}
    z = {name: frozen_latents(part[0]) for name, part in data.items()}
    return {
        "seed": seed,
        "probe": probe(z, data, oracle=False),
        "probe_oracle": probe(z, data, oracle=True),
        "lora": lora(data, seed, args, oracle=False),
        "lora_oracle": lora(data, seed, args, oracle=True),
        **geometry(z["train"], data["train"][1], np.asarray(splits["train"]["attribute"])),
        **decodable(seed, processor),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"mean": round(float(np.mean(values)), 4), "std": round(float(np.std(values, ddof=1)), 4)}

    methods = {
        name: {key: spread([run[name][key] for run in runs]) for key in ("worst_group", "mean")}
        for name in ("probe", "probe_oracle", "lora", "lora_oracle")
    }
    plain = {
        key: spread([run[key] for run in runs])
        for key in ("conflict_auc_along_class_axis", "decoded_attribute", "decoded_label")
    }
    return {**methods, **plain}


def main() -> None:
    """Measure, print the summary, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds must be at least 2: a standard deviation is reported")
    torch.set_num_threads(args.threads)
    # Every load reports that the classifier is new and that the text tower is unused: both are meant.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    start = time.perf_counter()
    runs = []
    for seed in range(args.seeds):
        runs.append(run_seed(seed, args))
        print(json.dumps(runs[-1]), flush=True)
    result = {
        "benchmark": "digits_on_scenes_difficulty",
        "encoder": "aifs_peft/assets/tiny_clip",
        "settings": {k: v for k, v in vars(args).items() if k != "output"},
        "groups": GROUP_NAMES,
        "summary": summary(runs),
        "runs": runs,
        "seconds": round(time.perf_counter() - start),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["summary"], indent=2))


if __name__ == "__main__":
    main()
