"""When a minority is found: `python benchmarks/sample_sizes.py`.

Two classes of Gaussian latents in k dimensions with unit covariance, 2 % of either conflicting (exactly as many in
each). The attribute moves a latent by D standard deviations and the class by half of that, at right angles. Measured is
the squared cosine of the direction that `discover` finds with the attribute's. The minority counts as found from 0.9
on: the difference of the classes' means, which knows nothing of it, has 0.8. Twice: `found` by discovery as it is, and
`search` with an open gate, so that the best partition is taken whatever it is. Rows hold the squared cosine of each
draw, 0 where nothing was found.

Beside it what `docs/theory.md` says: `told`, of an offset that is estimated from the conflicting examples of both
classes if they are known, and `moments`, of the leading component of a class whose mean is taken out. `thresholds` has
the sizes from which each of them is at least 0.9, and from which at least half of the draws are, in conflicting
examples per class, and the shares of draws found at the largest size and at the best.

Rows that the file holds are not computed again. Docs: section 4 of `docs/theory.md`, filled in by
`benchmarks/render_dynamics.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from aifs_peft import discover
from aifs_peft.discovery.config import GateThresholds
from aifs_peft.experiments import provenance

RESULT = Path(__file__).parent / "results" / "sample_sizes.json"
SHARE, WANTED = 0.02, 0.9
CONTRASTS = (3.0, 4.0, 5.0, 6.0)
DIMENSIONS = (16, 64)
# Conflicting examples of a class, which is 50 times as large.
MINORITIES = (2, 4, 8, 16, 32, 64, 128)
DRAWS = 10
# Nothing is turned away; a class contrast of exactly 0 would be divided by.
OPEN = GateThresholds(
    cosine=-2.0, strength=0.0, ratio=0.0, association=0.0, class_strength=1e-3, refined_strength=0.0, relative=0.0,
    min_conflicts=1, association_errors=0.0, class_errors=0.0,
)  # fmt: skip


def told(contrast: float, k: int, minority: float) -> float:
    """Squared cosine of the offset that `minority` known examples in each of two classes give."""
    return contrast**2 / (contrast**2 + k / (2 * minority))


def moments(contrast: float, k: int, minority: float) -> float:
    """Squared cosine of the leading component of a class, `minority` of whose examples conflict."""
    ratio = k * SHARE / minority
    spike = SHARE * (1 - SHARE) * contrast**2
    return max(0.0, (1 - ratio / spike**2) / (1 + ratio / spike))


def needed_when_told(contrast: float, k: int) -> float:
    """The minority from which `told` is WANTED."""
    return k * WANTED / (2 * (1 - WANTED) * contrast**2)


def needed_by_moments(contrast: float, k: int) -> float:
    """The minority from which `moments` is WANTED."""
    return float(brentq(lambda m: moments(contrast, k, m) - WANTED, 1e-3, 1e6))


def draw(contrast: float, k: int, minority: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents `(n, k)`, labels and attribute values `(n,)`: class along the first axis, attribute along the second."""
    rng = np.random.default_rng([seed, k, minority, int(10 * contrast)])
    n = round(minority / SHARE)
    y = np.repeat([0, 1], n)
    a = np.where(np.tile(np.arange(n) < minority, 2), 1 - y, y)
    Z = rng.normal(size=(2 * n, k))
    Z[:, 0] += contrast / 2 * (y - 0.5)
    Z[:, 1] += contrast * (a - 0.5)
    return Z, y, a


def found_cosine(contrast: float, k: int, minority: int, seed: int, gate: GateThresholds | None) -> float:
    """Squared cosine of what discovery finds in one draw with the attribute, 0 for nothing."""
    Z, y, _ = draw(contrast, k, minority, seed)
    found = discover(Z, y, random_state=seed, gate=gate, max_attributes=1)
    return float(np.square(found.basis_[1]).sum()) if found.found else 0.0


def half_found(shares: dict[int, float]) -> float | None:
    """The size from which on at least half of the draws are found, between two sizes on a line over log size.

    The smallest size where that holds at all of them; None where it does not hold at the largest.
    """
    sizes = sorted(shares)
    below = [i for i, size in enumerate(sizes) if shares[size] < 0.5]
    last = max(below) if below else -1
    if last == len(sizes) - 1:
        return None
    if last < 0:
        return float(sizes[0])
    low, high = sizes[last], sizes[last + 1]
    part = (0.5 - shares[low]) / (shares[high] - shares[low])
    return float(low * (high / low) ** part)


def summarise(record: dict[str, Any]) -> None:
    """Sizes from which theory and measurement find the minority, and which share is found at the largest size."""
    record["thresholds"] = {}
    for D in CONTRASTS:
        for k in DIMENSIONS:
            rows = [r for r in record["rows"] if (r["contrast"], r["k"]) == (D, k)]
            entry: dict[str, Any] = {"told": needed_when_told(D, k), "moments": needed_by_moments(D, k)}
            for kind in ("search", "found"):
                shares = {r["minority"]: float(np.mean(np.asarray(r[kind]) >= WANTED)) for r in rows}
                entry |= {kind: half_found(shares), f"{kind}_at_last": shares[max(shares)],
                          f"{kind}_at_best": max(shares.values())}  # fmt: skip
            record["thresholds"][f"{D:g}/{k}"] = {
                name: None if v is None else float(f"{v:.3g}") for name, v in entry.items()
            }


def main() -> None:
    """Run what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    record: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": []}
    record["settings"] = {"share": SHARE, "wanted": WANTED, "draws": options.draws, "first_seed": options.first_seed}
    done = {(r["contrast"], r["k"], r["minority"]) for r in record["rows"]}
    for D in CONTRASTS:
        for k in DIMENSIONS:
            for minority in MINORITIES:
                if (D, k, minority) in done:
                    continue
                row: dict[str, Any] = {"contrast": D, "k": k, "minority": minority}
                for kind, gate in (("search", OPEN), ("found", None)):
                    seeds = range(options.first_seed, options.first_seed + options.draws)
                    row[kind] = [round(found_cosine(D, k, minority, seed, gate), 3) for seed in seeds]
                record["rows"].append(row)
                record["provenance"] = provenance()
                save(record, options.out)
            print(D, k, flush=True)
    summarise(record)
    save(record, options.out)


def save(record: dict[str, Any], path: Path) -> None:
    """Write the record, a row in one line."""
    rows = ",\n".join("  " + json.dumps(row) for row in record["rows"])
    rest = json.dumps({k: v for k, v in record.items() if k != "rows"}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{rest[:-2]},\n "rows": [\n{rows}\n ]\n}}\n')


if __name__ == "__main__":
    main()
