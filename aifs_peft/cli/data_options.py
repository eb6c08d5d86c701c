"""The options that name data, shared by the commands that read some."""

from __future__ import annotations

from aifs_peft.cli.option import Option, options_of
from aifs_peft.experiments.spec import FinetuneSpec

_DATA = ("dataset", "data_dir", "dataset_options", "image", "text", "features", "label", "attribute",
         "split", "test_share")  # fmt: skip
_MODEL = ("model", "revision", "trust_remote_code", "max_length", "quantization")
PARTS = ("train", "validation", "test", "all")


def data_options(*, model: bool = False, skip: tuple[str, ...] = (), also: tuple[str, ...] = ()) -> list[Option]:
    """The fields of `FinetuneSpec` that name the data, and with `model` the model.

    Args:
        model: whether a model is named, too.
        skip: fields that the command names otherwise.
        also: further fields that the command reads.
    """
    wanted = (*(_MODEL if model else ()), *_DATA, *also)
    options = {option.name: option for option in options_of(FinetuneSpec)}
    return [options[name] for name in wanted if name not in skip]


def part_option(default: str | None, text: str) -> Option:
    """Which part of the data is read.

    Args:
        default: of the option.
        text: its help.
    """
    return Option("part", "str", default, text, "Model and data", {"choices": PARTS}, optional=True)
