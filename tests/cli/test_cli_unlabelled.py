"""`--unlabelled`: read, encoded and used, and told on the screen, in summary.json, in the card and in the report."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aifs_peft import cli
from aifs_peft.methods import get, names

D = 24
USED = "400 unlabelled examples were read and used: what was found rests on them."


def latents(n: int, share: float, seed: int) -> dict[str, np.ndarray]:
    """A class of contrast 1.5, and a scanner of 2.5 that goes with it in this share of the examples."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    scanner = np.where(rng.random(n) < share, y, 1 - y)
    Z = rng.normal(size=(n, D)).astype(np.float32)
    Z[:, 0] += 1.5 * y
    Z[:, 1] += 2.5 * scanner
    return {"Z": Z, "y": y, "scanner": scanner}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training latents at 0.95; those of a new site at 0.5 in several forms; noise, and others that are refused."""
    path = tmp_path_factory.mktemp("sites")
    train, new = latents(3600, 0.95, 0), latents(400, 0.5, 1)
    np.savez(path / "train.npz", **train)
    np.savez(path / "new.npz", Z=new["Z"])
    np.savez(path / "labelled.npz", Z=new["Z"], y=np.zeros(400))  # labels that would mislead
    pd.DataFrame({"features": list(new["Z"]), "note": "x"}).to_parquet(path / "new.parquet")
    np.savez(path / "noise.npz", Z=np.random.default_rng(0).normal(size=(100, D)))
    np.savez(path / "few.npz", Z=new["Z"][:20])
    np.savez(path / "narrow.npz", Z=new["Z"][:, :5])
    pd.DataFrame({"text": ["a", "b"] * 40}).to_csv(path / "texts.csv", index=False)
    return path


def finetune(folder: Path, out: Path, *options: str) -> int:
    return cli.main([
        "finetune", "--dataset", str(folder / "train.npz"), "--model", "identity", "--adapter", "none", "--epochs", "1",
        "--output-dir", str(out), "--use-cpu", "--quiet", *options,
    ])  # fmt: skip


def test_a_run_uses_them_and_says_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert finetune(folder, tmp_path, "--unlabelled", str(folder / "new.npz")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("found: ")
    assert lines[1] == USED
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["unlabelled"] == {"data": str(folder / "new.npz"), "n": 400, "used": True, "rests_on": 1.0}
    assert summary["audit"]["looked_at"]["unlabelled"] == {"n": 400, "rests_on": 1.0}
    assert "400 unlabelled examples" in summary["needs"]
    card = (tmp_path / "README.md").read_text()
    assert f"**Unlabelled examples.** {USED}" in card
    assert cli.main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert USED in page
    assert str(folder) not in page + card


def test_a_run_without_them_finds_nothing_and_does_not_speak_of_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(folder, tmp_path) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["found"] is False
    assert summary["unlabelled"] is None
    assert "unlabelled" not in capsys.readouterr().out + (tmp_path / "README.md").read_text()


def test_a_run_that_does_not_use_them_is_the_run_without_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert finetune(folder, tmp_path / "with", "--unlabelled", str(folder / "noise.npz")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("nothing found")
    assert lines[1] == "100 unlabelled examples were read and not used. With them nothing was found either."
    assert finetune(folder, tmp_path / "without") == 0
    runs = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("with", "without")]
    assert runs[0]["unlabelled"]["used"] is False
    assert runs[0]["comparison"]["rows"] == runs[1]["comparison"]["rows"]


@pytest.mark.parametrize("name", ["labelled.npz", "new.parquet"])
def test_an_audit_uses_them(name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["audit", str(folder / "train.npz"), "--unlabelled", str(folder / name), "--output-dir", str(tmp_path)]
    assert cli.main(argv) == 0
    told = capsys.readouterr()
    assert USED in " ".join(told.out.split())
    assert "400 unlabelled ones" in told.err
    page = (tmp_path / "report.html").read_text()
    assert USED in page
    assert cli.main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"] == "hint:unlabelled"
    assert found["looked_at"]["unlabelled"] == {"n": 400, "rests_on": 1.0}


def test_pictures_of_a_folder_are_encoded_with_the_model(
    clip_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "new" / "deeper").mkdir(parents=True)
    for i in range(60):
        place = tmp_path / "new" / ("deeper" if i % 2 else "") / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(place)
    small = json.dumps({"n_train": 120, "n_validation": 20, "n_test": 20, "image_size": 16})
    common = ["--dataset-options", small, "--model", str(clip_dir), "--unlabelled", str(tmp_path / "new")]
    assert cli.main(["audit", "spurious_scenes", *common, "--output-dir", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["looked_at"]["unlabelled"]["n"] == 60
    for adapter in ("none", "lora"):
        out = tmp_path / adapter
        run = ["finetune", "--dataset", "spurious_scenes", *common, "--adapter", adapter, "--epochs", "1", "--use-cpu",
               "--baseline", "erm", "--quiet", "--output-dir", str(out)]  # fmt: skip
        assert cli.main(run) == 0
        assert "60 unlabelled examples were read" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--unlabelled", "few.npz"], "holds 20 examples; at least 50"),
        (["--unlabelled", "narrow.npz"], "width 5, and the training set 24"),
        (["--unlabelled", "texts.csv"], "holds text, and the training set is read by features"),
        (["--unlabelled", "nowhere.npz"], "nowhere.npz"),
        (["--unlabelled", "celeba"], "is a known data set"),
        (["--unlabelled", "celebb"], "is neither a file nor a folder"),
        (["--unlabeled", "new.npz"], "did you mean '--unlabelled'"),
    ],
)
@pytest.mark.parametrize("command", ["finetune", "audit"])
def test_mistakes_are_one_line(
    command: str, options: list[str], told: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    if command == "finetune":
        assert finetune(folder, tmp_path, *options) == 2
    else:
        assert cli.main(["audit", "train.npz", *options, "--output-dir", str(tmp_path), "--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize("method", [name for name in names() if not get(name).reads_unlabelled])
def test_a_method_that_does_not_read_them_says_so(
    method: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(folder, tmp_path, "--method", method, "--unlabelled", str(folder / "new.npz")) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert f"method {method!r} has no use for unlabelled examples" in lines[0]
    assert "aifs" in lines[0].split("reads them" if "reads them" in lines[0] else "that read them")[1]
