"""What a training step of AIFS costs beside one of plain training: same LoRA encoder, steps taken in turn.

ViT-B/16 shapes with random weights (time does not depend on their values), 224 x 224 pixels, LoRA r = 8 on the query
and value projections. One step is forward, loss, backward, AdamW. The arms take turns within one run and each round
starts with another arm, so that slow phases of a shared machine fall on all of them; the result is the median of the
rounds' ratios with a bootstrap interval.

    python benchmarks/step_overhead.py --rounds 10 --batch-size 8 --threads 2

On a machine that others use as well take `--threads 1` and read the processor time: with several threads each small
operation waits for a core, and waiting is counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import ViTConfig, ViTForImageClassification

from aifs_peft.methods import make
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.tuner import AIFSConfig

RESULT = Path(__file__).parent / "results" / "step_overhead.json"
ARMS = ("erm", "aifs-paper", "aifs")
NUM_EXAMPLES = 64


def build(batch_size: int, folder: str, layers: int) -> AIFSTrainer:
    """A trainer on ViT-B/16 (or fewer layers, to try the script) and random images."""
    torch.manual_seed(0)
    vit = ViTForImageClassification(ViTConfig(num_labels=2, num_hidden_layers=layers))
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(vit, AIFSConfig.paper(encoder_adapter=lora))
    data = [{"pixel_values": torch.randn(3, 224, 224), "label": i % 2} for i in range(NUM_EXAMPLES)]
    args = AIFSTrainingArguments(
        output_dir=folder, per_device_train_batch_size=batch_size, use_cpu=not torch.cuda.is_available()
    )
    return AIFSTrainer(model, args, train_dataset=data)


def prepare(trainer: AIFSTrainer, arm: str) -> None:
    """Switch the method, with a state in which each of its terms is at work."""
    state = trainer.layer.state
    dim = state.dim
    if arm == "aifs":
        direction = torch.nn.functional.one_hot(torch.tensor(0), dim).float()
        state.update(
            basis=direction[:, None],
            mask=torch.ones(1),
            displacements=torch.stack([-direction, direction]),
            class_displacements=torch.stack([direction, -direction]).roll(1, dims=1),
            groups=torch.arange(NUM_EXAMPLES) // 2 % 2,
        )
    else:
        nothing = torch.zeros(0)
        state.update(basis=torch.zeros(dim, 0), mask=torch.rand(dim), displacements=torch.zeros(0, dim), groups=nothing)
        state.update(class_displacements=torch.zeros(0, dim))
    trainer.method, trainer._runner = make(arm), None  # the runner of the new method is made when asked for
    trainer.method.prepare(trainer.runner.contexts.epoch(0))


def synchronise() -> None:
    """Wait for the accelerator, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def step(trainer: AIFSTrainer, optimizer: torch.optim.Optimizer, batch: dict[str, Any]) -> tuple[float, float]:
    """One training step; its wall-clock and processor time in seconds."""
    trainer.model.train()
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    synchronise()
    return time.perf_counter() - wall, time.process_time() - cpu


def ratio(values: list[float], base: list[float]) -> dict[str, float]:
    """Median of the rounds' ratios, with a 95 % bootstrap interval."""
    ratios = np.asarray(values) / np.asarray(base)
    draws = np.random.default_rng(0).choice(ratios, (5000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds, and the mask update of an epoch's end."""
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(options.batch_size, folder, options.layers)
        optimizer = torch.optim.AdamW([p for p in trainer.model.parameters() if p.requires_grad], lr=1e-4)
        batch = next(iter(trainer.get_train_dataloader()))
        seconds: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
        for turn in range(-1, options.rounds):  # the first round warms up
            for arm in [*ARMS[turn % 3 :], *ARMS[: turn % 3]]:
                prepare(trainer, arm)
                taken = step(trainer, optimizer, batch)
                if turn >= 0:
                    seconds[arm].append(taken)
            print(f"round {turn}: " + ", ".join(f"{a} {s[-1][0]:.3f} s" for a, s in seconds.items() if s), flush=True)
        prepare(trainer, "aifs-paper")
        dim = trainer.layer.state.dim
        runner, rows = trainer.runner, torch.arange(NUM_EXAMPLES)
        runner.store.add(rows, torch.randn(NUM_EXAMPLES, dim), rows % 2, step=0)
        start = time.perf_counter()
        runner.finish_epoch(1)
        update = time.perf_counter() - start
    wall = {arm: [pair[0] for pair in pairs] for arm, pairs in seconds.items()}
    cpu = {arm: [pair[1] for pair in pairs] for arm, pairs in seconds.items()}
    return {
        "seconds_per_step": {arm: statistics.median(values) for arm, values in wall.items()},
        "ratio_to_erm": {arm: ratio(wall[arm], wall["erm"]) for arm in ARMS[1:]},
        "processor_time_ratio_to_erm": {arm: ratio(cpu[arm], cpu["erm"]) for arm in ARMS[1:]},
        "mask_update_seconds": {"examples": NUM_EXAMPLES, "seconds": update},
        "raw_seconds": wall,
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    setting = {
        "model": f"ViT-B/16 shapes, {options.layers} layers, random weights, 224 x 224 pixels",
        "encoder_adapter": "LoRA r = 8 on q_proj and v_proj",
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "threads": options.threads,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)}
        | {"python": platform.python_version()},
    }
    result = {"setting": setting, **measure(options)}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "raw_seconds"}, indent=2))


if __name__ == "__main__":
    main()
