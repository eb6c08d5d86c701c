"""Time and peak memory of group metrics on ten million predictions in 64 groups.

    python benchmarks/group_metrics_speed.py [--rows 10000000] [--groups 64] [--repeats 3] [--out FILE]

Each case runs in a fresh process, so that its peak memory is its own. The JSON holds every repeat,
with the load of the machine: wall-clock seconds count against the targets, processor seconds stand beside them.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import scipy

from aifs_peft.metrics import group_metrics

# seconds and megabytes to stay under, by bootstrap replicates; case name: (score type or None, replicates)
TARGETS = {0: {"seconds": 2.0, "megabytes": 1000.0}, 1000: {"seconds": 20.0, "megabytes": 1000.0}}
CASES: dict[str, tuple[str | None, int]] = {
    "exact": ("float32", 0),
    "exact, float64 scores": ("float64", 0),
    "accuracies only": (None, 0),
    "1000 bootstrap replicates": ("float32", 1000),
    "1000 bootstrap replicates, float64 scores": ("float64", 1000),
}


def inputs(rows: int, groups: int, kind: str | None) -> tuple[np.ndarray | None, ...]:
    """Labels, predictions, groups and scores of one case, in the integer types a data loader gives."""
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 2, rows, dtype=np.int64)
    group = rng.integers(0, groups, rows, dtype=np.int64)
    score = rng.random(rows, dtype=np.float32)
    score *= 0.7
    score += np.float32(0.3) * y_true.astype(np.float32)
    y_pred = (score > 0.5).astype(np.int64)
    return y_true, y_pred, group, None if kind is None else score.astype(kind)


def megabytes() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(case: str, rows: int, groups: int, repeats: int) -> dict[str, object]:
    """Seconds of each repeat, and the peak memory with and without what the inputs and imports take."""
    kind, n_boot = CASES[case]
    targets = TARGETS[n_boot]
    data = inputs(rows, groups, kind)
    before = megabytes()
    seconds, cpu = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        result = group_metrics(*data, n_boot=n_boot, random_state=0, num_groups=groups)
        seconds.append(round(time.perf_counter() - start, 3))
        cpu.append(round(time.process_time() - used, 3))
    peak = megabytes()
    return {
        "case": case,
        "n_boot": n_boot,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_megabytes": round(peak, 1),
        "peak_megabytes_before": round(before, 1),
        "targets": targets,
        "reached": max(seconds) < targets["seconds"] and peak < targets["megabytes"],
        "worst_group_accuracy": result["worst_group_accuracy"],
        "worst_group_roc_auc": result["worst_group_roc_auc"],
    }


def main() -> None:
    """Run every case in its own process and write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results / "group_metrics_speed.json")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.rows, options.groups, options.repeats)))
        return
    shared = [f"--{name}={getattr(options, name)}" for name in ("rows", "groups", "repeats")]
    cases = []
    for case in CASES:
        command = [sys.executable, __file__, "--case", case, *shared]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        cases.append(json.loads(done.stdout))
        print(f"{case:45s} {max(cases[-1]['seconds']):7.2f} s  {cases[-1]['peak_megabytes']:7.0f} MB")
    record = {
        "rows": options.rows,
        "groups": options.groups,
        "cases": cases,
        "load_average_1min": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
