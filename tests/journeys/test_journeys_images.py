"""Journey 1: a folder of pictures and a table, by commands alone, to the pictures that go against a scanner's mark."""

import html
import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from aifs_peft.data import from_table
from aifs_peft.data.notes import DataWarning

SIZE, FINDINGS = 48, ("benign", "malignant")
COLUMNS = ["--image", "path", "--label", "finding", "--attribute", "scanner"]


def draw(malignant: bool, scanner: str, rng: np.random.Generator) -> Image.Image:
    """A faint disc or triangle in noise, and the bright mark that each scanner leaves in its own corner."""
    mask = Image.new("L", (SIZE, SIZE))
    (x, y), r = rng.integers(16, 32, 2).tolist(), int(rng.integers(8, 12))
    if malignant:
        ImageDraw.Draw(mask).polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=255)
    else:
        ImageDraw.Draw(mask).ellipse([x - r, y - r, x + r, y + r], fill=255)
    grey = rng.normal(rng.integers(70, 100), 20, (SIZE, SIZE)) + 40 / 255 * np.asarray(mask)
    picture = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    ImageDraw.Draw(picture).rectangle([1, 41, 11, 46] if scanner == "A" else [36, 1, 46, 6], fill=250)
    return picture


def write_scans(folder: Path, n: int = 600, every: int = 20) -> set[str]:
    """`n` PNG files and `scans.csv`; in one of `every` pictures of a class the scanner is the other class's.

    Returns:
        The files that go against the shortcut.
    """
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        malignant = i % 2 == 1
        against = i // 2 % every == 3
        scanner = "B" if malignant != against else "A"
        name = f"images/{i:04d}.png"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        draw(malignant, scanner, rng).save(folder / name)
        rows.append((name, FINDINGS[malignant], scanner, against))
    frame = pd.DataFrame(rows, columns=["path", "finding", "scanner", "against"])
    frame.drop(columns="against").to_csv(folder / "scans.csv", index=False)
    return set(frame["path"][frame["against"]])


def aifs(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `aifs WORDS` prints: the installed command's own function, with what a shell would give it."""
    (command,) = entry_points(group="console_scripts", name="aifs")
    capsys.readouterr()
    assert command.load()(list(words)) == 0
    return capsys.readouterr().out


def precision_and_recall(listed: set[str], truth: set[str]) -> tuple[float, float]:
    hits = len(listed & truth)
    return hits / max(len(listed), 1), hits / len(truth)


@pytest.mark.slow
def test_from_a_folder_to_a_fix_that_can_be_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    against = write_scans(tmp_path)
    assert len(against) == 30

    told = aifs(capsys, "audit", "scans.csv", *COLUMNS, "--output-dir", "audited")
    assert " of 600 images go against the shortcut" in told
    assert "'scanner' goes with it most (association" in told
    assert "attribute 1.00" not in told  # the user's column is told once, under its own name
    found = pd.read_csv("audited/audit/conflicting.csv")
    assert min(precision_and_recall(set(found["path"]), against)) >= 0.95
    assert all(Path(name).is_file() for name in found["input"])

    finetune = ["finetune", "--dataset", "scans.csv", *COLUMNS, "--adapter", "none", "--test-share", "balanced"]
    with pytest.warns(DataWarning, match="benign x A: 7, .*; find more examples of these cells"):
        told = aifs(capsys, *finetune, "--output-dir", "run")
    assert re.match(r"found: \d+ of \d+ training examples go against a shortcut\n", told)

    page = aifs(capsys, "report", "run").strip()
    summary = json.loads(Path("run/summary.json").read_text())
    comparison = {row["cell"]: row for row in summary["comparison"]["rows"]}
    conflicting = comparison["conflicting"]
    assert summary["comparison"]["cells_from"] == "attribute"

    # The training rows are those that the balanced test and the validation set leave.
    with pytest.warns(DataWarning):
        splits = from_table("scans.csv", image="path", label="finding", attribute="scanner", test_share="balanced")
    listed = pd.read_csv("run/audit/conflicting.csv")
    truth = against & set(splits["train"]["path"])
    assert len(truth) >= 12
    assert min(precision_and_recall(set(listed["path"]), truth)) >= 0.95
    assert conflicting["n"] == len(against & set(splits["test"]["path"]))

    before, after = conflicting["plain"]["accuracy"], conflicting["method"]["accuracy"]
    assert after >= before + 0.3
    text = html.unescape(re.sub(r"<[^>]+>", " ", Path(page).read_text(encoding="utf-8")))
    shown = " ".join(text.split())
    gain = f"{before:.2f} -> {after:.2f} (n = {conflicting['n']})"
    assert gain in shown
    assert gain in told
    assert f"+{100 * (after - before):.1f}" in shown
    assert all(Path(name).name in shown for name in listed["path"].head(3))
