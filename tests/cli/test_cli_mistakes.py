"""Every mistake of a user is one line on stderr and exit status 2, in this process, with no traceback."""

from pathlib import Path

import pytest

from aifs_peft import cli

SMALL = ["--dataset", "spurious_scenes", "--use-cpu", "--quiet", "--dataset-options",
         '{"n_train": 60, "n_validation": 20, "n_test": 20, "image_size": 16}']  # fmt: skip


@pytest.fixture(autouse=True)
def _no_reporting_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.integrations.integration_utils.get_available_reporting_integrations", lambda: [])


def fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a call ends with."""
    assert cli.main(argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.strip().splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("error: ")
    return lines[0]


TYPED = [
    (["--selection", "worst"], "did you mean 'worst_class'?"),
    (["--lora-r", "0"], "--lora-r must be an integer of at least 1; got 0"),
    (["--lora-r", "1.5"], "must be an integer of at least 1; got '1.5'"),
    (["--lora-dropout", "1"], "must be a finite number in [0, 1)"),
    (["--learning-rate", "-1"], "--learning-rate must be a finite number above 0; got -1.0"),
    (["--learning-rate", "nan"], "must be a finite number above 0"),
    (["--learning-rate", "inf"], "must be a finite number above 0"),
    (["--learning-rate", "fast"], "must be a finite number above 0; got 'fast'"),
    (["--learning-rate"], "expected one argument"),
    (["--learning_rat", "1"], "unknown option --learning-rat (did you mean '--learning-rate'?)"),
    (["--modle", "tiny_clip"], "did you mean '--model'?"),
    (["--no-such-option-at-all"], "unknown option --no-such-option-at-all"),
    (["stray"], "unexpected argument 'stray'"),
    (["--adapter", "lroa"], "did you mean 'lora'?"),
    (["--quantization", "8bits"], "did you mean '8bit'?"),
    (["--head", "linaer"], "did you mean 'linear'?"),
    (["--baseline", "earm"], "did you mean 'erm'?"),
    (["--test-share", "balance"], "did you mean 'balanced'?"),
    (["--test-share", "1.5"], "must be a number between 0 and 1, or 'balanced'"),
    (["--eval-strategy", "epochs"], "did you mean 'epoch'?"),
    (["--save-strategy", "never"], "must be one of 'no', 'steps', 'epoch', 'best'"),
    (["--lr-scheduler-type", "cosin"], "did you mean 'cosine'?"),
    (["--directions", "refitt"], "did you mean 'refit'?"),
    (["--num-train-epochs", "0"], "above 0"),
    (["--per-device-train-batch-size", "0"], "at least 1"),
    (["--gradient-accumulation-steps", "-2"], "at least 1"),
    (["--weight-decay", "-0.1"], "at least 0"),
    (["--max-grad-norm", "-1"], "at least 0"),
    (["--warmup-steps", "-5"], "at least 0"),
    (["--label-smoothing-factor", "-10"], "in [0, 1)"),
    (["--seed", "-1"], "from 0 to 4294967295"),
    (["--max-length", "0"], "at least 1"),
    (["--n-boot", "-1"], "at least 0"),
    (["--alpha", "-1"], "at least 0"),
    (["--min-cell", "0"], "at least 1"),
    (["--early-stopping-patience", "0"], "at least 1"),
    (["--mask-update-every", "0"], "at least 1"),
    (["--save-total-limit", "0"], "at least 1"),
    (["--balance-groups", "maybe"], "must be true or false"),
    (["--method-options", "{"], "a JSON object"),
    (["--method-options", "[1]"], "a JSON object"),
    (["--dataset-options", "aligned_share=0.9"], "a JSON object"),
    (["--class-weights", "probabilty"], "did you mean 'probability'?"),
    (["--class-weights", "0.5", "much"], "--class-weights must be a finite number; got 'much'"),
    (["--discovery-options", '{"k": 3}'], "discover has no option 'k'"),
    (["--discovery-options", '{"max_atributes": 3}'], "did you mean 'max_attributes'?"),
    (["--discovery-options", '{"max_attributes": "many"}'], "must be an integer of at least 1; got 'many'"),
    (["--method", "aisf"], "did you mean 'aifs'"),
    (["--method-options", '{"etaa": 1}', "--method", "gdro-oracle"], "did you mean"),
    (["--dataset", "digits_on_scene"], "did you mean 'digits_on_scenes'"),
    (["--dataset", "no/such/folder"], "no/such/folder"),
    (["--report-to", "wandb"], "the package it needs is not installed; pip install wandb"),
    (["--report-to", "tensorboard"], "pip install tensorboard"),
    (["--report-to", "wandbb"], "did you mean 'wandb'?"),
    (["--adam-beta1", "1"], "in [0, 1)"),
    (["--adam-epsilon", "0"], "above 0"),
    (["--optim", "adamw"], "must be one of"),
    (["--log-level", "loud"], "must be one of"),
    (["--metric-for-best-model", "acuracy"], "did you mean 'accuracy'?"),
    (["--dataloader-num-workers", "-1"], "at least 0"),
    (["--save-strategy", "steps"], "eval"),  # unlike the evaluations', and the best model is wanted
    (["--eval-strategy", "no", "--save-strategy", "no", "--load-best-model-at-end", "false",
      "--early-stopping-patience", "2"], "early_stopping_patience needs evaluations"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "told"), TYPED, ids=[" ".join(options) for options, _ in TYPED])
def test_a_mistyped_option(options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["finetune", *options] if "--dataset" in options else ["finetune", *SMALL, *options]
    assert told in fails([*argv, "--output-dir", str(tmp_path / "run")], capsys)
    assert not (tmp_path / "run").exists()


UNFIT = [
    (["--target-modules", "foo"], "The adapter 'lora' does not fit the model 'tiny_clip'"),
    (["--model", "nobody/no-such-model"], "not a local directory"),
    (["--model", "tiny_clp"], "not a local directory"),
    (["--model", "identity"], "adapter was 'lora': pass 'none'"),
    (["--adapter", "full", "--quantization", "4bit"], "use adapter='lora'"),
    (["--dataset-options", '{"alinged_share": 0.9}'], "spurious_scenes has no option 'alinged_share' (did you mean"),
    (["--method", "ravl", "--model", "mlp"], "reads the encoder's patch or token features"),
]


@pytest.mark.parametrize(("options", "told"), UNFIT, ids=[" ".join(options) for options, _ in UNFIT])
def test_what_does_not_fit_together(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in fails(["finetune", *SMALL, *options, "--output-dir", str(tmp_path / "run")], capsys)


FILES = [
    (b"learning_rat: 0.1\n", "'learning_rat' (did you mean 'learning_rate'?)"),
    (b"- a\n- b\n", "holds list, not a mapping"),
    (b"", "holds NoneType, not a mapping"),
    (b"adapter: [none\n", "is not YAML"),
    (b"\xff\xfe\x00a", "is not UTF-8 text"),
    (b"a: \x00", "is not YAML"),
    (b"trust_remote_code: [1, 2]\n", "trust_remote_code must be true or false; got [1, 2]"),
    (b"trust_remote_code: maybe\n", "must be true or false"),
    (b"learning_rate: [1]\n", "learning_rate must be a number; got [1]"),
    (b"learning_rate: fast\n", "learning_rate must be a finite number above 0"),
    (b"learning_rate: null\n", "must not be empty (null)"),
    (b"learning_rate: -1\n", "learning_rate must be a finite number above 0"),
    (b"learning_rate: .nan\n", "learning_rate must be a finite number above 0"),
    (b"lora_r: 1.5\n", "lora_r must be an integer"),
    (b"lora_r: true\n", "lora_r must be an integer"),
    (b"model: true\n", "model must be a word; got True"),
    (b"model: {a: 1}\n", "model must be a word"),
    (b"adapter: lroa\n", "did you mean 'lora'?"),
    (b"dataset_options: 3\n", "a JSON object"),
    (b"dataset_options: [3]\n", "a JSON object"),
    (b"target_modules: [[a]]\n", "target_modules must be one or more words"),
    (b"num_train_epochs: 2026-01-01\n", "must be a finite number"),
    (b"when: 2026-02-31\n", "cannot be read"),
    (b"per_device_train_batch_size: -8\n", "at least 1"),
    (b"config: other.yaml\n", "unknown key 'config'"),
    (b"1: 2\n", "unknown key 1"),
    (b"seed: 1\nseed: 2\n", "the key 'seed' is given twice"),
    (b"learning_rate: 0.1\nlearning-rate: 0.2\n", "is given twice"),
    (b"dataset_options: {size: 1, size: 2}\n", "the key 'size' is given twice"),
]


@pytest.mark.parametrize(("content", "told"), FILES, ids=[repr(content) for content, _ in FILES])
def test_a_wrong_file_of_options(content: bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    assert told in fails(["finetune", "--config", str(file), "--output-dir", str(tmp_path / "run")], capsys)


def test_files_and_folders_that_are_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert "is a file" in fails(["finetune", "--output-dir", str(file)], capsys)
    assert "is a file" in fails(["finetune", "--output-dir", str(file / "run")], capsys)
    assert "is a file" in fails(["demo", "--output-dir", str(file)], capsys)
    assert "cannot be read" in fails(["finetune", "--config", str(tmp_path)], capsys)
    assert "cannot be read" in fails(["finetune", "--config", str(tmp_path / "absent.yaml")], capsys)
    deep = tmp_path / "deep.yaml"
    deep.write_text("[" * 20_000)
    assert "nested too deeply" in fails(["finetune", "--config", str(deep)], capsys)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["finetun"], "did you mean 'finetune'?"),
        (["methods", "--jsn"], "did you mean '--json'?"),
        (["env", "now"], "unexpected argument 'now'"),
        (["demo", "--methods", "aisf"], "did you mean 'aifs'"),
        (["demo", "--seeds", "one"], "must be an integer"),
        (["demo", "--epochs", "0"], "above 0"),
        (["doctor", "--dataset", "waterbird"], "did you mean 'waterbirds'"),
        (["doctor", "--option", "x"], "a JSON object"),
        (["doctor", "--dataset", "waterbirds", "--image", "path"], "for your own data: image"),
    ],
)
def test_other_commands(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in fails(argv, capsys)


def test_interrupted_and_failed_runs_have_their_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from aifs_peft.cli import mistakes
    from aifs_peft.errors import NonFiniteError

    for error, status in ((KeyboardInterrupt(), 130), (NonFiniteError("a loss is NaN"), 1), (OSError(28, "full"), 1)):

        @mistakes.command
        def main(argv: object, error: BaseException = error) -> int:
            raise error

        assert main([]) == status
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
