"""One fit with a tuned encoder: LoRA through `AIFSTrainer`, the model after the last epoch."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from aifs_peft.bench.draws import Draw, resize
from aifs_peft.bench.experiment import DataEntry, MethodEntry, where
from aifs_peft.bench.frozen import Fitted, Setting
from aifs_peft.bench.measuring import measured
from aifs_peft.errors import InvalidConfigError
from aifs_peft.experiments.build import build_trainer
from aifs_peft.experiments.prepare import modality_of
from aifs_peft.experiments.spec import FinetuneSpec
from aifs_peft.methods import get
from aifs_peft.models.loading import load_processor
from aifs_peft.training import AIFSTrainingArguments

# The schedule that holds where neither the experiment nor the budget says otherwise.
DEFAULTS: dict[str, Any] = {"epochs": 3, "batch_size": 32, "learning_rate": 1e-3, "weight_decay": 0.0}
_NAMES = {"epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size"}
_EVAL_BATCH = 128


def fit_tuned(data: DataEntry, entry: MethodEntry, draw: Draw, setting: Setting) -> Fitted:
    """Train a method with LoRA on the training split of a draw.

    Args:
        data: for the encoder.
        entry: the method.
        draw: what to train on.
        setting: its numbers, by part: "schedule", "options", "settings".

    Raises:
        InvalidConfigError: the features are latents already, and there is no encoder to tune.
        AIFSError: what the method raises where it cannot work with these data.
    """
    encoder = data.encoder
    if encoder.model is None:
        raise InvalidConfigError(f"data set {data.name!r} has no encoder to tune; name its model, or leave it out")
    schedule = {_NAMES.get(name, name): value for name, value in {**DEFAULTS, **setting["schedule"]}.items()}
    spec = FinetuneSpec(
        model=where(encoder.model), revision=encoder.revision, adapter="lora", lora_r=encoder.lora_r,
        lora_alpha=2 * encoder.lora_r, target_modules=encoder.target_modules,
        max_length=encoder.max_length, baseline="none", audit=False,
        head="mlp" if get(entry.method).latent_head == "mlp" else "copy",
    )  # fmt: skip
    processor = _processor(data, modality_of(draw.splits["train"]))
    with tempfile.TemporaryDirectory() as folder:
        args = AIFSTrainingArguments(
            output_dir=folder, method=entry.method, method_options=dict(setting["options"]), seed=draw.seed,
            per_device_eval_batch_size=_EVAL_BATCH, eval_strategy="no", save_strategy="no", logging_strategy="no",
            disable_tqdm=True, report_to="none", dataloader_pin_memory=False, lr_scheduler_type="cosine",
            **{**schedule, **setting["settings"]},
        )  # fmt: skip
        run = build_trainer(spec, args, [], splits=draw.splits, processor=processor)
        with measured() as took:
            run.trainer.train()
        names = ("validation", "test")
        predicted = {name: run.trainer.predict(run.prepared[name]).predictions for name in names}
    notes = {}
    if get(entry.method).recipe == "discovery":
        notes["found"] = bool(run.trainer.layer.state.groups.numel())
    return Fitted({name: np.asarray(logits, dtype=np.float64) for name, logits in predicted.items()}, took, notes)


def _processor(data: DataEntry, modality: str) -> Any:
    """The model's, for pictures of another size where the entry says one; None leaves it to the run."""
    if data.encoder.image_size is None or modality != "image":
        return None
    processor = load_processor(where(data.encoder.model or ""), modality=modality, revision=data.encoder.revision)
    resize(processor, data.encoder.image_size)
    return processor
