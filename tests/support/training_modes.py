"""Modes of training: what comes of each, against the plain training, for both recipes, frozen and with LoRA.

One table, which `tests/training/test_training_modes.py` runs and `docs/compatibility.md` shows. What a cell says:

- a number: weights, mask, directions and groups of the plain training, within this share of each tensor's largest entry
  (0.0: to the bit; of two numbers of discovery see `EVIDENCE` and `READER`). Groups are the same.
- `AS_TRAINER`: the mode changes a training by design. Plain training by it equals that of `transformers.Trainer`, and a
  training that is resumed within an epoch ends where one that was not interrupted ends, to the bit. (Noise on
  embeddings is drawn from the global generator, of which `Trainer` takes the order of examples, too: there only the
  second is shown.)
- words: it is refused with an `InvalidConfigError` that begins with them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import get_peft_model
from torch.utils.data import IterableDataset
from training_zoo import SIZES, lora, make_trainer, shortcut_data, trained
from transformers import ViTConfig, ViTForImageClassification

from aifs_peft.training import AIFSTrainer
from aifs_peft.tuner import AIFSConfig

AS_TRAINER = "as in `Trainer`"
RECIPES = ("discovery", "paper")
REGIMES = ("frozen", "LoRA")
ALL = tuple((recipe, regime) for recipe in RECIPES for regime in REGIMES)
# Each recipe and each regime once, for what does not touch the model.
BOTH = ALL[1:3]
ROUNDING = 1e-4
# Discovery's search and Adam's first steps, which follow the sign of small gradients, amplify rounding.
AMPLIFIED = 0.02
BFLOAT16 = 0.1
# The evidence has jumps, as rounding can decide between two searches that find the same groups. The weights by which an
# attribute is read off latents (log odds) are large where it can be read well, and amplify rounding, too.
EVIDENCE, READER = 0.15, 6.0
# The last layer that `aifs` fits anew on a tuned encoder's latents is large along directions in which these hardly
# vary, where the rounding of the whole training is seen. (Logits differ as little as the latents do.)
REFITTED = 12.0
BATCH = 16
# Ten steps an epoch. (With 128 of these examples rounding decides between two answers of nearly the same evidence.)
SIZE = 10 * BATCH
# Of a frozen encoder; one that is trained is balanced by logits.
DRAWS = "a streamed training set gives each example once per epoch, and method 'aifs' draws"
TUNED = (("discovery", "frozen"), ("discovery", "LoRA"), ("paper", "LoRA"))
REENTRANT = {"use_reentrant": True}


@dataclass(frozen=True)
class Mode:
    """One row.

    Attributes:
        name: as users write it.
        options: training arguments.
        frozen: what comes of it with a frozen encoder.
        lora: what comes of it with LoRA; None for the same.
        attention: implementation of the encoder's attention, None for the default.
        cells: recipes and regimes in which the test runs it.
        slow: whether a cell takes more than some seconds.
        streamed: whether the training set is an `IterableDataset`.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    frozen: float | str = 0.0
    lora: float | str | None = None
    attention: str | None = None
    cells: tuple[tuple[str, str], ...] = ALL
    slow: bool = False
    streamed: bool = False

    def outcome(self, regime: str) -> float | str:
        """What comes of it in a regime."""
        return self.frozen if regime == "frozen" or self.lora is None else self.lora


def _evaluated(**options: Any) -> dict[str, Any]:
    return {"eval_strategy": "steps", "eval_steps": 5, **options}


TABLES: dict[str, list[Mode]] = {
    "Compilation and memory": [
        Mode('`torch_compile_backend="eager"`', {"torch_compile_backend": "eager"}, slow=True),
        Mode('`torch_compile_backend="aot_eager"`', {"torch_compile_backend": "aot_eager"}, cells=BOTH, slow=True),
        Mode("`torch_compile=True` (inductor)", {"torch_compile": True}, ROUNDING, cells=BOTH, slow=True),
        Mode("`gradient_checkpointing=True`", {"gradient_checkpointing": True}),
        Mode("`activation_checkpointing=True`", {"activation_checkpointing": True}),
        Mode(
            "... with `use_reentrant=True`",
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": REENTRANT},
        ),
        Mode(
            "... with `every_n_layers=2`",
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"every_n_layers": 2}},
        ),
        Mode("`torch_empty_cache_steps=1`", {"torch_empty_cache_steps": 1}, cells=BOTH),
        Mode("`auto_find_batch_size=True`", {"auto_find_batch_size": True}),
        Mode(
            "`gradient_accumulation_steps=2`, half the batch",
            {"gradient_accumulation_steps": 2, "per_device_train_batch_size": BATCH // 2},
            ROUNDING,
        ),
    ],
    "Precision and attention": [
        Mode("`bf16=True`", {"bf16": True}, BFLOAT16),
        Mode("`fp16=True` on a CPU", {"fp16": True}, "fp16 does nothing on a CPU"),
        Mode("`full_determinism=True`", {"full_determinism": True}, cells=BOTH),
        Mode('`attn_implementation="eager"`', {}, AMPLIFIED, attention="eager"),
        Mode('`attn_implementation="sdpa"`', {}, AMPLIFIED, attention="sdpa"),
        Mode("`use_cpu=True`", {"use_cpu": True}, cells=BOTH),
    ],
    "Reading data": [
        Mode("`dataloader_num_workers=1`", {"dataloader_num_workers": 1}, cells=BOTH),
        Mode("`dataloader_num_workers=2`", {"dataloader_num_workers": 2}),
        Mode(
            "... with `dataloader_persistent_workers=True`",
            {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
            cells=BOTH,
            slow=True,
        ),
        Mode(
            "... with `dataloader_prefetch_factor=4`",
            {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 4},
            cells=BOTH,
        ),
        Mode(
            "... with `dataloader_in_order=False`",
            {"dataloader_num_workers": 2, "dataloader_in_order": False},
            "dataloader_in_order=False with dataloader_num_workers=2 gives batches in the order",
        ),
        Mode("`dataloader_pin_memory=True`", {"dataloader_pin_memory": True}, cells=BOTH),
        Mode("`remove_unused_columns=False`", {"remove_unused_columns": False}, cells=BOTH),
        Mode("`dataloader_drop_last=True`", {"dataloader_drop_last": True}, AS_TRAINER),
        Mode(
            '`train_sampling_strategy="group_by_length"`',
            {"train_sampling_strategy": "group_by_length"},
            "train_sampling_strategy='group_by_length' has no effect",
        ),
        Mode("`average_tokens_across_devices=False`", {"average_tokens_across_devices": False}, cells=BOTH),
    ],
    "Loss, optimizers and schedules": [
        Mode("`label_smoothing_factor=0.1`", {"label_smoothing_factor": 0.1}, AS_TRAINER),
        Mode(
            "`neftune_noise_alpha=5`",
            {"neftune_noise_alpha": 5.0},
            "neftune_noise_alpha adds noise to embeddings in training mode",
            AS_TRAINER,
        ),
        Mode('`optim="adamw_torch"`', {"optim": "adamw_torch"}, ROUNDING),
        Mode('`optim="adafactor"`', {"optim": "adafactor"}, AS_TRAINER),
        Mode('`optim="sgd"`', {"optim": "sgd"}, AS_TRAINER),
        Mode('`lr_scheduler_type="linear"`', {"lr_scheduler_type": "linear"}, AS_TRAINER),
        Mode(
            '`lr_scheduler_type="reduce_lr_on_plateau"`',
            _evaluated(
                lr_scheduler_type="reduce_lr_on_plateau", metric_for_best_model="eval_loss", greater_is_better=False
            ),
            AS_TRAINER,
        ),
        Mode("`max_steps`, as many as the epochs have", {"max_steps": 20, "num_train_epochs": 1}),
    ],
    "Evaluation": [
        Mode("`eval_strategy`", _evaluated()),
        Mode("`include_for_metrics`", _evaluated(include_for_metrics=["inputs", "loss"]), cells=BOTH),
        Mode("`eval_accumulation_steps=1`", _evaluated(eval_accumulation_steps=1), cells=BOTH),
        Mode(
            "`load_best_model_at_end=True`",
            _evaluated(
                load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=True,
                save_strategy="steps", save_steps=5,
            ),
            AS_TRAINER,
        ),
    ],
    "Streamed training sets": [
        Mode("`IterableDataset` as training set", {}, DRAWS, AS_TRAINER, cells=TUNED, streamed=True),
        Mode(
            "... with `stream_shuffle_buffer=32`", {"stream_shuffle_buffer": 32}, DRAWS, AS_TRAINER, cells=TUNED,
            streamed=True,
        ),
        Mode(
            "... with `dataloader_num_workers=1`", {"dataloader_num_workers": 1}, DRAWS, AS_TRAINER, cells=TUNED,
            streamed=True,
        ),
        Mode(
            "... with `dataloader_num_workers=2`",
            {"dataloader_num_workers": 2},
            "dataloader_num_workers=2 with a streamed training set",
            streamed=True,
        ),
        Mode(
            "... with `cache_latents=True`",
            {"cache_latents": True},
            AMPLIFIED,
            "cache_latents=True needs a frozen encoder",
            cells=(("discovery", "frozen"), ("discovery", "LoRA")),
            streamed=True,
        ),
    ],
    "Several devices": [
        # Rows without cells are run by `test_training_distributed.py` and `test_training_sharding.py`.
        Mode("DDP, 2 processes with half the batch each", {}, ROUNDING, cells=()),
        Mode("... with `shard_base_model=True` (FSDP2 on the base), of DDP; 4 processes, too", {}, cells=()),
        Mode(
            "`shard_base_model=True`, one process",
            {"shard_base_model": True},
            "shard_base_model=True splits the base model over processes, and there is one",
            cells=BOTH,
        ),
        Mode("`device_map` over several devices", {}, "the model is spread over the devices", cells=()),
        Mode("`tp_plan`, `device_mesh`", {}, "the model is split over processes (tp_plan or device_mesh", cells=()),
        Mode("several GPUs in one process (`DataParallel`)", {}, "2 GPUs in one process would mean", cells=()),
        Mode("`parallelism_config`", {"parallelism_config": object()}, "parallelism_config=<object object", cells=BOTH),
        Mode("FSDP by `accelerate launch`", {}, "FSDP is on (ACCELERATE_USE_FSDP", cells=()),
        Mode("DeepSpeed by `accelerate launch`", {}, "DeepSpeed is on (ACCELERATE_USE_DEEPSPEED", cells=()),
        Mode("`fsdp`", {"fsdp": "full_shard"}, "fsdp='full_shard' splits parameters"),
        Mode(
            "`deepspeed`",
            {"deepspeed": {"zero_optimization": {"stage": 3}}},
            "deepspeed={'zero_optimization': {'stage': 3}} splits parameters",
        ),
    ],
}  # fmt: skip


class Rows(IterableDataset[dict[str, Any]]):
    """Examples that can only be read from the first one on.

    Args:
        rows: the examples.
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


def model_for(recipe: str, regime: str, attention: str | None = None) -> torch.nn.Module:
    """A tiny encoder with an adapter, the same for the same arguments."""
    torch.manual_seed(0)
    config = ViTConfig(num_labels=2, hidden_dropout_prob=0.0, **SIZES)
    if attention is not None:
        config._attn_implementation = attention
    vit = ViTForImageClassification(config)
    inner = lora() if regime == "LoRA" else None
    if recipe == "paper":
        return get_peft_model(vit, AIFSConfig.paper(mask_scale="max", encoder_adapter=inner))
    return get_peft_model(vit, AIFSConfig(recipe=recipe, encoder_adapter=inner))


def trainer_for(folder: str, recipe: str, regime: str, mode: Mode | None = None, **more: Any) -> AIFSTrainer:
    """A trainer of two epochs of ten steps, on data with a shortcut, under a mode."""
    options = {} if mode is None else mode.options
    model = model_for(recipe, regime, None if mode is None else mode.attention)
    settings = {"per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH, **options, **more}
    data = shortcut_data(SIZE + (8 if settings.get("dataloader_drop_last") else 0))
    held_out = shortcut_data(4 * BATCH, seed=1)
    train = Rows(data) if mode is not None and mode.streamed else data
    return make_trainer(folder, model=model, data=train, eval_dataset=held_out, **settings)


def weights_of(recipe: str, regime: str, mode: Mode | None = None, **more: Any) -> dict[str, torch.Tensor]:
    """What a training under a mode ends with: trained parameters and the adapter's buffers."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(folder, recipe, regime, mode, **more)
        trainer.train()
        return trained(trainer.model)


def assert_within(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], share: float) -> None:
    """Each tensor within a share of its largest entry (of 1 at least); counts and groups the same."""
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].shape == value.shape, name
        exact = share == 0.0 or not value.is_floating_point() or name.endswith("groups")
        if exact or not value.numel():
            assert torch.equal(got[name], value), name
            continue
        allowed = {"evidence": EVIDENCE, "reader": READER * share}.get(name.rpartition(".")[2], share)
        allowed = REFITTED * share if "aifs_head" in name else allowed
        difference = float((got[name].double() - value.double()).abs().max())
        scale = max(1.0, float(value.double().abs().max()))
        assert difference <= allowed * scale, f"{name} differs by {difference:.2e} of {scale:.2e}"
