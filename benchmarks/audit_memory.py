"""What an audit of latents in a file holds in memory, called as a function and as a command.

python benchmarks/audit_memory.py --folder /var/tmp

Writes latents into the folder, audits them and deletes them. Every row is a process of its own. Memory is what the
process holds beside pages of files: the largest `RssAnon` that /proc/self/status showed, less what it showed before the
call (before it the package is imported and a small audit is made). Writes, row by row, to
benchmarks/results/performance/audit_memory.json (rows that are there already are left out) and puts the table into
docs/performance.md; `--render` does only that. Three minutes in all.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from discovery_streaming import BLOCK, Peak, between, held_memory, planted

OUT = Path("benchmarks/results/performance/audit_memory.json")
# What is audited, in which precision the latents are kept.
ROWS = (
    ("audit(memory map)", "float32"),
    ("audit(memory map)", "float16"),
    ("aifs audit, folder of .npy", "float32"),
    ("aifs audit, folder of .npy", "float16"),
    ("aifs audit, Parquet", "float32"),
)


def write_folder(folder: Path, n: int, width: int, dtype: str) -> None:
    """`Z.npy`, `y.npy` and a column of metadata, `site.npy`, that is the attribute for nine tenths of the rows."""
    y, a = planted(n, 0, 0.95)
    rng = np.random.default_rng([0, 1])
    Z = np.lib.format.open_memmap(folder / "Z.npy", mode="w+", dtype=dtype, shape=(n, width))
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        block = rng.standard_normal((rows.stop - start, width), dtype=np.float32)
        block[:, 0] += 5.0 * a[rows]
        block[:, 1] += 2.0 * y[rows]
        Z[rows] = block
    Z.flush()
    np.save(folder / "y.npy", y)
    np.save(folder / "site.npy", np.where(rng.random(n) < 0.9, a, rng.integers(0, 2, n)))


def write_parquet(folder: Path, path: Path) -> None:
    """The same as one Parquet file with a list column, row group by row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    Z, y, site = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("Z", "y", "site"))
    schema = pa.schema([("latents", pa.list_(pa.float32())), ("label", pa.int64()), ("site", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(y), BLOCK):
            rows = slice(start, min(start + BLOCK, len(y)))
            part = np.asarray(Z[rows], dtype=np.float32)
            ends = np.arange(0, part.size + 1, part.shape[1], dtype=np.int32)
            vectors = pa.ListArray.from_arrays(pa.array(ends), pa.array(part.ravel()))
            writer.write_table(pa.table([vectors, pa.array(y[rows]), pa.array(site[rows])], schema=schema))


def one(folder: Path, what: str) -> dict[str, Any]:
    """One audit in this process."""
    from aifs_peft import audit
    from aifs_peft.cli.audit import main as command

    rng = np.random.default_rng(0)
    audit(rng.normal(size=(300, 8)), rng.integers(0, 2, 300), metadata={"q": rng.integers(0, 2, 300)})
    source = folder / "latents.parquet" if what.endswith("Parquet") else folder
    load, wall, cpu, before = os.getloadavg()[0], time.perf_counter(), time.process_time(), held_memory()
    peak = Peak()
    peak.start()
    if what.startswith("aifs"):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            status = command([str(source), "--json", "--quiet", "--output-dir", str(folder / "run")])
        assert status == 0, status
        found = json.loads(shown.getvalue())
    else:
        Z, y, site = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("Z", "y", "site"))
        found = audit(Z, y, metadata={"site": site}).to_dict()
    wall, cpu, most = time.perf_counter() - wall, time.process_time() - cpu, peak.end()
    return {
        "n": found["looked_at"]["n"], "d": found["looked_at"]["d"], "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1), "peak_memory_bytes": most - before, "found": found["found"],
        "conflicting": found["n_conflicting"], "load_average": round(load, 1),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
    }  # fmt: skip


def render(rows: list[dict[str, Any]]) -> None:
    """Put the table into the page."""
    heads = ["examples", "width", "kept as", "looked at by", "file, GB", "processor seconds", "memory beside it, GB"]
    lines = [f"| {' | '.join(heads)} |", "| ---: | ---: | --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        sizes = (f"{row['input_bytes'] / 1e9:.2f}", str(row["cpu_seconds"]), f"{row['peak_memory_bytes'] / 1e9:.2f}")
        cells = [f"{row['n']:,}", str(row["d"]), row["dtype"], row["what"], *sizes]
        lines.append(f"| {' | '.join(cells)} |")
    between("audit_memory", lines)


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--render", action="store_true", help="only put the table into the page")
    parser.add_argument("--again", action="store_true", help="measure rows anew that are there already")
    parser.add_argument("--only", help="rows whose name holds this")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "WHAT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Ended from outside, too, it deletes its folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.one:
        print(json.dumps(one(Path(options.one[0]), options.one[1])))
        return
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    there = set() if options.again else {(row["what"], row["dtype"], row["n"], row["d"]) for row in rows}
    for dtype in () if options.render else ("float32", "float16"):
        wanted = [what for what, kept in ROWS if kept == dtype and (options.only or "") in what
                  and (what, dtype, options.examples, options.width) not in there]  # fmt: skip
        if not wanted:
            continue
        folder = Path(tempfile.mkdtemp(prefix="audit_memory_", dir=options.folder))
        try:
            write_folder(folder, options.examples, options.width, dtype)
            for what in wanted:
                if what.endswith("Parquet"):
                    write_parquet(folder, folder / "latents.parquet")
                command = [sys.executable, __file__, "--one", str(folder), what]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                size = folder / ("latents.parquet" if what.endswith("Parquet") else "Z.npy")
                row = {"what": what, "dtype": dtype, "input_bytes": size.stat().st_size}
                row |= json.loads(done.stdout.splitlines()[-1])
                print(json.dumps(row), flush=True)
                rows = [old for old in rows if (old["what"], old["dtype"]) != (what, dtype)] + [row]
                rows.sort(key=lambda row: ROWS.index((row["what"], row["dtype"])))
                options.out.write_text(json.dumps(rows, indent=1) + "\n")
        finally:
            shutil.rmtree(folder)
    if options.out == OUT:
        render(rows)


if __name__ == "__main__":
    main()
