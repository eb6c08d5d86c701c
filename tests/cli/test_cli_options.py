"""Options from the command line and from YAML: the file gives defaults, the command line wins, typos are refused."""

from pathlib import Path

import pytest

from aifs_peft import cli
from aifs_peft.cli.options import DEFAULTS, parse, read_config
from aifs_peft.cli.progress import epoch_line
from aifs_peft.errors import InvalidConfigError


def test_no_option_runs_the_embedded_default(tmp_path: Path) -> None:
    spec, args = parse(["--output-dir", str(tmp_path)])
    assert (spec.model, spec.dataset, spec.adapter) == (None, "digits_on_scenes", "lora")
    assert args.method == "aifs"
    assert args.num_train_epochs == DEFAULTS["num_train_epochs"]


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learning_rate: 0.5\nadapter: none\nlora-r: 4\ndataset_options:\n  aligned_share: 0.9\n")
    spec, args = parse(["--config", str(file), "--learning-rate", "0.25", "--output-dir", str(tmp_path)])
    assert args.learning_rate == 0.25
    assert (spec.adapter, spec.lora_r, spec.dataset_options) == ("none", 4, {"aligned_share": 0.9})


def test_unknown_key_is_refused_with_the_closest_one(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learning_rat: 0.1\n")
    with pytest.raises(InvalidConfigError, match=r"'learning_rat' \(did you mean 'learning_rate'"):
        read_config(file)


def test_unknown_key_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learning_rat: 0.1\n")
    with pytest.raises(SystemExit, match="2"):
        parse(["--config", str(file)])
    assert "did you mean 'learning_rate'" in capsys.readouterr().err


def test_a_list_is_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("- a\n")
    with pytest.raises(InvalidConfigError, match="holds list, not a mapping"):
        read_config(file)


def test_dataset_options_are_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, _ = parse(["--dataset-options", '{"aligned_share": 0.9}', "--output-dir", str(tmp_path)])
    assert spec.dataset_options == {"aligned_share": 0.9}
    for wrong in ("{", "[1]"):
        with pytest.raises(SystemExit, match="2"):
            parse(["--dataset-options", wrong])
    assert "JSON" in capsys.readouterr().err


def test_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["--learning-rat", "1", "--no-such-option"])
    assert "unrecognized arguments" in capsys.readouterr().err


def test_epoch_line_shows_what_was_logged() -> None:
    line = epoch_line({"epoch": 1.0, "loss": 1.5, "cross_entropy": 1.0, "invariance": 0.25}, 8)
    assert line == "epoch 1/8  loss 1.5000  ce 1.0000  inv 0.2500"


def test_main_dispatch(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert cli.main(["finetun"]) == 2
    assert "unknown command 'finetun'" in capsys.readouterr().err
    assert cli.main(["env"]) == 0
    assert '"versions"' in capsys.readouterr().out
