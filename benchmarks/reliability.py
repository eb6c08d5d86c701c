"""Kill trainings at random moments and damage their checkpoints; every run must go on bit for bit, or be refused by name.

    make soak                                         # 200 kills, every file damaged in three ways
    python benchmarks/reliability.py --kills 8 --draws 1 --out /tmp/reliability.json

Each kill: SIGKILL at a moment drawn evenly over the time the training takes (of two processes, one of them), then
resumed with True and compared with the uninterrupted run: weights, buffers, optimizer and history, by SHA-256.
Each damage: one file of one checkpoint is truncated, deleted, or has one bit flipped; resumed from this checkpoint by
its path, the run is equal or refused with the file's name and that of the last whole checkpoint; resumed with True, it
is equal.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from reliability_runs import ERROR, KINDS, RESULT, Training, fork, quiet, wait

from aifs_peft.experiments.provenance import provenance

# Enough for every kind of file: mid-epoch latents of one and two processes, mask, directions, optimizer.
DAMAGED = [("paper, LoRA", 1), ("paper, LoRA", 2), ("discovery, LoRA", 1)]
OUT = Path(__file__).parent / "results" / "reliability.json"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(training: Training, out: Path, kill_after: float | None = None, victim: int = 0) -> dict:
    """Run all processes of a training; what they left, and how long each took to end after the kill."""
    port = free_port()
    processes = [fork(training, rank, out / str(rank), port) for rank in range(training.world_size)]
    killed = 0.0
    if kill_after is not None:
        time.sleep(kill_after)
        killed = time.monotonic()
        os.kill(processes[victim], signal.SIGKILL)
    seconds = wait(processes)
    found = {"seconds": seconds, "after_kill": time.monotonic() - killed if killed else None}
    for name in (RESULT, ERROR):
        files = [out / str(rank) / name for rank in range(training.world_size)]
        found[name] = [file.read_text() if file.exists() else None for file in files]
    return found


def results(found: dict) -> list[dict] | None:
    return None if None in found[RESULT] else [json.loads(text) for text in found[RESULT]]


def whole_runs(world_sizes, folder: Path) -> dict:
    """The uninterrupted runs: results and seconds, by kind and number of processes. Each is run twice and must repeat."""
    found = {}
    for kind in KINDS:
        for world in world_sizes:
            place = folder / f"{kind}-{world}"
            first = run(Training(kind, place / "a", world_size=world), place / "out-a")
            second = run(Training(kind, place / "b", world_size=world), place / "out-b")
            assert results(first) is not None, first
            assert results(first) == results(second), f"{kind} on {world} processes does not repeat itself"
            found[kind, world] = (results(first), max(second["seconds"]), place / "a")
    return found


def kills(count: int, minutes: float, wholes: dict, folder: Path, seed: int) -> dict:
    """Kill, resume, compare."""
    draw, tally, problems, slowest = random.Random(seed), Counter(), [], 0.0
    keys, started = list(wholes), time.monotonic()
    for number in range(count):
        if time.monotonic() - started > 60 * minutes:
            break
        kind, world = keys[number % len(keys)]
        wanted, seconds, _ = wholes[kind, world]
        place = folder / f"kill-{number}"
        moment, victim = draw.uniform(0.2, 1.0) * seconds, draw.randrange(world)
        killed = run(Training(kind, place / "run", world_size=world), place / "first", moment, victim)
        case = {"kind": kind, "processes": world, "moment": round(moment, 3), "victim": victim}
        tally["kills"] += 1
        tally[f"on {world} processes"] += 1
        if results(killed) is not None:
            tally["came after the end"] += 1
        if world > 1 and results(killed) is None:
            slowest = max(slowest, killed["after_kill"])
            told = killed[ERROR][1 - victim]
            if killed["seconds"][1 - victim] is None:
                problems.append({**case, "problem": "the other process did not end"})
            elif told is not None and told.startswith("ProcessLostError"):
                tally["the other process said that one is lost"] += 1
            else:
                tally["the other process ended otherwise"] += 1
                problems.append({**case, "problem": "the other process did not say why it ended", "error": told})
        unfinished = list((place / "run").glob(".unfinished-*"))
        tally["left a half-written folder"] += bool(unfinished)
        has = any(path.name.startswith("checkpoint-") for path in (place / "run").glob("checkpoint-*"))
        tally["resumed from a checkpoint" if has else "came before the first checkpoint, started again"] += 1
        again = run(Training(kind, place / "run", True if has else None, world), place / "second")
        if results(again) is None:
            problems.append({**case, "problem": "refused to resume", "error": again[ERROR]})
        elif results(again) != wanted:
            differ = [name for name in wanted[0] if results(again)[0][name] != wanted[0][name]]
            problems.append({**case, "problem": "differs", "what": differ, "error": None})
        else:
            tally["ended bit-equal"] += 1
        if not problems or problems[-1].get("moment") != case["moment"]:
            shutil.rmtree(place, ignore_errors=True)
        print(f"kill {number + 1}/{count}: {dict(tally)}, {len(problems)} problems", file=sys.stderr)
    return {"counts": dict(tally), "seconds_until_the_other_ended": round(slowest, 2), "problems": problems}


def damage(draws: int, wholes: dict, folder: Path, seed: int) -> dict:
    """Every file of two checkpoints: truncated, deleted, a bit flipped."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
    from checkpoint_damage import DAMAGE, files_of

    draw, tally, problems = random.Random(seed), Counter(), []
    for (kind, world), (wanted, _, origin) in wholes.items():
        if (kind, world) not in DAMAGED:
            continue
        # One in mid-epoch, and the last but one, so that a whole one is beside either.
        names = sorted(origin.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        for checkpoint in (names[0], names[-2]):
            for name in files_of(checkpoint):
                for how, harm in DAMAGE.items():
                    for _ in range(1 if how == "deleted" else draws):
                        place = folder / "damage"
                        shutil.rmtree(place, ignore_errors=True)
                        shutil.copytree(origin, place / "run")
                        chosen = place / "run" / checkpoint.name
                        harm(chosen / name, draw.random())
                        case = {"kind": kind, "processes": world, "file": f"{checkpoint.name}/{name}", "damage": how}
                        tally["cases"] += 1
                        told = _judge(
                            run(Training(kind, place / "run", str(chosen), world), place / "out"), wanted, chosen, name
                        )
                        tally[told] += 1
                        if told not in ("equal", "refused, file and last whole checkpoint named"):
                            problems.append({**case, "problem": told})
                print(f"damage: {dict(tally)}, {len(problems)} problems", file=sys.stderr)
    return {"counts": dict(tally), "problems": problems}


def _judge(found: dict, wanted: list[dict], chosen: Path, name: str) -> str:
    if results(found) is not None:
        return "equal" if results(found) == wanted else "silently different"
    errors = [error or "" for error in found[ERROR]]
    if not all(error.startswith("CheckpointMismatchError") for error in errors):
        return f"another error: {errors[0][-300:]}"
    if not all(name in error and "last whole checkpoint beside it is" in error for error in errors):
        return f"not named: {errors[0][:300]}"
    return "refused, file and last whole checkpoint named"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=40, help="of kills; fewer than --kills where they are over")
    parser.add_argument("--draws", type=int, default=2, help="truncations and bit flips per file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    quiet()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reliability") as name:
        folder = Path(name)
        wholes = whole_runs(options.processes, folder)
        print(f"uninterrupted: {{ {', '.join(f'{k}: {v[1]:.1f} s' for k, v in wholes.items())} }}", file=sys.stderr)
        harmed = damage(options.draws, wholes, folder, options.seed) if options.draws else None
        report = {
            "kills": kills(options.kills, options.minutes, wholes, folder, options.seed),
            "damage": harmed,
            "command": f"python benchmarks/reliability.py --kills {options.kills} --draws {options.draws} "
            f"--seed {options.seed} --processes {' '.join(map(str, options.processes))}",
            "minutes": round((time.monotonic() - started) / 60, 1),
            "provenance": provenance(),
        }
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({name: report[name] for name in ("kills", "damage", "minutes")}, indent=2))
    bad = report["kills"]["problems"] + (report["damage"] or {"problems": []})["problems"]
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
