"""How should the `mlp` of a table be trained? Frozen, by LoRA and whole, on COMPAS with plain training.

    AIFS_SHARED=DIR python benchmarks/tabular_adapters.py [--seeds 5] [--out FILE]

Default options of the set (race, default races), `--method erm`, the command line's default schedule (5 epochs). The
seed decides the split, the random weights and the order of examples. Test split: average and worst-group accuracy.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from transformers.utils import logging

from aifs_peft.cli.options import DEFAULTS
from aifs_peft.experiments import FinetuneSpec, provenance, run_finetune
from aifs_peft.training import AIFSTrainingArguments

ADAPTERS = ("none", "lora", "full")


def one(data_dir: Path, adapter: str, seed: int) -> dict[str, Any]:
    """One run's numbers."""
    spec = FinetuneSpec(
        model="mlp",
        dataset="compas",
        data_dir=str(data_dir),
        adapter=adapter,
        dataset_options={"seed": seed},
        baseline="none",
        audit=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            **DEFAULTS,
            "output_dir": folder,
            "method": "erm",
            "seed": seed,
            "disable_tqdm": True,
            "use_cpu": True,
        }
        result = run_finetune(spec, AIFSTrainingArguments(**settings), callbacks=[])
    metrics = result.summary["metrics"]
    trainable = sum(p.numel() for p in result.model.parameters() if p.requires_grad)
    return {
        "seed": seed,
        "average": round(metrics["average_accuracy"], 4),
        "worst_group": round(metrics["worst_group_accuracy"], 4),
        "trained_parameters": trainable,
    }


def main() -> None:
    """Run all adapters over all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tabular_adapters.json")
    args = parser.parse_args()
    logging.set_verbosity_error()
    data_dir = Path(os.environ.get("AIFS_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "compas"
    runs: dict[str, list[dict[str, Any]]] = {adapter: [] for adapter in ADAPTERS}
    for seed in range(args.seeds):
        for adapter in ADAPTERS:
            runs[adapter].append(one(data_dir, adapter, seed))
            print(adapter, runs[adapter][-1], flush=True)
    what = "COMPAS by race, mlp of width 64, plain training, 5 epochs, batch 32, learning rate 1.5e-3"
    result = {"what": what, "provenance": provenance(), "adapters": runs}
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
