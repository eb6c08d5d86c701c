"""Kill trainings at random moments, damage their checkpoints: each must go on bit for bit, or be refused by name.

    make soak                                         # 200 kills, every file damaged in three ways
    python benchmarks/reliability.py --kills 8 --draws 1 --out /tmp/reliability.json

Each kill: SIGKILL at a moment drawn evenly over the time the training takes (of two processes, one of them), then
resumed with True and compared with the uninterrupted run: weights, buffers, optimizer and history, by SHA-256.
Each SIGTERM (of two processes, to one of them): all processes end with status 143 and a whole checkpoint, from which
the run goes on in the same way.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from checkpoint_damage import DAMAGE, files_of
from reliability_runs import ERROR, KINDS, RESULT, Training, fork, quiet, wait

from aifs_peft.experiments.provenance import provenance

# Enough for every kind of file: mid-epoch latents of one and two processes, mask, directions, optimizer.
DAMAGED = [("paper, LoRA", 1), ("paper, LoRA", 2), ("discovery, LoRA", 1)]
OUT = Path(__file__).parent / "results" / "reliability.json"


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(
    training: Training, out: Path, kill_after: float | None = None, victim: int = 0, number: int = signal.SIGKILL
) -> dict:
    """Run all processes of a training; what they left, and how long it took them to end after the signal."""
    port = free_port()
    processes = [fork(training, rank, out / str(rank), port) for rank in range(training.world_size)]
    killed = 0.0
    if kill_after is not None:
        time.sleep(kill_after)
        killed = time.monotonic()
        os.kill(processes[victim], number)
    seconds, statuses = wait(processes)
    found = {"seconds": seconds, "statuses": statuses, "after_kill": time.monotonic() - killed if killed else None}
    for name in (RESULT, ERROR):
        files = [out / str(rank) / name for rank in range(training.world_size)]
        found[name] = [file.read_text() if file.exists() else None for file in files]
    return found


def results(found: dict) -> list[dict] | None:
    """Of a training whose processes all came to the end."""
    return None if None in found[RESULT] else [json.loads(text) for text in found[RESULT]]


def whole_runs(kinds: list[str], world_sizes: list[int], folder: Path) -> dict:
    """The uninterrupted runs: results and seconds, by kind and number of processes. Each is run twice, and repeats."""
    found = {}
    for kind in kinds:
        for world in world_sizes:
            place = folder / f"{kind}-{world}"
            first = run(Training(kind, place / "a", world_size=world), place / "out-a")
            second = run(Training(kind, place / "b", world_size=world), place / "out-b")
            assert results(first) is not None, first
            assert results(first) == results(second), f"{kind} on {world} processes does not repeat itself"
            found[kind, world] = (results(first), max(second["seconds"]), place / "a")
    return found


def kills(count: int, until: float, wholes: dict, folder: Path, seed: int) -> dict:
    """Kill, resume, compare."""
    draw, tally, problems, slowest = random.Random(seed), Counter(), [], 0.0
    keys = list(wholes)
    for number in range(count):
        if time.monotonic() > until:
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
    found = {"planned": count, "counts": dict(tally), "problems": problems}
    return {**found, "seconds_until_the_other_ended": round(slowest, 2)}


def terminations(count: int, wholes: dict, folder: Path, seed: int) -> dict:
    """SIGTERM, status, resume, compare."""
    draw, tally, problems = random.Random(seed), Counter(), []
    keys = list(wholes)
    for number in range(count):
        kind, world = keys[number % len(keys)]
        wanted, seconds, _ = wholes[kind, world]
        place = folder / f"term-{number}"
        moment, victim = draw.uniform(0.4, 0.9) * seconds, draw.randrange(world)
        ended = run(Training(kind, place / "run", world_size=world), place / "first", moment, victim, signal.SIGTERM)
        tally["SIGTERM"] += 1
        if results(ended) == wanted:
            tally["came after the end"] += 1
            continue
        if set(ended["statuses"]) == {143}:
            tally["all processes ended with 143"] += 1
        elif -signal.SIGTERM in ended["statuses"] and not list((place / "run").glob("checkpoint-*")):
            tally["came before training, which it ended"] += 1
            continue
        again = run(Training(kind, place / "run", True, world), place / "second")
        if set(ended["statuses"]) == {143} and results(again) == wanted:
            tally["resumed and ended bit-equal"] += 1
        else:
            error = [*ended[ERROR], *again[ERROR]]
            problems.append({"kind": kind, "processes": world, "moment": moment, **ended, "error": error})
    print(f"SIGTERM: {dict(tally)}, {len(problems)} problems", file=sys.stderr)
    return {"counts": dict(tally), "problems": problems}


def damage(draws: int, until: float, wholes: dict, folder: Path, seed: int) -> dict:
    """Every file of two checkpoints: truncated, deleted, a bit flipped; in random order, so that a part is a sample."""
    draw, tally, problems = random.Random(seed), Counter(), []
    cases = [
        (key, checkpoint, name, how)
        for key in DAMAGED
        if key in wholes
        for checkpoint in _two_checkpoints(wholes[key][2])
        for name in files_of(checkpoint)
        for how in DAMAGE
        for _ in range(1 if how == "deleted" else draws)
    ]
    draw.shuffle(cases)
    for (kind, world), checkpoint, name, how in cases:
        if time.monotonic() > until:
            break
        wanted, _, origin = wholes[kind, world]
        place = folder / "damage"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(origin, place / "run")
        chosen = place / "run" / checkpoint.name
        DAMAGE[how](chosen / name, draw.random())
        told = _judge(run(Training(kind, place / "run", str(chosen), world), place / "out"), wanted, name)
        tally["cases"] += 1
        tally[told] += 1
        if told not in ("equal", "refused, file and last whole checkpoint named"):
            case = {"kind": kind, "processes": world, "file": f"{checkpoint.name}/{name}", "damage": how}
            problems.append({**case, "problem": told})
        print(f"damage: {dict(tally)} of {len(cases)}, {len(problems)} problems", file=sys.stderr)
    return {"planned": len(cases), "counts": dict(tally), "problems": problems}


def _two_checkpoints(origin: Path) -> tuple[Path, Path]:
    """One in mid-epoch, and the last but one, so that a whole one is beside either."""
    found = sorted(origin.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return found[0], found[-2]


def _judge(found: dict, wanted: list[dict], name: str) -> str:
    if results(found) is not None:
        return "equal" if results(found) == wanted else "silently different"
    errors = [error or "" for error in found[ERROR]]
    if not all(error.startswith("CheckpointMismatchError") for error in errors):
        return f"another error: {errors[0][-300:]}"
    if not all(name in error and "last whole checkpoint beside it is" in error for error in errors):
        return f"not named: {errors[0][:300]}"
    return "refused, file and last whole checkpoint named"


def main() -> int:
    """Measure, write the JSON; 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=55, help="for all; what is not done by then is left out, told")
    parser.add_argument("--draws", type=int, default=2, help="truncations and bit flips per file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--terminations", type=int, default=16)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    quiet()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reliability") as name:
        folder = Path(name)
        wholes = whole_runs(options.kinds, options.processes, folder)
        print(f"uninterrupted: {{ {', '.join(f'{k}: {v[1]:.1f} s' for k, v in wholes.items())} }}", file=sys.stderr)
        report = {
            "kills": kills(options.kills, started + 36 * options.minutes, wholes, folder, options.seed),
            "terminations": terminations(options.terminations, wholes, folder, options.seed),
            "damage": damage(options.draws, started + 60 * options.minutes, wholes, folder, options.seed),
            "command": f"python benchmarks/reliability.py --kills {options.kills} --draws {options.draws} "
            f"--minutes {options.minutes:g} --seed {options.seed} --processes {' '.join(map(str, options.processes))}",
            "minutes": round((time.monotonic() - started) / 60, 1),
            "provenance": provenance(),
        }
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({name: report[name] for name in ("kills", "terminations", "damage", "minutes")}, indent=2))
    return 1 if any(report[part]["problems"] for part in ("kills", "terminations", "damage")) else 0


if __name__ == "__main__":
    raise SystemExit(main())
