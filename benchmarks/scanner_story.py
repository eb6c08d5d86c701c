"""Does the report tell the true story of a scanner mark? 540 images, audit, fine-tune and report by the command line.

    python benchmarks/scanner_story.py [--seed 0] [--folder DIR] [--out FILE]

scikit-learn's handwritten digits as "scans" of two classes (0 to 4: benign, 5 to 9: malignant), 64 x 64 pixels on a
noisy ground. Scanner B prints a small mark in the corner, and 95 % of the malignant images come from it. A table names
file and finding; nothing tells the scanner. What is written is compared with the truth that the table does not hold:
which examples go against the shortcut, how plain training and AIFS do on them and on 400 further images in which
scanner and finding are independent, and how much of the highlighted maps lies on the mark.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

from aifs_peft.experiments import provenance

N, BALANCED, ALIGNED = 540, 400, 0.95
SIZE, SCALE = 64, 4
MARK = (slice(50, 62), slice(46, 62))
"""Rows and columns of the scanner's mark."""
CLASSES = np.array(["benign", "malignant"])


def scan(digit: Any, marked: bool, rng: np.random.Generator) -> Image.Image:
    """One picture: a digit somewhere on a noisy grey ground, with the mark of scanner B or without it."""
    picture = rng.normal(40, 5, (SIZE, SIZE))
    side = SCALE * 8
    top, left = rng.integers(0, SIZE - side - 16), rng.integers(0, SIZE - side)
    big = np.kron(digit, np.ones((SCALE, SCALE))) * 15
    picture[top : top + side, left : left + side] = np.maximum(picture[top : top + side, left : left + side], big)
    if marked:
        picture[MARK] = 245
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def write_scans(folder: Path, rows: Any, share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Pictures of some handwritten digits, the table that a user has, and the truth that it does not hold."""
    digits = load_digits()
    finding = (digits.target[rows] >= 5).astype(int)
    scanner = np.where(rng.random(len(rows)) < share, finding, 1 - finding)
    folder.mkdir(parents=True)
    names = [f"{i:04d}.png" for i in range(len(rows))]
    for name, row, b in zip(names, rows, scanner, strict=True):
        scan(digits.images[row], bool(b), rng).save(folder / name)
    frame = pd.DataFrame({"file": names, "finding": CLASSES[finding], "scanner": np.array(["A", "B"])[scanner]})
    frame.drop(columns="scanner").to_csv(folder / "scans.csv", index=False)
    frame.to_csv(folder / "with_scanner.csv", index=False)
    return frame


def aifs(*words: str) -> str:
    """What a command of ours prints."""
    done = subprocess.run([sys.executable, "-m", "aifs_peft.cli", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"aifs {' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout


def told(folder: Path, frame: pd.DataFrame) -> dict[str, Any]:
    """Precision and recall of a list of conflicting examples."""
    listed = pd.read_csv(
        folder / "conflicting.csv" if (folder / "conflicting.csv").exists() else folder / "audit" / "conflicting.csv"
    )
    by_name = frame.set_index("file")
    truth = set(frame.index[(frame.finding == "malignant") != (frame.scanner == "B")])
    rows = {int(by_name.index.get_loc(Path(str(name)).name)) for name in listed["input"]}
    return {"listed": len(rows), "right": len(rows & truth)}


def mass_on_mark(folder: Path) -> dict[str, float]:
    """Share of the highlighted maps' positive mass that lies on the mark, and the mark's share of the area."""
    records = json.loads((folder / "audit" / "highlights.json").read_text())
    inside = np.zeros((SIZE, SIZE))
    inside[MARK] = 1
    shares = []
    for record in records:
        heat = np.clip(np.asarray(record["patches"]), 0, None)
        grown = np.kron(heat, np.ones((SIZE // heat.shape[0], SIZE // heat.shape[1])))
        shares.append(float((grown * inside).sum() / grown.sum()))
    return {"mass": float(np.median(shares)), "area": float(inside.mean()), "examples": len(shares)}


def story(folder: Path, seed: int) -> dict[str, Any]:
    """The three commands, and what is true of what they say."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(load_digits().target))[: N + BALANCED]
    frame = write_scans(folder / "scans", rows[:N], ALIGNED, rng)
    write_scans(folder / "balanced", rows[N:], 0.5, rng)
    data, balanced = folder / "scans" / "scans.csv", folder / "balanced" / "with_scanner.csv"
    columns = ("--image", "file", "--label", "finding")
    audit = aifs("audit", str(data), *columns, "--part", "all", "--output-dir", str(folder / "audit"))
    train = ("--adapter", "none", "--num-train-epochs", "20", "--use-cpu", "--seed", str(seed))
    printed = aifs("finetune", "--dataset", str(data), *columns, *train, "--output-dir", str(folder / "aifs"))
    aifs(
        "finetune",
        "--dataset",
        str(data),
        *columns,
        *train,
        "--method",
        "erm",
        "--audit",
        "false",
        "--output-dir",
        str(folder / "erm"),
    )
    report = Path(aifs("report", str(folder / "aifs")).strip())
    after = {
        method: json.loads(aifs("evaluate", str(folder / method), "--dataset", str(balanced), *columns, "--attribute",
                                "scanner", "--part", "all", "--json", "--use-cpu"))["comparison"]
        for method in ("erm", "aifs")
    }  # fmt: skip
    summary = json.loads((folder / "aifs" / "summary.json").read_text())
    conflicting = int(((frame.finding == "malignant") != (frame.scanner == "B")).sum())
    return {
        "conflicting": {"true": conflicting, **told(folder / "audit", frame)},
        "sentences": [line for line in audit.splitlines() if line][:3],
        "found": printed.splitlines()[0],
        "comparison": {"rows": summary["comparison"]["rows"], "sentences": summary["comparison"]["sentences"]},
        "what_if": json.loads((folder / "aifs" / "what_if.json").read_text())["sentences"],
        "balanced": {
            method: {"average": told["average"]["method"], "worst": told["worst"]["method"]}
            for method, told in after.items()
        },
        "highlights": mass_on_mark(folder / "aifs"),
        "report_bytes": report.stat().st_size,
    }


def main() -> None:
    """Write the figures of one seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where pictures and runs stay; left out: nowhere")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scanner_story.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = story(given.folder or Path(temporary), given.seed)
    given.out.write_text(json.dumps({"seed": given.seed, **result, "provenance": provenance()}, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
