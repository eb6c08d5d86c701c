"""Kill trainings at random moments, damage their checkpoints: each must go on bit for bit, or be refused by name.

    make soak                                         # 200 kills, every file damaged in three ways
    python benchmarks/reliability.py --kills 8 --draws 1 --out /tmp/reliability.json

Each kill: SIGKILL at a moment drawn evenly over the steps of the training, up to two steps' time after one (of two
processes, to one of them), then resumed with True and compared with the uninterrupted run: weights, buffers, optimizer
and history, by SHA-256.
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
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from checkpoint_damage import DAMAGE, files_of
from reliability_runs import ERROR, KINDS, RESULT, Training, fork, quiet, wait

from aifs_peft.experiments.provenance import provenance

# Enough for every kind of file: mid-epoch latents of one and two processes, mask, directions, optimizer.
DAMAGED = [("paper, LoRA", 1), ("paper, LoRA", 2), ("discovery, LoRA", 1)]
PARTS = [
    ("kills", "SIGKILL at a random moment, resumed with `True`", "kills"),
    ("terminations", "SIGTERM at a random moment, resumed with `True`", "SIGTERM"),
    ("damage", "a file of a checkpoint cut short, deleted, or with one bit flipped", "cases"),
]
BEGIN, END = "<!-- figures of benchmarks/results/reliability.json -->", "<!-- end of figures -->"
DOCS = Path(__file__).parents[1] / "docs" / "reliability.md"
OUT = Path(__file__).parent / "results" / "reliability.json"


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Moment:
    """When a signal is sent: some seconds after a checkpoint is there, so that a busy machine does not shift it.

    Args:
        step: of the checkpoint; 0 is the beginning of the run.
        delay: seconds.
    """

    step: int
    delay: float

    def wait(self, folder: Path, process: int) -> None:
        """Wait for it, or for the end of the process."""
        while self.step and _steps(folder) < self.step and os.waitid(os.P_PID, process, ENDED) is None:
            time.sleep(0.002)
        time.sleep(self.delay)


# Asks whether a process has ended, and leaves it to be waited for.
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def _steps(folder: Path) -> int:
    return max((int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")), default=0)


def drawn_moment(draw: random.Random, first: int, whole: tuple) -> Moment:
    """Any step of a run from `first` on but the last, and up to twice the time of a step after its checkpoint."""
    results_, seconds, _ = whole
    steps = results_[0]["steps"]
    step = draw.randrange(first, steps)
    return Moment(step, draw.uniform(0, 2 * seconds / steps if step else seconds / 2))


def run(
    training: Training, out: Path, moment: Moment | None = None, victim: int = 0, number: int = signal.SIGKILL
) -> dict:
    """Run all processes of a training; what they left, and how long it took them to end after the signal."""
    port = free_port()
    processes = [fork(training, rank, out / str(rank), port) for rank in range(training.world_size)]
    killed = 0.0
    if moment is not None:
        moment.wait(training.folder, processes[victim])
        killed = time.monotonic()
        os.kill(processes[victim], number)
    seconds, statuses = wait(processes)
    found = {"statuses": statuses, "seconds": seconds, "after_kill": time.monotonic() - killed if killed else None}
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


def kills(count: int, until: float, wholes: dict, folder: Path, seed: int, keep) -> None:
    """Kill, resume, compare."""
    draw, tally, problems, slowest = random.Random(seed), Counter(), [], 0.0
    keys = list(wholes)
    for number in range(count):
        if time.monotonic() > until:
            break
        kind, world = keys[number % len(keys)]
        wanted = wholes[kind, world][0]
        place = folder / f"kill-{number}"
        moment, victim = drawn_moment(draw, 0, wholes[kind, world]), draw.randrange(world)
        killed = run(Training(kind, place / "run", world_size=world), place / "first", moment, victim)
        case = {"kind": kind, "processes": world, "moment": str(moment), "number": number, "victim": victim}
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
        if not problems or problems[-1]["number"] != number:
            shutil.rmtree(place, ignore_errors=True)
        found = {"planned": count, "counts": dict(tally), "problems": problems}
        keep("kills", {**found, "seconds_until_the_other_ended": round(slowest, 2)})


def terminations(count: int, wholes: dict, folder: Path, seed: int, keep) -> None:
    """SIGTERM, status, resume, compare."""
    draw, tally, problems = random.Random(seed), Counter(), []
    keys = list(wholes)
    for number in range(count):
        kind, world = keys[number % len(keys)]
        wanted = wholes[kind, world][0]
        place = folder / f"term-{number}"
        moment, victim = drawn_moment(draw, 1, wholes[kind, world]), draw.randrange(world)
        ended = run(Training(kind, place / "run", world_size=world), place / "first", moment, victim, signal.SIGTERM)
        tally["SIGTERM"] += 1
        if results(ended) == wanted:
            tally["came after the end"] += 1
        elif -signal.SIGTERM in ended["statuses"] and not list((place / "run").glob("checkpoint-*")):
            tally["came before training, which it ended"] += 1
        else:
            last = _steps(place / "run") == _steps(wholes[kind, world][2])
            again = run(Training(kind, place / "run", True, world), place / "second")
            if last and -signal.SIGTERM in ended["statuses"] and results(again) == wanted:
                # Once training is over its handler is gone, and the process ends as any program does.
                tally["came after the last step, went on bit-equal"] += 1
            elif set(ended["statuses"]) == {143} and results(again) == wanted:
                tally["all processes ended with 143, resumed and ended bit-equal"] += 1
            else:
                error = [*ended[ERROR], *again[ERROR]]
                problems.append({"kind": kind, "processes": world, "moment": str(moment), **ended, "error": error})
        keep("terminations", {"planned": count, "counts": dict(tally), "problems": problems})


def damage(draws: int, until: float, wholes: dict, folder: Path, seed: int, keep) -> None:
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
        keep("damage", {"planned": len(cases), "counts": dict(tally), "problems": problems})


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
    parser.add_argument("--docs", action="store_true", help="write the table of docs/reliability.md")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    quiet()
    started = time.monotonic()
    report = {
        "command": f"python benchmarks/reliability.py --kills {options.kills} --terminations {options.terminations} "
        f"--draws {options.draws} --minutes {options.minutes:g} --seed {options.seed} "
        f"--processes {' '.join(map(str, options.processes))} --kinds {' '.join(map(repr, options.kinds))}",
        "provenance": provenance(),
    }

    def keep(part: str, found: dict) -> None:
        """Written after every case, so that a run that is cut short keeps what it has."""
        report.update({part: found, "minutes": round((time.monotonic() - started) / 60, 1)})
        options.out.write_text(json.dumps(report, indent=2) + "\n")
        print(f"{part}: {found['counts']} of {found['planned']}, {len(found['problems'])} problems", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="reliability") as name:
        folder = Path(name)
        wholes = whole_runs(options.kinds, options.processes, folder)
        common = (wholes, folder, options.seed, keep)
        kills(options.kills, started + 36 * options.minutes, *common)
        terminations(options.terminations, *common)
        damage(options.draws, started + 60 * options.minutes, *common)
    parts = {part: report[part] for part in ("kills", "terminations", "damage") if part in report}
    print(json.dumps(parts, indent=2))
    if options.docs:
        write_figures(report)
    return 1 if any(part["problems"] for part in parts.values()) else 0


def write_figures(report: dict) -> None:
    """Put the table of a report into `docs/reliability.md`."""
    rows = [
        f"| {title} | {report[part]['counts'].get(total, 0)} of {report[part]['planned']} "
        f"| {'; '.join(f'{n} {what}' for what, n in report[part]['counts'].items() if what != total)} "
        f"| {len(report[part]['problems'])} |"
        for part, title, total in PARTS
        if part in report
    ]
    lost = report["kills"]["seconds_until_the_other_ended"]
    where = report["provenance"]["hardware"]
    table = "\n".join(
        [
            BEGIN,
            "",
            "| what | done, of those planned | what came of it | anything else |",
            "|---|---|---|---|",
            *rows,
            "",
            f"After one of two processes was killed, the other ended within {lost} s at most. Measured in "
            f"{report['minutes']} minutes on {where['cpu_count']} cores ({where['machine']}) by `{report['command']}`.",
            "",
            END,
        ]
    )
    text = DOCS.read_text()
    DOCS.write_text(text[: text.index(BEGIN)] + table + text[text.index(END) + len(END) :])


if __name__ == "__main__":
    raise SystemExit(main())
