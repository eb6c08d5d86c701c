"""Options from the command line and from YAML: one set of checks, and the command line wins."""

import doctest
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from aifs_peft import cli
from aifs_peft.cli import finetune
from aifs_peft.cli.mistakes import UsageError
from aifs_peft.cli.option import options_of
from aifs_peft.cli.options import DEFAULTS, build_parser, parse
from aifs_peft.cli.progress import epoch_line
from aifs_peft.cli.training_options import OPTIONS, every_option
from aifs_peft.experiments.spec import FinetuneSpec
from aifs_peft.training import AIFSTrainingArguments
from aifs_peft.training.selection import SELECTION_METRICS


def test_no_option_runs_the_embedded_default(tmp_path: Path) -> None:
    spec, args, output = parse(["--output-dir", str(tmp_path)])
    assert (spec.model, spec.dataset, spec.adapter) == (None, "digits_on_scenes", "lora")
    assert args.method == "aifs"
    assert args.num_train_epochs == DEFAULTS["num_train_epochs"]
    assert (output.quiet, output.json) == (False, False)


def test_a_run_can_be_resumed_unless_told_otherwise(tmp_path: Path) -> None:
    _, args, _ = parse(["--output-dir", str(tmp_path)])
    assert args.save_strategy == "epoch"
    assert not args.save_only_model


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learning_rate: 0.5\nadapter: none\nlora-r: 4\ndataset_options:\n  aligned_share: 0.9\n")
    spec, args, _ = parse(["--config", str(file), "--learning-rate", "0.25", "--output-dir", str(tmp_path)])
    assert args.learning_rate == 0.25
    assert (spec.adapter, spec.lora_r, spec.dataset_options) == ("none", 4, {"aligned_share": 0.9})


def test_a_file_says_what_the_command_line_says(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "learning_rate: 1e-3\n"  # a text to YAML 1.1, a number here as on the command line
        "balance_groups: false\nlambda: 0.25\nmax_repeats: 7\ntarget_modules: [q_proj, v_proj]\n"
        "report_to: none\nmask_samples: null\ntest_share: balanced\nadam_beta1: 0.8\n"
    )
    typed = [
        "--learning_rate=1e-3", "--no_balance_groups", "--lambda_", "0.25", "--max-repeats", "7",
        "--target_modules", "q_proj", "v_proj", "--test-share", "balanced", "--adam-beta1", "0.8",
    ]  # fmt: skip
    common = ["--output-dir", str(tmp_path)]
    spec, args, _ = parse(["--config", str(file), *common])
    other_spec, other, _ = parse([*typed, *common])
    assert spec == other_spec
    names = ("learning_rate", "balance_groups", "lambda_", "max_repeats", "mask_samples", "adam_beta1", "report_to")
    assert {name: getattr(args, name) for name in names} == {name: getattr(other, name) for name in names}
    assert (args.lambda_, args.balance_groups, spec.test_share) == (0.25, False, "balanced")


@pytest.mark.parametrize(
    ("text", "value"), [("True", True), ("true", True), ("false", None), ("runs/a/checkpoint-7", "runs/a/checkpoint-7")]
)
def test_resuming_from_true_means_the_newest_checkpoint(text: str, value: object, tmp_path: Path) -> None:
    _, args, _ = parse(["--resume_from_checkpoint", text, "--output-dir", str(tmp_path)])
    assert args.resume_from_checkpoint == value
    assert type(args.resume_from_checkpoint) is type(value)


def test_the_light_table_is_what_the_training_arguments_say() -> None:
    declared = {option.name: option for option in options_of(AIFSTrainingArguments)}
    for option in OPTIONS:
        field = declared[option.name]
        assert (option.kind, option.default, option.optional) == (field.kind, field.default, field.optional), option
        if "choices" in field.rules:
            assert option.rules["choices"] == field.rules["choices"], option
    own = set(AIFSTrainingArguments.__annotations__) - {
        "cache_latents",  # `aifs finetune` encodes once by itself wherever that is possible
        "stream_shuffle_buffer",  # its data sets are in memory
        "evaluation_columns", "logging_nan_inf_filter", "ddp_find_unused_parameters", "ddp_broadcast_buffers",
    }  # fmt: skip
    assert own <= {option.name for option in OPTIONS}, "an option of ours is missing from cli/training_options.py"
    selection = next(option for option in OPTIONS if option.name == "selection")
    assert selection.rules["choices"] == tuple(SELECTION_METRICS)


def test_every_field_is_an_option_with_help() -> None:
    options = {option.name: option for option in [*options_of(FinetuneSpec), *every_option()]}
    wanted = {f.name for cls in (FinetuneSpec, AIFSTrainingArguments) for f in fields(cls) if f.init}
    assert wanted - set(options) == {"parallelism_config"}  # an object, which nobody can type
    assert all(option.help for option in options.values())


@pytest.mark.parametrize(
    ("typed", "written", "value"),
    [(["0.25", "0.75"], "[0.25, 0.75]", [0.25, 0.75]), (["probability"], "probability", "probability")],
)
def test_numbers_or_a_word(typed: list[str], written: str, value: object, tmp_path: Path) -> None:
    common = ["--output-dir", str(tmp_path), "--method", "aifs-paper"]
    assert parse(["--class-weights", *typed, *common])[1].class_weights == value
    file = tmp_path / "run.yaml"
    file.write_text(f"class_weights: {written}\n")
    assert parse(["--config", str(file), *common])[1].class_weights == value


def test_defaults_pass_their_own_checks() -> None:
    for option in [*options_of(FinetuneSpec), *every_option()]:
        if option.default is not None and option.kind in ("int", "float", "str") and option.default != "":
            assert option.convert(str(option.default)) == option.default, option


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: aifs {name}")
    assert "--help" in out


def test_help_shows_groups_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune.main(["--help"]) == 0
    short = capsys.readouterr().out
    for shown in ("Model and data:", "Your own data:", "Method:", "(default: 5)", "--learning-rate", "'tiny_clip'"):
        assert shown in short
    assert "--adam-beta1" not in short
    assert finetune.main(["--help-all"]) == 0
    assert "--adam-beta1" in capsys.readouterr().out


def test_names_are_never_abbreviated() -> None:
    with pytest.raises(UsageError, match=r"unknown option --learning-rat \(did you mean '--learning-rate'\?\)"):
        parse(["--learning-rat", "1"])


def test_an_option_of_another_library_is_suggested_too() -> None:
    with pytest.raises(UsageError, match="did you mean '--adam-epsilon'"):
        parse(["--adam-epsilo", "1"])
    assert "adam_epsilon" not in build_parser().options


def test_epoch_line_shows_what_was_logged() -> None:
    line = epoch_line({"epoch": 1.0, "loss": 1.5, "cross_entropy": 1.0, "invariance": 0.25}, 8)
    assert line == "epoch 1/8  loss 1.5000  ce 1.0000  inv 0.2500"


def test_epoch_line_names_inferred_groups_only_where_there_are_some() -> None:
    logs = {"epoch": 1.0, "eval_worst_inferred_group_accuracy": 0.5}
    assert "inferred" not in epoch_line(logs, 8)
    assert "worst inferred group 0.5000" in epoch_line({**logs, "eval_inferred_conflicting_share": 0.1}, 8)


def test_main_dispatch(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip().startswith("usage: aifs")
    assert cli.main(["finetun"]) == 2
    assert "unknown command 'finetun' (did you mean 'finetune'?)" in capsys.readouterr().err
    assert cli.main(["env"]) == 0
    assert '"versions"' in capsys.readouterr().out


def test_help_needs_no_import_of_what_takes_seconds() -> None:
    code = (
        "import sys; from aifs_peft.cli import main; main(['finetune', '--help']); "
        "print('LOADED', sorted({'torch', 'transformers', 'peft', 'datasets', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("LOADED []")
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["option", "progress"])
def test_doctests(name: str) -> None:
    result = doctest.testmod(import_module(f"aifs_peft.cli.{name}"), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert result.failed == 0
