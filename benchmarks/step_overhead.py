"""What a training step of AIFS costs beside one of plain training: same encoder, steps taken in turn.

Shapes of ViT-B/16, RoBERTa-base and CLIP ViT-B/16's image tower with random weights (time does not depend on their
values); LoRA r = 8 on the query and value projections, or a frozen encoder. One step is a batch's forward pass, the
loss with all its terms and checks for numbers that are not finite, the backward pass, clipping and AdamW. `trainer` is
transformers' own `Trainer` on the same model without AIFS. The arms take turns within one run and each round starts
with another arm, so that slow phases of a shared machine fall on all of them.

    python benchmarks/step_overhead.py --threads 2 --rounds 7

On a machine that others use as well take `--threads 1`: ratios of processor time are in the result, too.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    ViTConfig,
    ViTForImageClassification,
)

from aifs_peft.experiments.provenance import provenance
from aifs_peft.methods import make
from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
from aifs_peft.training.finite import require_finite_gradients
from aifs_peft.tuner import AIFSConfig

RESULT = Path(__file__).parent / "results" / "performance" / "step_overhead.json"
# "trainer" is transformers' own; the others are methods of AIFSTrainer. Ratios are to "erm".
ARMS = ("trainer", "erm", "aifs-paper", "aifs")
PARTS = (
    "encoder, forward",
    "pooling, intervention, head, loss with its checks",
    "backward",
    "check of the gradient",
    "clipping and AdamW",
)
NUM_EXAMPLES = 64
TOKENS = 128


def _pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(3, 224, 224)}


def _words() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(5, 50_000, (TOKENS,)), "attention_mask": torch.ones(TOKENS, dtype=torch.long)}


@dataclass(frozen=True)
class Encoder:
    """An encoder by its shapes.

    Attributes:
        make: the classifier on it, from a number of layers.
        example: draws one input.
        targets: modules that LoRA adapts.
    """

    make: Callable[[int], torch.nn.Module]
    example: Callable[[], dict[str, torch.Tensor]]
    targets: tuple[str, ...]


def _clip(layers: int) -> torch.nn.Module:
    # The text tower takes no part in the classifier: two small layers.
    text = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2}
    vision = {"num_hidden_layers": layers, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision |= {"patch_size": 16, "image_size": 224}
    return CLIPForImageClassification(CLIPConfig(text_config=text, vision_config=vision, num_labels=2))


def _roberta(layers: int) -> torch.nn.Module:
    config = RobertaConfig(num_labels=2, num_hidden_layers=layers, max_position_embeddings=514, vocab_size=50_265)
    return RobertaForSequenceClassification(config)


ENCODERS = {
    "ViT-B/16": Encoder(
        lambda layers: ViTForImageClassification(ViTConfig(num_labels=2, num_hidden_layers=layers)),
        _pixels,
        ("q_proj", "v_proj"),
    ),
    "RoBERTa-base": Encoder(_roberta, _words, ("query", "value")),
    "CLIP ViT-B/16": Encoder(_clip, _pixels, ("q_proj", "v_proj")),
}


def build(encoder: Encoder, regime: str, batch_size: int, folder: str, layers: int) -> tuple[AIFSTrainer, Trainer]:
    """Our trainer, and transformers' own on the same encoder without AIFS."""
    data = [{**encoder.example(), "labels": i % 2} for i in range(NUM_EXAMPLES)]
    settings: dict[str, Any] = {"output_dir": folder, "per_device_train_batch_size": batch_size, "report_to": "none"}
    settings |= {"use_cpu": not torch.cuda.is_available()}
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=list(encoder.targets))
    torch.manual_seed(0)
    ours = get_peft_model(encoder.make(layers), AIFSConfig.paper(encoder_adapter=lora if regime == "lora" else None))
    torch.manual_seed(0)
    plain: torch.nn.Module = encoder.make(layers)
    if regime == "lora":
        lora.modules_to_save = ["classifier"]
        plain = get_peft_model(plain, lora)
    else:
        for name, parameter in plain.named_parameters():
            parameter.requires_grad_("classifier" in name)
    trainers = (
        AIFSTrainer(ours, AIFSTrainingArguments(**settings), train_dataset=data),
        Trainer(plain, AIFSTrainingArguments(**settings), train_dataset=data),
    )
    for trainer in trainers:
        trainer.current_gradient_accumulation_steps = 1  # what `train` sets before its first step
    return trainers


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


def step(trainer: Trainer, optimizer: torch.optim.Optimizer, batch: dict[str, Any]) -> tuple[float, float]:
    """One training step; its wall-clock and processor time in seconds."""
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.training_step(trainer.model, dict(batch))
    if isinstance(trainer, AIFSTrainer):
        require_finite_gradients(trainer.model, 0)
    torch.nn.utils.clip_grad_norm_([p for p in trainer.model.parameters() if p.grad is not None], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    synchronise()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(name: str, regime: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds of one encoder; a row per arm."""
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = build(ENCODERS[name], regime, options.batch_size, folder, options.layers)
        optimizers = {t: torch.optim.AdamW([p for p in t.model.parameters() if p.requires_grad], lr=1e-4)
                      for t in (ours, plain)}  # fmt: skip
        batches = {t: next(iter(t.get_train_dataloader())) for t in (ours, plain)}
        taken: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
        for turn in range(-1, options.rounds):  # the first round warms up
            first = turn % len(ARMS)
            for arm in [*ARMS[first:], *ARMS[:first]]:
                trainer = plain if arm == "trainer" else ours
                if arm != "trainer":
                    prepare(ours, arm)
                times = step(trainer, optimizers[trainer], batches[trainer])
                if turn >= 0:
                    taken[arm].append(times)
            print(f"{name} {regime} round {turn}: "
                  + ", ".join(f"{a} {s[-1][0]:.3f} s" for a, s in taken.items() if s), flush=True)  # fmt: skip
    return [_row(arm, taken, name, regime, options) for arm in ARMS if arm != "erm"]


def parts(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Where the time of an `aifs` step goes, with LoRA: medians of rounds, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = build(ENCODERS[name], "lora", options.batch_size, folder, options.layers)
        prepare(trainer, "aifs")
        model, batch = trainer.model, next(iter(trainer.get_train_dataloader()))
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        head, marks = trainer.layer, {}

        def enter(*_: Any) -> None:
            marks["head"] = time.perf_counter()

        taken: dict[str, list[float]] = {}
        hook = head.register_forward_pre_hook(enter)
        for turn in range(-1, options.rounds):
            model.train()
            times = [time.perf_counter()]
            loss = trainer.compute_loss(model, dict(batch))
            times += [marks["head"], time.perf_counter()]
            loss.backward()
            times.append(time.perf_counter())
            require_finite_gradients(model, 0)
            times.append(time.perf_counter())
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            times.append(time.perf_counter())
            if turn >= 0:
                for part, begin, end in zip(PARTS, times, times[1:], strict=False):
                    taken.setdefault(part, []).append(end - begin)
        hook.remove()
    return {"encoder": name, "batch_size": options.batch_size, "layers": options.layers, "threads": options.threads,
            "seconds": {part: statistics.median(values) for part, values in taken.items()}, "runs": options.rounds,
            "provenance": provenance()}  # fmt: skip


def _row(
    arm: str, taken: dict[str, list[tuple[float, float]]], name: str, regime: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Ratios of an arm's times to those of plain training, round by round."""
    wall, cpu = ([a[which] / b[which] for a, b in zip(taken[arm], taken["erm"], strict=True)] for which in (0, 1))
    return {
        "encoder": name,
        "regime": regime,
        "batch_size": options.batch_size,
        "method": arm,
        "ratio_median": statistics.median(wall),
        "ratio_min": min(wall),
        "ratio_max": max(wall),
        "runs": len(wall),
        "processor_time_ratio_median": statistics.median(cpu),
        "seconds_per_step": statistics.median(pair[0] for pair in taken[arm]),
        "erm_seconds_per_step": statistics.median(pair[0] for pair in taken["erm"]),
        "layers": options.layers,
        "threads": options.threads,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
        "provenance": provenance(),
    }


def main() -> None:
    """Measure and write the rows; rows of other encoders that are in the file stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=list(ENCODERS))
    parser.add_argument("--regimes", nargs="+", default=["lora", "frozen"], choices=["lora", "frozen"])
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in options.encoders:
        for regime in options.regimes:
            rows = json.loads(options.output.read_text()) if options.output.exists() else []
            rows = [row for row in rows if (row["encoder"], row["regime"]) != (name, regime)]
            rows += measure(name, regime, options)
            options.output.write_text(json.dumps(rows, indent=1) + "\n")
    split = [parts(name, options) for name in options.encoders]
    options.output.with_name("step_parts.json").write_text(json.dumps(split, indent=1) + "\n")


if __name__ == "__main__":
    main()
