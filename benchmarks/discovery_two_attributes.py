"""Two independent shortcuts at once: what one search finds, and what a second one on the projected latents adds.

    python benchmarks/discovery_two_attributes.py --out benchmarks/results/discovery_two_attributes.json

Planted binary latents with two attributes, each aligned 0.95 with the label, of given contrasts. The second search is
`discover` on latents without the first one's basis. `one_attribute` and `dominoes` hold a single attribute: there a
second find is a false alarm. `worst` is over the eight cells of label and both attributes, on balanced test data.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from discovery_dominoes import dominoes
from numpy.typing import NDArray

from aifs_peft import AIFSClassifier
from aifs_peft.discovery import discover
from aifs_peft.discovery.heads import fit_logistic

Latents = NDArray[np.floating]
Labels = NDArray[np.int64]
CORE = 2.0


def planted(
    rng: np.random.Generator, share: float, contrasts: tuple[float, float], n: int
) -> tuple[Latents, Labels, Labels, Labels]:
    """Latents `(n, 32)`, labels and both attributes, each equal to the label with probability `share`."""
    y = rng.integers(0, 2, n)
    first, second = (np.where(rng.random(n) < share, y, 1 - y) for _ in range(2))
    Z = rng.normal(size=(n, 32))
    Z[:, :3] += np.stack([CORE * y, contrasts[0] * first, contrasts[1] * second], axis=1)
    return Z.astype(np.float32), y, first, second


def again(Z: Latents, y: Labels, basis: Latents) -> tuple[bool, Labels]:
    """Search once more without the directions already found."""
    result = discover(Z - (Z @ basis) @ basis.T, y, random_state=0)
    return bool(result.found), result.groups_


def balanced(Z: Latents, y: Labels, first: Labels, second: Labels, test: Latents) -> Labels:
    """Predictions of logistic regression balanced over the eight cells."""
    cells = 4 * y + 2 * first + second
    weights = 1.0 / np.maximum(np.bincount(cells, minlength=8), 5)[cells]
    return np.asarray(fit_logistic(Z, y, 2, l2=0.01, weights=weights).logits(test).argmax(axis=1))


def row(seed: int, contrasts: tuple[float, float]) -> dict[str, float | bool]:
    """One planted draw."""
    rng = np.random.default_rng(seed)
    Z, y, first, second = planted(rng, 0.95, contrasts, 4000)
    test, test_y, test_first, test_second = planted(rng, 0.5, contrasts, 8000)
    cells = 4 * test_y + 2 * test_first + test_second

    def worst(predicted: Labels) -> float:
        return float(min(np.mean((predicted == test_y)[cells == c]) for c in range(8)))

    clf = AIFSClassifier(random_state=0).fit(Z, y)
    erm = AIFSClassifier(recipe="erm", random_state=0).fit(Z, y)
    one = clf.discovery_
    found, groups = again(Z, y, one.basis_)
    out = {"found": bool(one.found), "found_again": found, "erm": worst(np.asarray(erm.predict(test)))}
    out["aifs_one_search"] = worst(np.asarray(clf.predict(test)))
    out["balanced_two_searches"] = worst(balanced(Z, y, one.groups_, groups, test))
    out["balanced_true_cells"] = worst(balanced(Z, y, first, second, test))
    return out


def alarms(seed: int) -> dict[str, dict[str, float | bool]]:
    """A second search where there is one attribute only: planted, and dominoes at three shares."""
    Z, y, _, _ = planted(np.random.default_rng(seed), 0.95, (5.0, 0.0), 4000)
    out = {}
    for name, (latents, labels) in {
        "one_attribute": (Z, y),
        **{f"dominoes/{share}": dominoes(share, seed)[0][:2] for share in (0.8, 0.95)},
    }.items():
        one = discover(latents, labels, random_state=0)
        out[f"{name}/{seed}"] = {"found": bool(one.found), "found_again": again(latents, labels, one.basis_)[0]}
    return out


def main() -> None:
    """All rows, written after each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows: dict[str, dict[str, float | bool]] = {}
    for seed in range(options.seeds):
        for contrasts in ((5.0, 5.0), (6.0, 5.0), (6.0, 4.0)):
            rows[f"contrasts {contrasts[0]:g} and {contrasts[1]:g}/{seed}"] = row(seed, contrasts)
        rows |= alarms(seed)
        options.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
        print(seed, rows, flush=True)


if __name__ == "__main__":
    main()
