"""What bf16, gradient checkpointing and `torch.compile` do to time and memory of a step of `aifs` on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/step_modes.py [--layers 12] [--batch-size 4] [--rounds 2]

ViT-B/16's shapes with random weights, LoRA r = 8 on the query and value projections, every term of `aifs` at work,
inside `AIFSTrainer.train`. Each mode runs in a process of its own, the modes in turn within a round; rounds that the
file holds already are kept. Time: median of the steps after the first, which allocates and, with `torch.compile`,
compiles. Memory: the process's peak resident size less what it had before training, the compiler's own processes not
counted. That results are equal is tested (`tests/training`).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

RESULT = Path(__file__).parent / "results" / "performance" / "step_modes.json"
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"bf16": True},
    "gradient checkpointing": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
    "torch.compile": {"torch_compile": True},
}


def one(mode: str, layers: int, batch_size: int, steps: int) -> dict[str, Any]:
    """A few steps in this process."""
    import torch
    from peft import LoraConfig, get_peft_model
    from step_overhead import ENCODERS
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    from aifs_peft.training import AIFSTrainer, AIFSTrainingArguments
    from aifs_peft.tuner import AIFSConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder, size = ENCODERS["ViT-B/16"], batch_size * (steps + 1)
    data = [{**encoder.example(), "labels": i % 2} for i in range(size)]
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=list(encoder.targets))
    model = get_peft_model(encoder.make(layers), AIFSConfig(encoder_adapter=lora))
    taken: list[tuple[float, float]] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Fills the state as discovery would, and times the steps."""

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            direction = torch.nn.functional.one_hot(torch.tensor(0), trainer.layer.state.dim).float()
            trainer.layer.state.update(
                basis=direction[:, None], mask=torch.ones(1), groups=torch.arange(size) // 2 % 2,
                displacements=torch.stack([-direction, direction]),
                class_displacements=torch.stack([direction, -direction]).roll(1, dims=1),
            )  # fmt: skip

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            taken.append((time.perf_counter() - self.began[0], time.process_time() - self.began[1]))

    with tempfile.TemporaryDirectory() as folder:
        args = AIFSTrainingArguments(
            output_dir=folder, method="aifs", per_device_train_batch_size=batch_size, num_train_epochs=1, use_cpu=True,
            save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, seed=0, **MODES[mode],
        )  # fmt: skip
        trainer = AIFSTrainer(model, args, train_dataset=data, callbacks=[Watch()])
        trainer.remove_callback(PrinterCallback)
        # Steps alone: no pass over the data before the first one nor after the last.
        method: Any = trainer.method
        method.collects_latents, method.finish = "epoch", lambda _context: {}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        loss = trainer.train().training_loss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "first_step_clock": round(taken[0][0], 2),
        "seconds": round(median(cpu for _, cpu in taken[1:]), 3),
        "clock": round(median(clock for clock, _ in taken[1:]), 3),
        "megabytes": round((peak - before) / 1024.0),
        "loss": round(loss, 4),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """All modes in turn; the file is rewritten after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="measure again what the file holds already")
    parser.add_argument("--one", choices=MODES, default=None, help="run one mode in this process")
    options = parser.parse_args()
    shape = {"layers": options.layers, "batch_size": options.batch_size, "steps": options.steps}
    if options.one is not None:
        print(json.dumps(one(options.one, **shape)))
        return
    held = {} if options.fresh or not RESULT.exists() else json.loads(RESULT.read_text())
    runs: dict[str, list[dict[str, Any]]] = {
        mode: list(held["runs"].get(mode, [])) if held.get("shape") == shape else [] for mode in MODES
    }
    given = [item for name, value in shape.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    for number in range(options.rounds):
        for mode, done in runs.items():
            if len(done) > number:
                continue
            command = [sys.executable, __file__, "--one", mode, *given]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            done.append(json.loads(output.strip().splitlines()[-1]))
            print(mode, done[-1], flush=True)
            write(shape, runs)


def write(shape: dict[str, int], runs: dict[str, list[dict[str, Any]]]) -> None:
    """The runs so far, and what each mode costs beside plain steps of the same round."""
    from aifs_peft.experiments import provenance

    rows = []
    for mode, done in runs.items():
        pairs = list(zip(done, runs["plain"], strict=False))
        if not pairs:
            continue
        ratio = [mine["seconds"] / plain["seconds"] for mine, plain in pairs]
        rows.append({
            "mode": mode, "seconds": round(median(run["seconds"] for run in done), 3),
            "ratio_median": round(median(ratio), 3), "ratio_min": round(min(ratio), 3),
            "ratio_max": round(max(ratio), 3), "megabytes": round(median(run["megabytes"] for run in done)),
            "first_step_clock": round(median(run["first_step_clock"] for run in done), 1), "runs": len(pairs),
        })  # fmt: skip
    content = {"shape": shape, "rows": rows, "runs": runs, "provenance": provenance()}
    RESULT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
