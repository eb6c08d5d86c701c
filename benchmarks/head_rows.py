"""What a head loses when it is fitted to a sample of many rows: worst group with all rows and with the sample.

Planted latents (Student's t with five degrees of freedom, so that no model is exactly right; an attribute of contrast 4
beside a class of 2, 5 % of the examples conflicting), the groups as they are, logistic heads as `AIFSClassifier` fits
them.

    OMP_NUM_THREADS=1 python benchmarks/head_rows.py [--draws 5] [--rows 400000] [--fresh]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from aifs_peft.discovery.config import DEFAULT_CONFIG
from aifs_peft.discovery.linear_heads.families import HeadSetting, fit_head
from aifs_peft.experiments import provenance

RESULT = Path(__file__).parent / "results" / "performance" / "head_rows.json"
WIDTH, FAMILIES = 256, ("balanced", "counterfactual")


def draw(n: int, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents, labels and attribute values."""
    y = (rng.random(n) < 0.5).astype(int)
    a = np.where(rng.random(n) < share, y, 1 - y)
    X = np.empty((n, WIDTH), dtype=np.float32)
    for start in range(0, n, 8192):
        part = slice(start, min(start + 8192, n))
        size = part.stop - start
        X[part] = rng.standard_normal((size, WIDTH), dtype=np.float32)
        X[part] *= np.sqrt(3.0 / rng.chisquare(5, size)).astype(np.float32)[:, None]
        # The class shows in many coordinates, a little in each.
        X[part, 1:65] += 0.25 * y[part, None]
        X[part, 0] += 4.0 * a[part]
    return X, y, a


def worst(head, data) -> float:
    """Accuracy of the worst group."""
    X, y, a = data
    hit = head.logits(X).argmax(axis=1) == y
    return float(min(hit[2 * y + a == cell].mean() for cell in range(4)))


def main() -> None:
    """One row per draw and head; draws that the file holds already are left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--fresh", action="store_true", help="measure again what the file holds already")
    options = parser.parse_args()
    arguments = {"draws": options.draws, "rows": options.rows}
    sizes = {"all": options.rows, "sample": DEFAULT_CONFIG.heads.fit_rows, "small": DEFAULT_CONFIG.heads.fit_rows // 5}
    rows: list[dict[str, object]] = []
    before = {} if options.fresh or not RESULT.exists() else json.loads(RESULT.read_text())
    if before.get("arguments", {}).get("rows") == options.rows:
        rows = before["rows"]
    for number in range(len(rows) // len(FAMILIES), options.draws):
        rng = np.random.default_rng([7, number])
        (X, y, a), test = draw(options.rows, 0.95, rng), draw(100_000, 0.5, rng)
        R = np.eye(2, dtype=np.float32)[a]
        for family in FAMILIES:
            row: dict[str, object] = {"draw": number, "family": family}
            for size, count in sizes.items():
                heads = replace(DEFAULT_CONFIG.heads, fit_rows=count, fit_rows_per_weight=1)
                config, source = replace(DEFAULT_CONFIG, heads=heads), np.random.default_rng(number)
                row[size] = worst(fit_head(X, y, R, HeadSetting(family, 0.03), rng=source, config=config), test)
            rows.append(row)
            print(row, flush=True)
        write({**arguments, "draws": number + 1}, sizes, rows)


def write(arguments: dict[str, object], sizes: dict[str, int], rows: list[dict[str, object]]) -> None:
    """The rows so far, and what is lost on average and at most."""
    summary = {
        family: {
            size: {"mean": float(np.mean(loss)), "largest": float(np.max(loss))}
            for size in ("sample", "small")
            for loss in [[row["all"] - row[size] for row in rows if row["family"] == family]]
        }
        for family in FAMILIES
    }
    content = {"arguments": arguments, "rows_of": sizes, "lost": summary, "rows": rows, "provenance": provenance()}
    RESULT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
