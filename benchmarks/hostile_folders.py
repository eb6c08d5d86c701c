"""Read damaged and hostile folders of runs in every way: how many give the sound result, an error by name, or a fault.

    python benchmarks/hostile_folders.py                          # all cases in all ways, some minutes
    python benchmarks/hostile_folders.py --every 20 --out /tmp/hostile.json

The cases and the ways are those of `tests/support/hostile_folders.py`; a fault (a foreign error out of this package,
code that was run, another result in silence) ends this with status 1.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from hostile_folders import Ways, allowed, make_run, read_all
from reader_models import save_texts
from report_runs import save_roberta
from transformers.utils import logging

from aifs_peft.experiments.provenance import provenance

OUT = Path(__file__).parent / "results" / "hostile_folders.json"


def main() -> int:
    """Write the figures; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="one case in so many")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    begin, counts, faults = time.monotonic(), {}, []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        ways = make_run(save_roberta(folder / "base"), save_texts(folder / "texts"), folder)
        (folder / "cases").mkdir()
        for way in (*Ways.PYTHON, *Ways.COMMANDS):
            done = read_all(ways, way, given.every, folder / "cases")
            counts[way] = dict(sorted(Counter(word for _, word, _ in done).items()))
            faults += [[way, *row] for row in done if row[1] not in allowed(way, row[0])]
            print(way, counts[way], file=sys.stderr, flush=True)
    result = {
        "cases": sum(sum(told.values()) for told in counts.values()), "outcomes": counts, "faults": faults,
        "command": f"python benchmarks/hostile_folders.py --every {given.every}",
        "minutes": round((time.monotonic() - begin) / 60, 1), "provenance": provenance(),
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(main())
