"""What `AIFSClassifier` trains where nothing is found: evenly weighted classes against plain training.

    python benchmarks/discovery_fallback.py --seeds 5 --out benchmarks/results/discovery_fallback.json
    python benchmarks/discovery_fallback.py --cache CACHE_DIR --seeds 5 --out ...

COMPAS (cells by race, `methods_data.py`), and with `--cache` the tweets of `tweets.py` (cells by dialect, a random 60 %
for training). Then the draws without a shortcut of `discovery_null.py`: worst class on a held-out
30 %. Rows that the output file holds are not computed again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tweets
from discovery_null import dominoes, gaussian, mislabelled, natural
from methods_data import compas
from numpy.typing import NDArray

from aifs_peft.classifier import AIFSClassifier


def scores(predicted: NDArray[np.int64], y: NDArray[np.int64], a: NDArray[np.int64] | None) -> dict[str, float]:
    """Worst cell (where there is an attribute), worst class and average accuracy."""
    hit = predicted == y
    out = {"worst_class": min(float(hit[y == c].mean()) for c in np.unique(y)), "average": float(hit.mean())}
    if a is not None:
        cells = y * (int(a.max()) + 1) + a
        out["worst_group"] = min(float(hit[cells == c].mean()) for c in np.unique(cells))
    return out


def compare(
    train: tuple[NDArray[Any], NDArray[Any]], test: tuple[NDArray[Any], NDArray[Any]], a: NDArray[Any] | None, seed: int
) -> dict[str, Any]:
    """Plain training, and `AIFSClassifier` at its defaults."""
    plain = AIFSClassifier("erm", random_state=seed).fit(*train)
    aifs = AIFSClassifier(random_state=seed).fit(*train)
    row: dict[str, Any] = {"found": bool(aifs.discovery_ is not None and aifs.discovery_.found)}
    for name, clf in (("erm", plain), ("aifs", aifs)):
        row |= {f"{name}_{key}": value for key, value in scores(np.asarray(clf.predict(test[0])), test[1], a).items()}
    return row


def null_draws(seed: int) -> dict[str, dict[str, Any]]:
    """Draws without a shortcut; where one raises a false alarm, it shows in `found`."""
    rng = np.random.default_rng(seed)
    rows = {}
    for number, (name, Z, y) in enumerate([*dominoes(rng), *natural(rng), *gaussian(rng), *mislabelled(rng)]):
        labels = np.unique(y, return_inverse=True)[1]
        held = np.random.default_rng(seed).random(len(labels)) < 0.3
        Z = Z.astype(np.float32)
        parts = (Z[~held], labels[~held]), (Z[held], labels[held])
        rows[f"null: {name}/{number}/{seed}"] = compare(*parts, None, seed)
    return rows


def summarise(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard error per case; of the null draws without alarm, what the worst class gains."""
    out: dict[str, Any] = {}
    for case in ("compas", "tweets"):
        chosen = [row for key, row in rows.items() if key.startswith(f"{case}/")]
        if chosen:
            out[case] = {"seeds": len(chosen), "found": sum(row["found"] for row in chosen)}
            for name in (name for name in chosen[0] if name != "found"):
                values = np.array([row[name] for row in chosen])
                out[case][name] = round(float(values.mean()), 4)
                out[case][f"{name}_se"] = round(float(values.std(ddof=1) / np.sqrt(len(values))), 4)
    gains = [
        row["aifs_worst_class"] - row["erm_worst_class"]
        for key, row in rows.items()
        if key.startswith("null:") and not row["found"]
    ]
    if gains:
        error = float(np.std(gains, ddof=1) / np.sqrt(len(gains)))
        out["null"] = {
            "draws": len(gains), "gain": round(float(np.mean(gains)), 4), "gain_se": round(error, 4),
            "smallest": round(min(gains), 4), "largest": round(max(gains), 4),
        }  # fmt: skip
    return out


def main() -> None:
    """Compute the missing rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=None, help="latents of the tweets, see tweets.py")
    parser.add_argument("--null-seeds", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = json.loads(options.out.read_text())["rows"] if options.out.is_file() else {}
    for seed in range(options.seeds):
        cases = {"compas": lambda seed: compas(seed, Path())}
        if options.cache is not None:
            cases["tweets"] = lambda seed: tweets.draw(seed, options.cache)
        for name, load in cases.items():
            if f"{name}/{seed}" not in rows:
                draw = load(seed)
                train, test = (draw.train.Z, draw.train.y), (draw.test.Z, draw.test.y)
                rows[f"{name}/{seed}"] = compare(train, test, draw.test.a, seed)
                print(name, seed, rows[f"{name}/{seed}"], flush=True)
    for seed in range(options.null_seeds):
        if not any(key.startswith("null:") and key.endswith(f"/{seed}") for key in rows):
            rows |= null_draws(seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"rows": rows, "summary": summarise(rows)}, indent=1) + "\n")
    print(json.dumps(summarise(rows), indent=1))


if __name__ == "__main__":
    main()
