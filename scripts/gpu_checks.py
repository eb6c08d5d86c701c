"""What only a GPU can show, in one run of some minutes: precision, 4 bits, compilation, FSDP2, waits, time of a step.

    python scripts/gpu_checks.py [--seconds 330] [--only bf16 step] [--out FILE]

Each check trains a small ViT with LoRA on pictures with a shortcut and compares it with the same training in float32,
or counts, or times. Prints one line per check and writes a JSON file. Status 0: every check held; 1: one did not; 2:
there is no GPU. A check that would begin after `--seconds` is told as not run. `--device cpu` tries the script itself:
what needs a GPU is then told as such, and the times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RESULT = Path(__file__).parent.parent / "benchmarks" / "results" / "performance" / "gpu.json"
# Shares of a tensor's largest entry; as in the table of modes of docs/compatibility.md.
ROUNDING, HALF = 1e-3, 0.1
# Goal for a step of `aifs` beside one of plain training.
STEP_RATIO = 1.03
NEEDS_GPU = "needs a GPU"
Outcome = tuple[bool | None, dict[str, Any]]


class Checks:
    """The checks; each gives whether it held (None: could not be run, and why) and its numbers.

    Args:
        device: "cuda" or "cpu".
        tiny: whether the step is timed on a small encoder in the place of ViT-B/16.
    """

    def __init__(self, device: str, *, tiny: bool = False) -> None:
        self.device, self.tiny = device, tiny
        self._plain: dict[str, Tensor] | None = None

    def bf16(self) -> Outcome:
        """Mixed precision in bfloat16: the same groups, weights within bfloat16's rounding."""
        return self._compared(HALF, bf16=True)

    def fp16(self) -> Outcome:
        """Mixed precision in float16, whose scaler skips steps that overflow."""
        if self.device == "cpu":
            return None, {"why": NEEDS_GPU}
        return self._compared(HALF, fp16=True)

    def compiled(self) -> Outcome:
        """`torch_compile=True` by inductor."""
        torch._dynamo.reset()
        return self._compared(ROUNDING * 10, torch_compile=True)

    def four_bit(self) -> Outcome:
        """A base model in 4 bits: trained, saved, loaded again onto the 4 bits with equal logits."""
        from importlib.util import find_spec

        if find_spec("bitsandbytes") is None:
            return None, {"why": "needs pip install 'aifs_peft[quantization]'"}
        from peft import PeftModel

        with tempfile.TemporaryDirectory() as folder:
            encoder().save_pretrained(f"{folder}/base")
            model = adapted(self._in_four_bits(f"{folder}/base"))
            trainer = self._trainer(folder, model)
            trainer.train()
            trainer.save_model(f"{folder}/adapter")
            loaded = PeftModel.from_pretrained(self._in_four_bits(f"{folder}/base"), f"{folder}/adapter").eval()
            images = torch.stack([row["pixel_values"] for row in pictures(16)]).to(trainer.args.device)
            with torch.no_grad():
                one, other = (m.eval()(pixel_values=images)["logits"].float() for m in (trainer.adapted, loaded))
        difference = float((one - other).abs().max())
        # On CPUs bitsandbytes goes on with another kernel in a model that has been trained.
        allowed = 0.0 if self.device == "cuda" else HALF
        return difference <= allowed, {"largest_difference": difference, "allowed": allowed}

    def fsdp_one_device(self) -> Outcome:
        """FSDP2 on the frozen base with one process: the shards are whole, the hooks are all there."""
        import torch.distributed as dist

        from aifs_peft.training.sharding import shard_base

        plain = self._trained()
        with tempfile.TemporaryDirectory() as folder:
            backend = "nccl" if self.device == "cuda" else "gloo"
            dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
            try:
                trainer = self._trainer(folder, adapted(encoder()))
                trainer.model.to(trainer.args.device)
                shard_base(trainer.adapted, trainer.layer)
                trainer.train()
                worst = furthest(learnt(trainer), plain)
            finally:
                dist.destroy_process_group()
        return worst <= ROUNDING, {"furthest": worst}

    def waits(self) -> Outcome:
        """How often a step waits for the GPU, of plain training and of AIFS: what AIFS adds should be none."""
        if self.device == "cpu":
            return None, {"why": NEEDS_GPU}
        numbers = {f"waits_per_step_{arm}": self._waits(arm) for arm in ("erm", "aifs")}
        return numbers["waits_per_step_aifs"] <= numbers["waits_per_step_erm"], numbers

    def step(self) -> Outcome:
        """Time of a step, AIFS beside plain training, in turns: LoRA on ViT-B/16 shapes, batches of 32, bfloat16."""
        rounds, batch = (3, 4) if self.tiny else (30, 32)
        with tempfile.TemporaryDirectory() as folder:
            trainers = {}
            for arm in ("erm", "aifs"):
                options = {"per_device_train_batch_size": batch, "bf16": self.device == "cuda", "max_steps": 2}
                model = adapted(encoder(large=not self.tiny), "erm" if arm == "erm" else "discovery")
                size = 32 if self.tiny else 224
                trainers[arm] = self._trainer(f"{folder}/{arm}", model, pictures(4 * batch, size), **options)
                trainers[arm].train()
            seconds: dict[str, list[float]] = {arm: [] for arm in trainers}
            for number in range(rounds):
                for arm in sorted(trainers, reverse=number % 2 == 0):
                    seconds[arm].append(self._step_seconds(trainers[arm]))
        ratios = sorted(a / e for a, e in zip(seconds["aifs"], seconds["erm"], strict=True))
        numbers = {f"ms_{arm}": 1e3 * statistics.median(times) for arm, times in seconds.items()}
        ratio = statistics.median(ratios)
        told = {**numbers, "ratio_median": ratio, "ratio_min": ratios[0], "ratio_max": ratios[-1], "runs": rounds}
        return (ratio <= STEP_RATIO if self.device == "cuda" else None), told

    def _step_seconds(self, trainer: Any) -> float:
        model, batch = trainer.adapted, next(iter(trainer.get_train_dataloader()))
        self._finish()
        begin = time.perf_counter()
        trainer.training_step(model, batch)
        model.zero_grad()
        self._finish()
        return time.perf_counter() - begin

    def _finish(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _waits(self, arm: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            trainer = self._trainer(folder, adapted(encoder(), "erm" if arm == "erm" else "discovery"))
            trainer.train()
            counts = []
            for batch in list(trainer.get_train_dataloader())[:5]:
                self._finish()
                with warnings.catch_warnings(record=True) as seen:
                    warnings.simplefilter("always")
                    torch.cuda.set_sync_debug_mode("warn")
                    try:
                        trainer.training_step(trainer.adapted, batch)
                    finally:
                        torch.cuda.set_sync_debug_mode("default")
                counts.append(sum("synchroniz" in str(w.message) for w in seen))
        return statistics.median(counts)

    def _in_four_bits(self, folder: str) -> Any:
        from aifs_peft.models import load_model

        return load_model(folder, modality="image", label_names=["a", "b"], quantization="4bit")

    def _trainer(self, folder: str, model: Any, data: Any = None, **options: Any) -> Any:
        from transformers import PrinterCallback

        from aifs_peft import AIFSTrainer, AIFSTrainingArguments

        usual = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 5e-3, "seed": 7}
        args = AIFSTrainingArguments(
            folder, use_cpu=self.device == "cpu", disable_tqdm=True, save_strategy="no", logging_strategy="no",
            dataloader_pin_memory=False, **{**usual, **options},
        )  # fmt: skip
        trainer = AIFSTrainer(model, args, train_dataset=pictures() if data is None else data)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _trained(self, **options: Any) -> dict[str, Tensor]:
        if not options and self._plain is not None:
            return self._plain
        with tempfile.TemporaryDirectory() as folder:
            trainer = self._trainer(folder, adapted(encoder()), **options)
            trainer.train()
            found = learnt(trainer)
        if not options:
            self._plain = found
        return found

    def _compared(self, share: float, **options: Any) -> Outcome:
        plain, other = self._trained(), self._trained(**options)
        same = torch.equal(plain["groups"], other["groups"])
        worst = furthest(other, plain)
        return same and worst <= share, {"furthest": worst, "allowed": share, "same_groups": same}


def encoder(*, large: bool = False) -> Any:
    """A ViT with random weights: of four layers, or with ViT-B/16's shapes."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    small = {"image_size": 32, "patch_size": 8, **sizes}
    return ViTForImageClassification(ViTConfig(num_labels=2, hidden_dropout_prob=0.0, **({} if large else small)))


def adapted(base: Any, recipe: str = "discovery") -> Any:
    """LoRA and AIFS on it."""
    from peft import LoraConfig, get_peft_model

    from aifs_peft import AIFSConfig

    torch.manual_seed(1)
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], r=8)
    return get_peft_model(base, AIFSConfig(recipe=recipe, encoder_adapter=lora))


def pictures(n: int = 256, size: int = 32) -> list[dict[str, Any]]:
    """A weak sign of the class, and a strong one that goes with it for 95 %."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(n) % 2
    mark = torch.where(torch.arange(n) // 2 % 20 > 0, label, 1 - label)
    images = torch.randn(n, 3, size, size, generator=generator) * 0.5
    images[:, 1, :, : size // 2] += (label - 0.5)[:, None, None]
    images[:, 0, : size // 2] += 4 * (mark - 0.5)[:, None, None]
    return [{"pixel_values": image, "label": int(y)} for image, y in zip(images, label, strict=True)]


def learnt(trainer: Any) -> dict[str, Tensor]:
    """LoRA's weights, and the groups that were found."""
    weights = {name: p.detach().float().cpu() for name, p in trainer.model.named_parameters() if "lora_" in name}
    return {**weights, "groups": trainer.layer.state.groups.cpu()}


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of weights, as a share of the tensor's largest entry (of 1 at least)."""
    names = [name for name in other if name != "groups"]
    return max(float((one[n] - other[n]).abs().max()) / max(1.0, float(other[n].abs().max())) for n in names)


def main(words: list[str] | None = None) -> int:
    """Run the checks in turn.

    Args:
        words: of the command line.

    Returns:
        The status to end with.
    """
    order: dict[str, Callable[[Checks], Outcome]] = {
        "bf16": Checks.bf16, "fp16": Checks.fp16, "waits": Checks.waits, "step": Checks.step,
        "fsdp": Checks.fsdp_one_device, "4bit": Checks.four_bit, "compile": Checks.compiled,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=330.0)
    parser.add_argument("--only", nargs="+", choices=order, default=list(order))
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(words)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU that torch can use: nothing was checked", file=sys.stderr)
        return 2
    from aifs_peft.experiments import provenance

    checks, begin, rows = Checks(given.device, tiny=given.tiny), time.perf_counter(), {}
    for name in given.only:
        start = time.perf_counter()
        if start - begin > given.seconds:
            held, numbers = None, {"why": f"not run: {given.seconds:g} s were over"}
        else:
            try:
                held, numbers = order[name](checks)
            except Exception as error:  # noqa: BLE001 - told, and the other checks go on
                held, numbers = False, {"why": f"{type(error).__name__}: {error}"[:500]}
        rows[name] = {"held": held, **numbers, "seconds": time.perf_counter() - start}
        word = {True: "held", False: "DID NOT HOLD", None: "-"}[held]
        print(f"{name:8} {word:14}", {k: round(v, 5) if isinstance(v, float) else v for k, v in numbers.items()})
    device = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"device": device, "checks": rows, "provenance": provenance()}, indent=1) + "\n")
    return int(any(row["held"] is False for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
