"""Time of `AIFSClassifier.fit` against the number of examples, with and without a shortcut.

python benchmarks/discovery_speed.py --out benchmarks/results/discovery_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np

from aifs_peft.classifier import AIFSClassifier

DIM = 768


def main() -> None:
    """Planted Gaussian latents; wall time, processor time, peak memory and the machine's load at the start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2500, 5000, 10_000, 20_000, 50_000, 100_000])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for n in options.sizes:
        for share in (0.5, 0.95):
            rng = np.random.default_rng(0)
            y = rng.integers(0, 2, n)
            a = np.where(rng.random(n) < share, y, 1 - y)
            Z = rng.standard_normal((n, DIM), dtype=np.float32)
            Z[:, 0] += 5.0 * a
            Z[:, 1] += 2.0 * y
            load, wall, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
            clf = AIFSClassifier(random_state=0).fit(Z, y)
            rows.append(
                {
                    "n": n,
                    "d": DIM,
                    "share": share,
                    "found": bool(clf.discovery_.found),
                    "wall_seconds": round(time.perf_counter() - wall, 2),
                    "cpu_seconds": round(time.process_time() - cpu, 2),
                    "input_mb": round(Z.nbytes / 2**20, 1),
                    "process_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
                    "load_average": round(load, 1),
                    "threads": os.environ.get("OMP_NUM_THREADS", "default"),
                }
            )
            print(rows[-1], flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
