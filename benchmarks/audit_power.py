"""How strong a shortcut must be to be seen, and what evidence is worth: planted latents of many sizes.

    python benchmarks/audit_power.py --out benchmarks/results/audit_power.json

Classes are 2 standard deviations apart; a mark that goes with the class for `share` of the examples moves latents by
`contrast` standard deviations. A draw counts as seen where discovery found a partition whose conflicting examples
overlap the true ones (Jaccard index of one half at least). Draws with contrast 0 hold no mark. Beside the record, with
every find, a compact table is written for the package (`aifs_peft/audit/power.json`), which `audit` reads.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifs_peft.audit.evidence import WORDS, cuts_of, word_of
from aifs_peft.discovery import discover

SIZES = (150, 300, 600, 1200, 2500, 5000)
WIDTHS = (32, 256)
CLASSES = (2, 5)
SHARES = (0.9, 0.95)
CONTRASTS = (3.0, 4.0, 5.0, 6.0, 8.0)
CLASS_CONTRAST = 2.0
DRAWS = 10
# Of every draw in which something was found.
FIELDS = (
    "classes", "n", "width", "share", "contrast", "seed", "evidence", "rough", "precision", "recall", "seen",
)  # fmt: skip
TABLE = Path(__file__).parents[1] / "aifs_peft" / "audit" / "power.json"


def draw(
    n: int, width: int, classes: int, share: float, contrast: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Latents `(n, width)`, labels and marks `(n,)`."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    mark = np.where(rng.random(n) < share, y, (y + rng.integers(1, classes, n)) % classes)
    Z = rng.normal(size=(n, width))
    # Any two of these directions are sqrt(2) apart.
    Z[np.arange(n), y] += CLASS_CONTRAST / np.sqrt(2.0)
    Z[np.arange(n), classes + mark] += contrast / np.sqrt(2.0)
    return Z.astype(np.float32), y, mark


def measure(n: int, width: int, classes: int, share: float, contrast: float, seed: int) -> dict[str, Any]:
    """One draw: whether something was found, its evidence, and how right it is."""
    Z, y, mark = draw(n, width, classes, share, contrast, seed)
    found = discover(Z, y, random_state=seed)
    row: dict[str, Any] = {"found": bool(found.found), "seen": False}
    if not found.found:
        return row
    moved, true = found.groups_ != y, mark != y
    both = int(np.count_nonzero(moved & true))
    row |= {
        "evidence": round(found.evidence_, 1),
        "rough": bool(found.rough_),
        "precision": round(both / max(int(np.count_nonzero(moved)), 1), 3) if contrast else 0.0,
        "recall": round(both / max(int(np.count_nonzero(true)), 1), 3) if contrast else 0.0,
    }
    union = int(np.count_nonzero(moved | true))
    row["seen"] = bool(contrast and both >= 0.5 * union)
    return row


def words(finds: list[dict[str, Any]]) -> dict[str, Any]:
    """What each word was worth, by the kind of search: finds, how many were right, how many in draws without a mark."""
    out: dict[str, Any] = {}
    for kind in ("two classes", "more classes, mixture", "more classes, rough"):
        out[kind] = {}
        for word in WORDS[1:]:
            own = [row for row in finds if _kind(row) == kind and _word(row) == word]
            marked = [row for row in own if row["contrast"]]
            precision = [row["precision"] for row in marked]
            out[kind][word] = {
                "finds": len(own),
                "false_alarms": len(own) - len(marked),
                "right": sum(row["seen"] for row in marked),
                "median_precision": round(float(np.median(precision)), 3) if precision else None,
            }
    return out


def _kind(row: dict[str, Any]) -> str:
    return "two classes" if row["classes"] == 2 else f"more classes, {'rough' if row['rough'] else 'mixture'}"


def _word(row: dict[str, Any]) -> str:
    return word_of(row["evidence"], row["n"], cuts_of(row["classes"], rough=row["rough"], source=row.get("source", "")))


def main() -> None:
    """Draw, count, write the record and the package's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows, table = [], []
    for classes, n, width in product(CLASSES, SIZES, WIDTHS):
        for share in SHARES:
            seen = {}
            for contrast in CONTRASTS:
                settings: dict[str, Any] = {"classes": classes, "n": n, "width": width, "share": share}
                settings["contrast"] = contrast
                own = [settings | {"seed": s} | measure(**settings, seed=s) for s in range(options.draws)]
                rows += own
                seen[str(contrast)] = sum(row["seen"] for row in own)
            table.append({"classes": classes, "n": n, "width": width, "share": share, "seen": seen})
            print(table[-1], flush=True)
        settings = {"classes": classes, "n": n, "width": width, "share": 0.5, "contrast": 0.0}
        rows += [settings | {"seed": s} | measure(**settings, seed=s) for s in range(1000, 1000 + options.draws)]
    null = [row for row in rows if not row["contrast"]]
    finds = [row for row in rows if row["found"]]
    compact = {"class_contrast": CLASS_CONTRAST, "draws": options.draws, "table": table}
    record = compact | {
        "words": words(finds),
        "null": {"draws": len(null), "alarms": sum(row["found"] for row in null)},
        "fields": list(FIELDS),
        "finds": [[row[name] for name in FIELDS] for row in finds],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(_lines(record))
    TABLE.write_text(_lines(compact))


def _lines(record: dict[str, Any]) -> str:
    """JSON with one row per line, so that a difference between two runs can be read."""
    parts = []
    for name, value in record.items():
        if isinstance(value, list):
            lines = ",\n  ".join(json.dumps(row) for row in value)
            parts.append(f' "{name}": [\n  {lines}\n ]')
        else:
            parts.append(f' "{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
