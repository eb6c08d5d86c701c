"""How the cost of a fit grows with examples, width and classes; attribution; peers; the first fit of a fresh process.

Planted latents (normal; an attribute of contrast 5 beside a class of 2, above two classes 7 and 3) of which the
attribute goes with the label for 95 % (a shortcut) or as often as not. Every row runs in a process of its own with one
BLAS thread, and rows take turns: the median of the rounds is told, in processor seconds (`seconds`) and on the clock
(`wall_seconds`), with the machine's load at the start. `peak_memory_bytes` is the largest resident memory during the
fit less what was resident before it, where interpreter, libraries and input are there already.

    python benchmarks/discovery_scaling.py                # what is missing, until every row has its rounds
    python benchmarks/discovery_scaling.py --fresh        # all of it again, about six minutes on a quiet machine
    python benchmarks/discovery_scaling.py --only n=10000 # rows whose name holds that

The rows go to `results/performance/discovery_scaling.json`, those of others to `peers.json`; both are written after
each row, so that a run can be stopped and taken up again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "results" / "performance"
FIRST_FIT = """
import sys, time, numpy as np
from aifs_peft import AIFSClassifier
rng = np.random.default_rng(0)
y = rng.integers(0, 2, 1000)
a = np.where(rng.random(1000) < 0.95, y, 1 - y)
Z = rng.normal(size=(1000, 768))
Z[:, 0] += 6 * a
Z[:, 1] += 2 * y
assert AIFSClassifier(random_state=0).fit(Z, y).discovery_.found
files = [getattr(module, "__file__", None) for module in sys.modules.values()]
print(time.process_time(), *[file for file in files if file], sep="\\n")
"""


def wanted() -> list[dict[str, Any]]:
    """What is measured: the method, `n`, `d`, `K`, the share of aligned examples, and how many rounds."""
    rows = [
        {"method": "aifs", "n": n, "d": 768, "K": K, "share": share, "rounds": 3 if n <= 100_000 else 1}
        for n in (10_000, 100_000, 1_000_000)
        for K in (2, 4)
        for share in (0.95, 1.0 / K)
    ]
    rows += [{"method": "aifs", "n": 10_000, "d": d, "K": 2, "share": 0.95, "rounds": 3} for d in (64, 256, 2048, 4096)]
    rows += [{"method": "aifs", "n": 10_000, "d": 768, "K": K, "share": 0.95, "rounds": 1} for K in (8, 16)]
    rows += [{"method": "attribution", "n": 1_000_000, "d": 768, "K": K, "share": 0.95, "rounds": 1} for K in (2, 10)]
    rows += [
        {"method": "logistic-regression", "n": n, "d": 768, "K": 2, "share": 0.95, "rounds": 3}
        for n in (10_000, 100_000)
    ]
    return [*rows, {"method": "xrm-gdro", "n": 10_000, "d": 768, "K": 2, "share": 0.95, "rounds": 1}]


def name(row: dict[str, Any]) -> str:
    """Which row it is, in words."""
    return f"{row['method']} n={row['n']} d={row['d']} K={row['K']} share={row['share']:g}"


def planted(n: int, d: int, K: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Latents and labels; written in blocks, so that nothing else of their size was ever resident."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, n)
    a = np.where(rng.random(n) < share, y, (y + rng.integers(1, K, n)) % K)
    unit = np.eye(K, dtype=np.float32) / np.float32(np.sqrt(2.0) if K == 2 else 1.0)
    Z = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 8192):
        part = slice(start, start + 8192)
        rng.standard_normal(out=Z[part], dtype=np.float32)
        Z[part, :K] += 5.0 * unit[a[part]]
        Z[part, K : 2 * K] += 2.0 * unit[y[part]]
    return Z, y


def resident() -> tuple[int, int]:
    """Resident memory now, and the largest since the last call, in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    now, most = (int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return now, most


def measure(row: dict[str, Any]) -> dict[str, Any]:
    """One round of one row, in this process."""
    Z, y = planted(row["n"], row["d"], row["K"], row["share"])
    found: bool | None = None
    fit = _ready(row["method"], Z, y)
    load, (before, _) = os.getloadavg()[0], resident()
    wall, processor = time.perf_counter(), time.process_time()
    out = fit()
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    if row["method"] == "aifs":
        found = bool(out.discovery_.found)
    return {
        "seconds": processor,
        "wall_seconds": wall,
        "peak_memory_bytes": resident()[1] - before,
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "load_average": load,
        **({} if found is None else {"found": found}),
    }


def _ready(method: str, Z: np.ndarray, y: np.ndarray) -> Any:
    """What is to be timed, with everything imported."""
    if method == "attribution":
        import torch

        from aifs_peft.latent import attribute

        torch.manual_seed(0)
        head, latents = torch.nn.Linear(Z.shape[1], int(y.max()) + 1), torch.from_numpy(Z)
        attribute(head, latents[:100])
        return lambda: attribute(head, latents, tolerance=1e-3)
    if method == "logistic-regression":
        from sklearn.linear_model import LogisticRegression

        return lambda: LogisticRegression(max_iter=1000).fit(Z, y)
    from aifs_peft.classifier import AIFSClassifier

    recipe = "discovery" if method == "aifs" else method
    AIFSClassifier(recipe, random_state=0).fit(Z[:60], y[:60])  # what is imported on the way
    return lambda: AIFSClassifier(recipe, random_state=0).fit(Z, y)


def one_thread() -> dict[str, str]:
    """The environment of a row."""
    return {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}


def first_fit(rounds: int) -> dict[str, float]:
    """From nothing to a classifier fitted to 1,000 rows: with the files in memory, and with those read from disk."""
    seconds: dict[str, list[float]] = {"warm_seconds": [], "cold_seconds": [], "processor_seconds": []}
    files: list[str] = []
    for _ in range(rounds):
        for kind in ("warm_seconds", "cold_seconds"):
            if kind == "cold_seconds":
                _forget(files)
            started = time.perf_counter()
            command = [sys.executable, "-c", FIRST_FIT]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread())
            seconds[kind].append(time.perf_counter() - started)
            processor, *files = done.stdout.split()
            if kind == "warm_seconds":
                seconds["processor_seconds"].append(float(processor))
    return {kind: statistics.median(values) for kind, values in seconds.items()} | {"rounds": rounds}


def _forget(files: list[str]) -> None:
    """Ask the system to drop files from its memory; pages that another process uses stay."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def summary(row: dict[str, Any], rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Median of the rounds."""
    told: dict[str, Any] = {key: row[key] for key in ("method", "n", "d", "K", "share")}
    for key in ("seconds", "wall_seconds", "load_average"):
        told[key] = round(statistics.median(r[key] for r in rounds), 3)
    for key in ("peak_memory_bytes", "process_peak_bytes"):
        told[key] = max(r[key] for r in rounds)
    return told | {key: rounds[0][key] for key in ("found",) if key in rounds[0]} | {"rounds": len(rounds)}


def write(state: dict[str, Any]) -> None:
    """Both result files, from the rounds so far."""
    from aifs_peft.experiments import provenance

    FOLDER.mkdir(parents=True, exist_ok=True)
    told = [summary(row, state["rounds"][name(row)]) for row in wanted() if state["rounds"].get(name(row))]
    mine = [row for row in told if row["method"] in ("aifs", "attribution")]
    # What peers are compared with ran in the same rounds.
    beside = [row for row in told if row["d"] == 768 and row["K"] == 2 and row["share"] == 0.95]
    files = {
        "discovery_scaling": {"rows": mine, "first_fit": state.get("first_fit"), "rounds": state["rounds"]},
        "peers": {"rows": [row for row in beside if row["method"] != "attribution" and row["n"] <= 100_000]},
    }
    for file, content in files.items():
        content = {**content, "threads": 1, "provenance": provenance()}
        (FOLDER / f"{file}.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="forget the rounds that the file holds")
    parser.add_argument("--only", default="", help="part of the names of the rows to run; first-fit is one of them")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(json.loads(options.row))))
        return
    file = FOLDER / "discovery_scaling.json"
    state: dict[str, Any] = {"rounds": {}}
    if file.exists() and not options.fresh:
        state = {key: value for key, value in json.loads(file.read_text()).items() if key in ("rounds", "first_fit")}
    for turn in range(3):
        for row in wanted():
            rounds = state["rounds"].setdefault(name(row), [])
            if len(rounds) > turn or turn >= row["rounds"] or options.only not in name(row):
                continue
            command = [sys.executable, __file__, "--row", json.dumps(row)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=one_thread())
            rounds.append(json.loads(done.stdout))
            print(name(row), rounds[-1], flush=True)
            write(state)
    if not state.get("first_fit") and options.only in "first-fit":
        state["first_fit"] = first_fit(3)
        print(state["first_fit"], flush=True)
        write(state)


if __name__ == "__main__":
    main()
