"""Kill trainings at random moments, damage their checkpoints: each must go on bit for bit, or be refused by name.

    make soak                                         # 200 kills, every file damaged in three ways
    python benchmarks/reliability.py --kills 8 --draws 1 --out /tmp/reliability.json

Each kill: SIGKILL at a moment drawn evenly over the steps of the training, up to two steps' time after one (of two
processes, to one of them), then resumed with True and compared with the uninterrupted run: weights, buffers, optimizer
and history, by SHA-256. Training takes little beside saving here (a checkpoint in every step), so many fall
while one is being written. A few are of `aifs finetune`, alone and by torchrun, in processes of their own.
Each SIGTERM (of two processes, to one of them): all processes end with status 143 and a whole checkpoint, from which
the run goes on in the same way.
Each damage: one file of one checkpoint is truncated, deleted, or has one bit flipped; resumed from this checkpoint by
its path, the run is equal or refused with the file's name and that of the last whole checkpoint.

`--further` goes on where an earlier run with the same numbers and seed has stopped.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from checkpoint_damage import DAMAGE, files_of
from reliability_commands import kill_commands
from reliability_runs import (
    ERROR,
    KINDS,
    RESULT,
    Moment,
    Training,
    fork,
    free_port,
    is_writing,
    quiet,
    steps_in,
    wait,
)

from aifs_peft.experiments.provenance import provenance

# Enough for every kind of file: mid-epoch latents of one and two processes, mask, directions, optimizer.
DAMAGED = [("paper, LoRA", 1), ("paper, LoRA", 2), ("discovery, LoRA", 1)]


@dataclass(frozen=True)
class Part:
    """A part of the measurement.

    Args:
        title: in the table.
        total: what counts its cases.
        share: of the time.
    """

    title: str
    total: str
    share: float


PARTS = {
    "kills": Part("SIGKILL at a random moment, resumed with `True`", "kills", 0.55),
    "terminations": Part("SIGTERM at a random moment, resumed with `True`", "SIGTERM", 0.1),
    "damage": Part("a file of a checkpoint cut short, deleted, or with one bit flipped", "cases", 0.2),
    "commands": Part("SIGKILL to `aifs finetune` in processes of its own, resumed with `True`", "kills", 0.15),
}
BEGIN, END = "<!-- figures of benchmarks/results/reliability.json -->", "<!-- end of figures -->"
DOCS = Path(__file__).parents[1] / "docs" / "reliability.md"
OUT = Path(__file__).parent / "results" / "reliability.json"


def drawn_moment(draw: random.Random, first: int, whole: tuple) -> Moment:
    """Any step of a run from `first` on but the last, and up to twice the time of a step after its checkpoint."""
    results_, seconds, _ = whole
    steps = results_[0]["steps"]
    step = draw.randrange(first, steps)
    return Moment(step, draw.uniform(0, 2 * seconds / steps if step else seconds / 2))


def begin(before: dict | None) -> tuple[Counter, list]:
    """Counts and problems of an earlier run, to go on from."""
    return Counter((before or {}).get("counts", {})), list((before or {}).get("problems", []))


def run(
    training: Training, out: Path, moment: Moment | None = None, victim: int = 0, number: int = signal.SIGKILL
) -> dict:
    """Run all processes of a training; what they left, and how long it took them to end after the signal."""
    port = free_port()
    processes = [fork(training, rank, out / str(rank), port) for rank in range(training.world_size)]
    killed, writing = 0.0, False
    if moment is not None:
        moment.wait(training.folder, processes[victim])
        killed, writing = time.monotonic(), is_writing(training.folder)
        os.kill(processes[victim], number)
    seconds, statuses = wait(processes)
    found = {"statuses": statuses, "seconds": seconds, "writing": writing}
    found["after_kill"] = time.monotonic() - killed if killed else None
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


def kills(count: int, wholes: dict, until: float, folder: Path, seed: int, keep, before) -> None:
    """Kill, resume, compare."""
    tally, problems = begin(before)
    slowest, keys = (before or {}).get("seconds_until_the_other_ended", 0.0), list(wholes)
    for number in range(tally["kills"], count):
        if time.monotonic() > until:
            break
        kind, world = keys[number % len(keys)]
        place, draw = folder / f"kill-{number}", random.Random(f"{seed}/{number}")
        moment, victim = drawn_moment(draw, 0, wholes[kind, world]), draw.randrange(world)
        killed = run(Training(kind, place / "run", world_size=world), place / "first", moment, victim)
        told = {"kind": kind, "processes": world, "moment": str(moment), "number": number, "victim": victim}
        tally["kills"] += 1
        tally[f"on {world} processes"] += 1
        tally["fell while a checkpoint was being written"] += killed["writing"]
        problem = None
        if results(killed) is not None:
            tally["came after the end"] += 1
        elif world > 1:
            slowest = max(slowest, killed["after_kill"])
            problem = _judge_the_other(killed, 1 - victim)
            tally["the other process said that one is lost"] += problem is None
        if problem is None:
            has = any((place / "run").glob("checkpoint-*"))
            tally["resumed from a checkpoint" if has else "came before the first checkpoint, started again"] += 1
            problem = _judge_resumed(run(Training(kind, place / "run", True if has else None, world), place / "again"),
                                     wholes[kind, world][0])  # fmt: skip
            tally["ended bit-equal"] += problem is None
        if problem is None:
            shutil.rmtree(place, ignore_errors=True)
        else:
            problems.append({**told, **problem})
        found = {"planned": count, "counts": dict(tally), "problems": problems}
        keep("kills", {**found, "seconds_until_the_other_ended": round(slowest, 2)})


def _judge_the_other(killed: dict, other: int) -> dict | None:
    """What was wrong with how the process ended that was not killed."""
    if killed["seconds"][other] is None:
        return {"problem": "the other process did not end"}
    said = killed[ERROR][other]
    if said is None or not said.startswith("ProcessLostError"):
        return {"problem": "the other process did not say why it ended", "error": said}
    return None


def _judge_resumed(again: dict, wanted: list[dict]) -> dict | None:
    """What was wrong with a run that went on."""
    if results(again) is None:
        return {"problem": "refused to resume", "error": again[ERROR]}
    if results(again) != wanted:
        return {"problem": "differs", "what": [n for n in wanted[0] if results(again)[0][n] != wanted[0][n]]}
    return None


def terminations(count: int, wholes: dict, until: float, folder: Path, seed: int, keep, before) -> None:
    """SIGTERM, status, resume, compare."""
    tally, problems = begin(before)
    keys = list(wholes)
    for number in range(tally["SIGTERM"], count):
        if time.monotonic() > until:
            break
        draw = random.Random(f"{seed}/terminations/{number}")
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
            last = steps_in(place / "run") == steps_in(wholes[kind, world][2])
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


def damage(draws: int, wholes: dict, until: float, folder: Path, seed: int, keep, before) -> None:
    """Every file of two checkpoints: truncated, deleted, a bit flipped; in random order, so that a part is a sample."""
    draw, (tally, problems) = random.Random(seed), begin(before)
    cases = [
        (key, checkpoint, name, how, draw.random())
        for key in DAMAGED
        if key in wholes
        for checkpoint in _two_checkpoints(wholes[key][2])
        for name in files_of(checkpoint)
        for how in DAMAGE
        for _ in range(1 if how == "deleted" else draws)
    ]
    draw.shuffle(cases)
    for (kind, world), checkpoint, name, how, where in cases[tally["cases"] :]:
        if time.monotonic() > until:
            break
        wanted, _, origin = wholes[kind, world]
        place = folder / "damage"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(origin, place / "run")
        chosen = place / "run" / checkpoint.name
        DAMAGE[how](chosen / name, where)
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
    parser.add_argument("--minutes", type=float, default=35, help="for all; what is not done by then is left out, told")
    parser.add_argument("--draws", type=int, default=2, help="truncations and bit flips per file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--terminations", type=int, default=16)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--commands", type=int, default=8, help="kills of `aifs finetune` in processes of their own")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--further", action="store_true", help="go on with the kills of the report that is in --out")
    parser.add_argument("--docs", action="store_true", help="write the table of docs/reliability.md")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    quiet()
    started = time.monotonic()
    report = {
        "command": f"python benchmarks/reliability.py --kills {options.kills} --commands {options.commands} "
        f"--terminations {options.terminations} --draws {options.draws} --minutes {options.minutes:g} "
        f"--seed {options.seed} --processes {' '.join(map(str, options.processes))} "
        f"--kinds {' '.join(map(repr, options.kinds))} --parts {' '.join(options.parts)}",
        "provenance": provenance(),
    }
    before = json.loads(options.out.read_text()) if options.further and options.out.exists() else {}
    minutes = before.get("minutes", 0.0)
    report = {**before, **report}

    def keep(part: str, found: dict) -> None:
        """Written after every case, so that a run that is cut short keeps what it has."""
        report.update({part: found, "minutes": round(minutes + (time.monotonic() - started) / 60, 1)})
        options.out.write_text(json.dumps(report, indent=2) + "\n")
        print(f"{part}: {found['counts']} of {found['planned']}, {len(found['problems'])} problems", file=sys.stderr)

    # A process that is killed loses nothing that it has written, in memory as on a disk, where fsync takes longer.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="reliability", dir=memory if memory.is_dir() else None) as name:
        folder, seed = Path(name), options.seed
        wholes = whole_runs(options.kinds, options.processes, folder) if set(options.parts) - {"commands"} else {}

        begun, end = time.monotonic(), started + 60 * options.minutes
        # Each part has its share of the time; what one leaves goes to the next.
        shares = list(accumulate(PARTS[part].share for part in options.parts))
        for part, share in zip(options.parts, shares, strict=True):
            until = begun + (end - begun) * share / shares[-1]
            common = (until, folder, seed, keep, before.get(part))
            match part:
                case "kills":
                    kills(options.kills, wholes, *common)
                case "terminations":
                    terminations(options.terminations, wholes, *common)
                case "damage":
                    damage(options.draws, wholes, *common)
                case "commands":
                    kill_commands(options.commands, *common)
    parts = {part: report[part] for part in PARTS if part in report}
    print(json.dumps(parts, indent=2))
    if options.docs:
        write_figures(report)
    return 1 if any(part["problems"] for part in parts.values()) else 0


def write_figures(report: dict) -> None:
    """Put the table of a report into `docs/reliability.md`."""
    rows = [
        f"| {told.title} | {report[part]['counts'].get(told.total, 0)} of {report[part]['planned']} "
        f"| {'; '.join(f'{n} {what}' for what, n in report[part]['counts'].items() if what != told.total)} "
        f"| {len(report[part]['problems'])} |"
        for part, told in PARTS.items()
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
