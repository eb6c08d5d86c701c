"""The options of `aifs finetune`: from the command line and from a YAML file to a `FinetuneSpec` and its arguments."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifs_peft._checks import did_you_mean
from aifs_peft.cli import training_options
from aifs_peft.cli.mistakes import UsageError
from aifs_peft.cli.option import Option, options_of
from aifs_peft.cli.parser import OUTPUT, Parser
from aifs_peft.experiments.spec import FinetuneSpec

if TYPE_CHECKING:
    from aifs_peft.training import AIFSTrainingArguments

UNKNOWN_KEY = "{file}: unknown key {key!r}{hint}. Known are the options of `aifs finetune --help-all`."
TWICE = "{file}: the key {key!r} is given twice; keep one."
NOT_A_MAPPING = "{file} holds {given}, not a mapping of option names to values, such as `learning_rate: 1.0e-3`."
NOT_A_FOLDER = "--output-dir {path}: {part} is a file, and a folder is needed; choose another name."
NOT_INSTALLED = (
    "--report-to {name}: the package it needs is not installed; pip install {package}, or leave the option out"
)
UNKNOWN_REPORT = "--report-to needs none, all, or one of {known}; got {given!r}{hint}"

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
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "logging_strategy": "epoch",
    "report_to": "none",
    "dataloader_pin_memory": False,
}
_EXTRA = (
    Option("config", "str", None, "YAML file of options; those of the command line win", "Output"),
    Option("help_all", "bool", False, "list every option of transformers' TrainingArguments, too", "Output"),
)
_DESCRIPTION = (
    "Fine-tune a pretrained model with one training method, compare it with plain training, and print what was found."
)
# References to references make a small file huge, or endless, when they are followed.
_MOST_VALUES = 100_000
_EPILOG = "Dashes and underscores are the same. Exit status: 0 done, 1 the run failed, 2 a mistake in the call."


@dataclass(frozen=True)
class Output:
    """What a command shows.

    Args:
        quiet: no progress on stderr.
        json: the result as JSON on stdout.
    """

    quiet: bool = False
    json: bool = False


def build_parser(*, everything: bool = False) -> Parser:
    """The parser of `aifs finetune`.

    Args:
        everything: with the long tail of transformers' options, which imports transformers.
    """
    training = training_options.every_option() if everything else training_options.OPTIONS
    listed = [*options_of(FinetuneSpec), *training, *_EXTRA, *OUTPUT]
    return Parser("finetune", _DESCRIPTION, listed, defaults=DEFAULTS, epilog=_EPILOG)


def help_of_everything() -> str:
    """The text of `--help-all`."""
    parser = build_parser(everything=True)
    shown = [replace(o, group=o.group or "More of transformers' TrainingArguments") for o in parser.options.values()]
    return Parser("finetune", _DESCRIPTION, shown, defaults=DEFAULTS, epilog=_EPILOG).format_help()


def parse(argv: Sequence[str]) -> tuple[FinetuneSpec, AIFSTrainingArguments, Output]:
    """Options from a YAML file (`--config`) and the command line, the latter winning.

    Args:
        argv: the words after `aifs finetune`.

    Returns:
        What to fine-tune, how to train, and what to show.

    Raises:
        UsageError: an unknown option or key, with the closest known one; a value of a wrong type or out of range; a
            file that cannot be read; an output folder that is a file; a reporting package that is not installed.
        InvalidConfigError: values that contradict each other.
    """
    light = build_parser()
    # A mistake in a common option is told before transformers is imported, which takes seconds.
    values, rest = light.known(argv)
    parser = build_parser(everything=True) if rest or "config" in values else light
    given = parser.given(argv)
    if "config" in given:
        given = {**read_config(given["config"], parser.options), **given}
    output = Output(bool(given.pop("quiet", False)), bool(given.pop("json", False)))
    for name in ("config", "help_all"):
        given.pop(name, None)
    check_output_dir(given.get("output_dir") or DEFAULTS["output_dir"])
    what = {entry.name for entry in fields(FinetuneSpec)}
    spec = FinetuneSpec(**{name: value for name, value in given.items() if name in what})
    how = {**DEFAULTS, **{name: value for name, value in given.items() if name not in what}}
    return spec, _arguments(how), output


def _arguments(values: dict[str, Any]) -> AIFSTrainingArguments:
    from aifs_peft.training import AIFSTrainingArguments

    check_report_to(values["report_to"])
    try:
        return AIFSTrainingArguments(**values)
    except (ValueError, TypeError) as error:  # transformers' own checks, and ours: all of them are about these values
        raise UsageError(str(error)) from error


def read_config(path: str | Path, options: Mapping[str, Option]) -> dict[str, Any]:
    """The options in a YAML file, each checked as on the command line.

    Args:
        path: of the file.
        options: those that are known, by name.

    Raises:
        UsageError: a file that cannot be read or is not YAML, one that holds no mapping, an unknown key (with the
            closest known one), or a value that its option does not take.
    """
    known = {name.strip("_"): option for name, option in options.items() if name not in ("config", "help_all")}
    values = {}
    for key, value in _read_yaml(Path(path)).items():
        name = str(key).replace("-", "_").strip("_")
        if name not in known:
            raise UsageError(UNKNOWN_KEY.format(file=path, key=key, hint=did_you_mean(name, known)))
        if known[name].name in values:
            raise UsageError(TWICE.format(file=path, key=key))
        values[known[name].name] = known[name].read(value, f"{path}: {key}")
    return values


def _read_yaml(path: Path) -> dict[Any, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """A key given twice is a mistake; YAML's loader takes the last one in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = [key.value for key, _ in node.value]
            twice = [key for key in keys if isinstance(key, str) and keys.count(key) > 1 and key != "<<"]
            if twice:
                raise UsageError(TWICE.format(file=path, key=twice[0]))
            return super().construct_mapping(node, deep)

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader)  # noqa: S506 - a safe loader  # nosec B506
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply to be read") from error
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        # A date such as 2026-02-31 passes YAML's grammar and is none; and so does a tag such as `!!bool x`.
        raise UsageError(f"{path} holds a value that cannot be read: {error}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if _too_large(content):
        raise UsageError(f"{path} refers to its own parts (&name, *name) without end; write the values out")
    if not isinstance(content, dict):
        raise UsageError(NOT_A_MAPPING.format(file=path, given=type(content).__name__))
    return content


def _too_large(content: Any) -> bool:
    """Whether a document has more values than anybody writes, once its references are followed."""
    left, count = [content], 0
    while left and count <= _MOST_VALUES:
        count += 1
        value = left.pop()
        if isinstance(value, dict | list | tuple | set):
            left += [*value, *value.values()] if isinstance(value, dict) else value
    return count > _MOST_VALUES


def check_output_dir(path: str | Path) -> None:
    """Refuse an output folder that cannot be one, before anything is loaded.

    Raises:
        UsageError: it, or a folder on the way to it, is a file.
    """
    for part in (Path(path), *Path(path).parents):
        if part.exists():
            if not part.is_dir():
                raise UsageError(NOT_A_FOLDER.format(path=path, part=part))
            return


def check_report_to(names: str | Sequence[str] | None) -> None:
    """Refuse a place to report to that is unknown, or whose package is not installed.

    Raises:
        UsageError: naming the package.
    """
    wanted = [names] if isinstance(names, str) else list(names or [])
    if set(wanted) <= {"none", "all"}:
        return
    from transformers.integrations import integration_utils as integrations

    installed = integrations.get_available_reporting_integrations()
    for name in wanted:
        if name not in integrations.INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(integrations.INTEGRATION_TO_CALLBACK))
            hint = did_you_mean(name, integrations.INTEGRATION_TO_CALLBACK)
            raise UsageError(UNKNOWN_REPORT.format(known=known, given=name, hint=hint))
        if name not in installed:
            raise UsageError(NOT_INSTALLED.format(name=name, package=_PACKAGES.get(name, name)))


# Package on PyPI, where it is called otherwise than the option's value.
_PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "dagshub": "dagshub", "dvclive": "dvclive"}
