"""Malformed arrays, configurations and options for the public functions: each a typed error or a documented acceptance.

    python benchmarks/fuzz.py --cases 20000                # figures of docs/reliability.md
    python benchmarks/fuzz.py --cases 500 --out /tmp/fuzz.json

Hypothesis draws the inputs; `tests/support/fuzzing.py` says what is drawn and what each call may answer. A foreign
error, or a call that takes longer than its limit, is a fault and ends this with status 1.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from fuzzing import TARGETS, fuzz

from aifs_peft.experiments.provenance import provenance

OUT = Path(__file__).parent / "results" / "fuzz.json"


def main() -> int:
    """Write the figures; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="per target")
    parser.add_argument("--minutes", type=float, default=10, help="a target that has had its share of these stops")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--further", action="store_true", help="add to the figures in --out, with another seed")
    given = parser.parse_args()
    begin, told = time.monotonic(), {}
    before = json.loads(given.out.read_text()) if given.further else {"targets": {}, "minutes": 0.0, "seeds": []}
    for number, name in enumerate(given.targets):
        left = given.minutes * 60 - (time.monotonic() - begin)
        told[name] = fuzz(name, given.cases, seed=given.seed, seconds=left / (len(given.targets) - number))
        for what, earlier in before["targets"].get(name, {}).items():
            told[name][what] = earlier + told[name][what]
        print(name, {k: v for k, v in told[name].items() if k != "faults"}, file=sys.stderr, flush=True)
        for fault in told[name]["faults"]:
            print("  ", fault, file=sys.stderr, flush=True)
    told = {**before["targets"], **told}
    result = {
        "cases": sum(t["cases"] for t in told.values()), "targets": told,
        "command": f"python benchmarks/fuzz.py --cases {given.cases} --minutes {given.minutes:g} --seed {given.seed}",
        "seeds": [*before["seeds"], given.seed],
        "minutes": round(before["minutes"] + (time.monotonic() - begin) / 60, 1), "provenance": provenance(),
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    return int(any(t["faults"] for t in told.values()))


if __name__ == "__main__":
    raise SystemExit(main())
