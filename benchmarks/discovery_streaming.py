"""Discovery and heads on latents that are read from a file: time and memory against the number of examples.

python benchmarks/discovery_streaming.py --folder /var/tmp

Writes memory-mapped latents of float16 into the folder, one size after the other, and deletes each afterwards. Every
row is a process of its own. Memory is what the process holds beside pages of the file: the largest `RssAnon` that
/proc/self/status showed, less what it showed before the call. `--sizes 10000000` takes 15 GB on the disk.

python benchmarks/discovery_streaming.py --accuracy

compares heads of all rows with those of a sample of them, on 200,000 examples. Both write, row by row, to
benchmarks/results/performance/discovery_streaming.json (rows that are there already are left out) and put the tables
into docs/performance.md; `--render` does only that.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

DIM = 768
BLOCK = 8192
NOISE_ROWS = 65_536
REPEATED = 1_000_000
OUT = Path("benchmarks/results/performance/discovery_streaming.json")
PAGE = Path("docs/performance.md")


def planted(n: int, seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and an attribute that goes with them for a share of the examples; repeated after a million."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, min(n, REPEATED))
    a = np.where(rng.random(len(y)) < share, y, 1 - y)
    return np.resize(y, n), np.resize(a, n)


def write_latents(path: Path, y: np.ndarray, a: np.ndarray, seed: int, width: int = DIM) -> None:
    """A memory map of float16, block by block; the noise of a row is one of 65,536 rows with a random sign.

    The first million rows are repeated: time and memory do not depend on what they hold.
    """
    rng = np.random.default_rng([seed, 1])
    noise = rng.standard_normal((NOISE_ROWS, width), dtype=np.float32)
    Z = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(len(y), width))
    distinct = min(len(y), REPEATED)
    for start in range(0, distinct, BLOCK):
        rows = slice(start, min(start + BLOCK, distinct))
        m = rows.stop - rows.start
        block = noise[rng.integers(0, NOISE_ROWS, m)] * rng.choice([-1.0, 1.0], (m, 1)).astype(np.float32)
        block[:, 0] += 5.0 * a[rows]
        block[:, 1] += 2.0 * y[rows]
        Z[rows] = block
    for start in range(distinct, len(y), distinct):
        Z[start : start + distinct] = Z[: min(distinct, len(y) - start)]
    Z.flush()


def held_memory() -> int:
    """Bytes of this process that belong to no file."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class Peak(threading.Thread):
    """The largest memory while it runs, looked at every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self._ended = 0, threading.Event()

    def run(self) -> None:
        """Until `end` is called."""
        while not self._ended.wait(0.005):
            self.bytes = max(self.bytes, held_memory())

    def end(self) -> int:
        """The largest number of bytes."""
        self._ended.set()
        self.join()
        return self.bytes


def worst_group(predict: Any, seed: int, n: int = 20_000, width: int = DIM) -> float:
    """Accuracy in the worst of the four cells of label and attribute, in which all are as frequent."""
    rng = np.random.default_rng([seed, 2])
    y, a = rng.integers(0, 2, n), rng.integers(0, 2, n)
    Z = rng.standard_normal((n, width), dtype=np.float32)
    Z[:, 0] += 5.0 * a
    Z[:, 1] += 2.0 * y
    hits = predict(Z) == y
    return float(min(hits[(y == c) & (a == b)].mean() for c in (0, 1) for b in (0, 1)))


def fit_one(path: Path, n: int, source: str, share: float) -> dict[str, Any]:
    """One classifier on latents of a file."""
    from aifs_peft import AIFSClassifier
    from aifs_peft.discovery import LatentBatches

    y, a = planted(n, 0, share)
    Z: Any = np.load(path, mmap_mode="r")
    # What is loaded at the first call, such as torch, is not counted as memory of the fit.
    AIFSClassifier(random_state=0).fit(np.asarray(Z[:500]), y[:500])
    load, wall, cpu, before = os.getloadavg()[0], time.perf_counter(), time.process_time(), held_memory()
    peak = Peak()
    peak.start()
    if source == "batches":
        given: Any = LatentBatches(lambda: ((Z[i : i + 4096], y[i : i + 4096]) for i in range(0, n, 4096)))
        clf = AIFSClassifier(random_state=0).fit(given, given.labels)
    elif source == "array":
        clf = AIFSClassifier(random_state=0).fit(np.asarray(Z), y)
    else:
        clf = AIFSClassifier(random_state=0).fit(Z, y)
    wall, cpu, most = time.perf_counter() - wall, time.process_time() - cpu, peak.end()
    found = clf.discovery_
    return {
        "n": n,
        "d": Z.shape[1],
        "source": source,
        "share": share,
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_memory_bytes": most - before,
        "input_bytes": int(Z.nbytes),
        "found": bool(found.found),
        "groups_right": round(float(np.mean(found.groups_ == a)), 5) if found.found else None,
        "worst_group": round(worst_group(clf.predict, 0, width=Z.shape[1]), 4),
        "load_average": round(load, 1),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
    }


def accuracy(draw: int, n: int, held: int) -> dict[str, Any]:
    """Worst group of heads and directions of all rows, and of those of a sample of `held` rows.

    Which head is chosen is decided on 6,000 rows, with or without a sample, and the choice is a source of chance of its
    own. So the head that all rows choose is also fitted to the sample, with what the sample found.
    """
    from aifs_peft.classifier.closed import Latents, fit_discovery
    from aifs_peft.discovery import DiscoveryConfig
    from aifs_peft.discovery.config import InputConfig
    from aifs_peft.discovery.linear_heads.families import cells_of, fit_head
    from aifs_peft.discovery.linear_heads.rows import sampled_rows
    from aifs_peft.discovery.streaming.held import reduce_source
    from aifs_peft.discovery.streaming.reading import as_source

    seed = 100 + draw
    y, a = planted(n, seed, 0.95)
    Z = np.random.default_rng([seed, 1]).standard_normal((n, DIM), dtype=np.float32)
    Z[:, 0] += 5.0 * a
    Z[:, 1] += 2.0 * y
    source = as_source(Z)
    row: dict[str, Any] = {"draw": draw, "n": n, "held_rows": held}
    fits = {}
    for name, rows in (("all", n), ("sample", held)):
        config = DiscoveryConfig(inputs=InputConfig(held_rows=rows))
        reduction = reduce_source(source, rng=np.random.default_rng(seed), config=config.reduction)
        latents = Latents(source, y, np.unique(y), reduction, None)
        fits[name] = fit_discovery(latents, "balanced", seed=seed, config=config)
        found, choice = fits[name].discovery, fits[name].choice
        row[name] = {
            "worst_group": round(worst_of(fits[name].head, reduction, seed), 4),
            "groups_right": round(float(np.mean(found.groups_ == a)), 5),
            "cosine_with_truth": round(float(abs(found.basis_[0, 0])), 4),
            "head": choice.setting.describe(),
        }
    R = fits["sample"].discovery.responsibilities_
    kept, times = sampled_rows(cells_of(y, R), held, np.random.default_rng(seed))
    some = latents.examples(kept, times)
    head = fit_head(
        some.X, y[kept], R[kept], fits["all"].choice.setting, rng=np.random.default_rng(seed), weights=some.weights
    )
    head = fits["all"].choice.shifted(head)
    row["sample"]["worst_group_same_head"] = round(worst_of(head, reduction, seed), 4)
    return row


def parts() -> dict[str, float]:
    """Processor seconds per million examples of what a pass does with a block, medians of 15."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((BLOCK, DIM)).astype(np.float16)
    wide, projection = block.astype(np.float32), rng.standard_normal((DIM, 256), dtype=np.float32)
    X = wide @ projection
    work = {
        "conversion": lambda: block.astype(np.float32),
        "projection": lambda: wide @ projection,
        "products": lambda: X.T @ X,
    }
    seconds = {}
    for name, function in work.items():
        taken = []
        for _ in range(15):
            start = time.process_time()
            function()
            taken.append(time.process_time() - start)
        seconds[name] = round(float(np.median(taken)) * 1e6 / BLOCK, 2)
    return seconds


def worst_of(head: Any, reduction: Any, seed: int) -> float:
    """`worst_group` of a head on reduced latents."""
    return worst_group(lambda Z: head.logits(reduction.transform(Z)).argmax(axis=1), seed, n=80_000)


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 300_000, 1_000_000, 3_000_000])
    parser.add_argument("--sources", nargs="+", default=["memmap"], choices=["memmap", "batches", "array"])
    parser.add_argument("--width", type=int, default=DIM, help="of the latents")
    parser.add_argument("--share", type=float, default=0.95, help="how often attribute and label agree; 0.5: none")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--render", action="store_true", help="only put the tables into the page")
    parser.add_argument("--again", action="store_true", help="measure rows anew that are there already")
    parser.add_argument("--one", nargs=2, metavar=("FILE", "SOURCE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Ended from outside, too, it deletes its file.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.one:
        print(json.dumps(fit_one(Path(options.one[0]), options.sizes[0], options.one[1], options.share)))
        return
    results = read()
    if options.again or "parts" not in results:
        results["parts"] = parts()
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps(results, indent=1) + "\n")
    if options.render:
        render(results)
        return
    if options.accuracy:
        for draw in range(5):
            if options.again or all(row["draw"] != draw for row in results["accuracy"]):
                row = accuracy(draw, 200_000, 50_000)
                keep(results, "accuracy", row, ("draw",))
        return
    for n in options.sizes:
        key = {"n": n, "d": options.width, "share": options.share}
        there = [row["source"] for row in results["rows"] if key.items() <= row.items()]
        wanted = [source for source in options.sources if options.again or source not in there]
        if not wanted:
            continue
        path = options.folder / f"discovery_streaming_{os.getpid()}.npy"
        try:
            write_latents(path, *planted(n, 0, options.share), seed=0, width=options.width)
            for source in wanted:
                command = [sys.executable, __file__, "--sizes", str(n), "--share", str(options.share)]
                done = subprocess.run([*command, "--one", str(path), source], check=True, stdout=subprocess.PIPE)
                keep(results, "rows", json.loads(done.stdout.splitlines()[-1]), ("d", "n", "source", "share"))
        finally:
            path.unlink(missing_ok=True)


def read() -> dict[str, Any]:
    """The results that there are."""
    return json.loads(OUT.read_text()) if OUT.exists() else {"rows": [], "accuracy": []}


def render(results: dict[str, Any]) -> None:
    """Put both tables into the page, between their marks."""
    heads = ["examples", "width", "read from", "file, GB", "processor seconds", "seconds", "memory beside the file, GB"]
    lines = [f"| {' | '.join(heads)} | values right |", "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in results["rows"]:
        right = "none planted" if row["groups_right"] is None else f"{row['groups_right']:.4f}"
        cells = [
            f"{row['n']:,}",
            str(row["d"]),
            row["source"],
            f"{row['input_bytes'] / 1e9:.2f}",
            str(row["cpu_seconds"]),
            str(row["seconds"]),
            f"{row['peak_memory_bytes'] / 1e9:.2f}",
            right,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    between("streaming", lines)
    seconds = results["parts"]
    between(
        "streaming_parts",
        [
            "What takes the time, in seconds of one thread per million examples of width 768 and 256 components: the",
            f"projection on the components ({seconds['projection']}), the conversion from half precision "
            f"({seconds['conversion']}),",
            f"the sums of `k x k` products ({seconds['products']}), and reading the file twice.",
        ],
    )
    heads = ["head that all rows choose", "fitted to all rows", "to a sample", "head that the sample chooses"]
    lines = [f"| draw | {' | '.join(heads)} | values right, all rows | sample |", "| ---: | --- |" + " ---: |" * 5]
    for row in results["accuracy"]:
        whole, part = row["all"], row["sample"]
        worst = (whole["worst_group"], part["worst_group_same_head"], part["worst_group"])
        cells = [str(row["draw"]), whole["head"], *(f"{value:.3f}" for value in worst)]
        lines.append(f"| {' | '.join(cells)} | {whole['groups_right']:.4f} | {part['groups_right']:.4f} |")
    between("streaming_accuracy", lines)


def between(mark: str, lines: list[str]) -> None:
    """Replace what stands between two marks of the page."""
    text = PAGE.read_text()
    before, rest = text.split(f"<!-- {mark} -->\n")
    after = rest.split(f"<!-- /{mark} -->")[1]
    PAGE.write_text(f"{before}<!-- {mark} -->\n" + "\n".join(lines) + f"\n<!-- /{mark} -->{after}")


def keep(results: dict[str, Any], part: str, row: dict[str, Any], key: tuple[str, ...]) -> None:
    """Write the results with a new row, in place of the one with the same key."""
    print(json.dumps(row), flush=True)
    results |= read()  # another measurement may have written meanwhile
    results[part] = [old for old in results[part] if any(old[name] != row[name] for name in key)] + [row]
    results[part].sort(key=lambda one: [one[name] for name in key])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results, indent=1) + "\n")
    render(results)


if __name__ == "__main__":
    main()
