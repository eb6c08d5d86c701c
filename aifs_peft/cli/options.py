"""Command-line options from the library's dataclasses, with a YAML file for defaults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from aifs_peft._checks import did_you_mean
from aifs_peft.cli.values import json_object
from aifs_peft.errors import InvalidConfigError
from aifs_peft.experiments import FinetuneSpec
from aifs_peft.training import AIFSTrainingArguments

UNKNOWN_KEYS = "{file}: unknown key{s} {keys}. Known are the options of `aifs finetune --help`."
NOT_A_MAPPING = "{file} holds {given}, not a mapping of option names to values, such as `learning_rate: 1.0e-3`."

# Defaults of the command line that differ from the dataclasses': a first run that ends in a minute.
DEFAULTS: dict[str, Any] = {
    "output_dir": "runs/finetune",
    "method": "aifs",
    "num_train_epochs": 5,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 256,
    "learning_rate": 1.5e-3,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_only_model": True,
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "logging_strategy": "epoch",
    "report_to": "none",
    "dataloader_pin_memory": False,
}


def build_parser() -> HfArgumentParser:
    """All options: what to fine-tune (`FinetuneSpec`) and how (`AIFSTrainingArguments`)."""
    parser = HfArgumentParser(
        (FinetuneSpec, AIFSTrainingArguments),
        prog="finetune.py",
        description="Fine-tune a pretrained model with AIFS or a baseline, and print the group table.",
        formatter_class=argparse.HelpFormatter,
    )
    for action in parser._actions:
        if action.dest == "dataset_options":
            action.type = json_object
    parser.add_argument("--config", default=None, help="YAML file of defaults; options on the command line win.")
    parser.set_defaults(**DEFAULTS)
    return parser


def read_config(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, with every key checked against the known options.

    Raises:
        InvalidConfigError: an unknown key (with the closest known one), or a file that holds no mapping.
        FileNotFoundError: no such file.
    """
    content = yaml.safe_load(Path(path).read_text())
    if not isinstance(content, dict):
        raise InvalidConfigError(NOT_A_MAPPING.format(file=path, given=type(content).__name__))
    known = {f.name for cls in (FinetuneSpec, AIFSTrainingArguments) for f in fields(cls)}
    normalised = {str(key).replace("-", "_"): value for key, value in content.items()}
    unknown = sorted(set(normalised) - known)
    if unknown:
        described = ", ".join(_with_suggestion(key, known) for key in unknown)
        raise InvalidConfigError(UNKNOWN_KEYS.format(file=path, keys=described, s="s" if len(unknown) > 1 else ""))
    return normalised


def _with_suggestion(key: str, known: set[str]) -> str:
    return f"{key!r}{did_you_mean(key, known)}"


def parse(argv: Sequence[str]) -> tuple[FinetuneSpec, AIFSTrainingArguments]:
    """Options from a YAML file (`--config`) and the command line, the latter winning."""
    parser = build_parser()
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--config", default=None)
    config = early.parse_known_args(list(argv))[0].config
    if config is not None:
        try:
            parser.set_defaults(**read_config(config))
        except (InvalidConfigError, FileNotFoundError) as error:
            parser.error(str(error))
    spec, args, _, unknown = parser.parse_args_into_dataclasses(
        args=list(argv), look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return spec, args
