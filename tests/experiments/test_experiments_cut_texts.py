"""Texts longer than the model takes, or than asked for: cut and told with their number, whichever way they come in."""

import json
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset
from quiet import libraries_speak_again  # noqa: F401 - two of the ways are commands
from report_runs import save_roberta

from aifs_peft import AIFSTrainer, AIFSTrainingArguments, cli, encode
from aifs_peft.audit import audit_model
from aifs_peft.experiments.prepare import PreparedDataset, make_encoder
from aifs_peft.models import load_model, load_processor
from aifs_peft.training.inputs import count_cut

N, LONG, POSITIONS = 120, 12, 38
TOLD = re.compile(r"([\d,]+) of ([\d,]+) texts are longer than (max_length=\d+ tokens|the model's \d+ positions)")


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_roberta(tmp_path_factory.mktemp("roberta")))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """One text in ten is of 60 words; the others fill the model's positions at most."""
    texts = ["good bad " * 30 if i % 10 == 3 else "the " * (POSITIONS - 2 if i % 10 == 4 else 3) for i in range(N)]
    return pd.DataFrame({"text": texts, "label": ["fine", "toxic"] * (N // 2)})


@pytest.fixture(scope="module")
def run(roberta: str, frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a limit of 20 tokens, and a table beside it."""
    folder = tmp_path_factory.mktemp("run")
    frame.to_csv(folder / "texts.csv", index=False)
    argv = ["--dataset", str(folder / "texts.csv"), "--model", roberta, "--adapter", "none", "--method", "erm",
            "--epochs", "1", "--max-length", "20", "--use-cpu", "--quiet", "--output-dir", str(folder)]  # fmt: skip
    with pytest.warns(UserWarning, match="longer than max_length=20"):
        assert cli.main(["finetune", *argv]) == 0
    return folder


def finetune(folder: Path, roberta: str, table: Path, *limit: str) -> None:
    argv = ["--dataset", str(table), "--model", roberta, "--method", "erm", "--adapter", "none", "--epochs", "1",
            "--no-audit", "--use-cpu", "--quiet", *limit, "--output-dir", str(folder / "new")]  # fmt: skip
    assert cli.main(["finetune", *argv]) == 0


def train(folder: Path, roberta: str, rows: Dataset) -> None:
    args = AIFSTrainingArguments(str(folder / "trainer"), use_cpu=True)
    AIFSTrainer(roberta, args, train_dataset=rows).get_train_dataloader()


def command(*words: str) -> None:
    assert cli.main([*words, "--quiet"]) == 0


# Way in -> (what is done, the limit that is told of, texts over it).
WAYS = {
    "trainer": (lambda f, r, t, rows: train(f, r, rows), "the model's 38 positions", LONG),
    "finetune": (lambda f, r, t, rows: finetune(f, r, t), "the model's 38 positions", LONG),
    "finetune --max-length": (lambda f, r, t, rows: finetune(f, r, t, "--max-length", "9"), "max_length=9 tokens", 24),
    "encode": (lambda f, r, t, rows: encode(r, rows), "the model's 38 positions", LONG),
    "encode(max_length=)": (lambda f, r, t, rows: encode(r, rows, max_length=9), "max_length=9 tokens", 24),
    "audit_model": (lambda f, r, t, rows: audit_model(r, rows, harm=False), "the model's 38 positions", LONG),
    "audit": (
        lambda f, r, t, rows: command("audit", str(t), "--model", r, "--no-harm", "--output-dir", str(f / "audit")),
        "the model's 38 positions", LONG,
    ),
    "audit --max-length": (
        lambda f, r, t, rows: command("audit", str(t), "--model", r, "--no-harm", "--max-length", "9",
                                      "--output-dir", str(f / "audit")),
        "max_length=9 tokens", 24,
    ),
    "evaluate": (
        lambda f, r, t, rows: command("evaluate", str(t.parent), "--dataset", str(t), "--split", "none", "--part",
                                      "train", "--use-cpu"),
        "max_length=20 tokens", 24,
    ),
    "predict": (
        lambda f, r, t, rows: command("predict", str(t.parent), str(t), "--use-cpu"), "max_length=20 tokens", 24,
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_cut_texts_are_told_with_their_number(
    way: str, roberta: str, frame: pd.DataFrame, run: Path, tmp_path: Path
) -> None:
    act, limit, expected = WAYS[way]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        act(tmp_path, roberta, run / "texts.csv", Dataset.from_pandas(frame))
    found = [TOLD.match(str(warning.message)) for warning in told]
    counts = {(int(m[1]), int(m[2]), m[3]) for m in found if m is not None}
    assert sum(cut for cut, _, _ in counts) == expected, [str(warning.message) for warning in told]
    assert sum(total for _, total, _ in counts) == N
    assert {limited for _, _, limited in counts} == {limit}


def test_nothing_is_told_where_nothing_is_cut(roberta: str, frame: pd.DataFrame) -> None:
    fits = Dataset.from_pandas(frame[frame["text"].str.len() < 200], preserve_index=False)
    latents = encode(roberta, fits)  # warnings are errors here
    assert latents["label"][:] == fits["label"][:]  # words as they were
    assert encode(roberta, fits.remove_columns("label"))["features"][:] == latents["features"][:]
    tokenizer = load_processor(roberta, modality="text")
    assert count_cut(tokenizer, fits["text"][:], POSITIONS) == 0
    assert count_cut(tokenizer, fits["text"][:], POSITIONS - 1) == LONG


def test_a_limit_beyond_the_models_positions_is_theirs(roberta: str, frame: pd.DataFrame) -> None:
    tokenizer = load_processor(roberta, modality="text")
    model = load_model(roberta, modality="text", label_names=["fine", "toxic"])
    encoder = make_encoder(tokenizer, "text", max_length=512, model=model)
    rows = Dataset.from_dict({"text": frame["text"].tolist(), "label": [0, 1] * (N // 2)})
    with pytest.warns(UserWarning, match=f"{LONG} of {N} texts are longer than the model's {POSITIONS} positions"):
        prepared = PreparedDataset(rows, encoder)
    assert prepared[3]["input_ids"].shape == (POSITIONS,)
    with torch.no_grad():
        assert (
            model(**{name: value[None] for name, value in prepared[3].items() if name != "labels"})
            .logits.isfinite()
            .all()
        )


def test_what_was_saved_keeps_its_limit(run: Path) -> None:
    assert json.loads((run / "summary.json").read_text())["spec"]["max_length"] == 20
