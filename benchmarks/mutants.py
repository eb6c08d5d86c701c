"""Mutation testing: small faults are put into the mathematics, and the tests of that folder must notice them.

    python benchmarks/mutants.py [--sample 300] [--seed 0] [--only aifs_peft/metrics/rates.py]

One mutant is one changed comparison, arithmetic operator, number, truth value, `and`/`or`, `not` or `return`, in
`latent/`, `metrics/` or `discovery/gate.py`; messages of errors, annotations and assertions for the type checker are
left alone. Mutants are drawn at random from all there are, the same for the same seed. For each, a forked process
imports the changed module and runs the tests that reach the changed line (found once, by coverage), fastest first,
until one fails. Results are kept as they come, so that a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
# Folder or file -> its tests.
AREAS = {
    "aifs_peft/latent": ["tests/latent"],
    "aifs_peft/metrics": ["tests/metrics"],
    "aifs_peft/discovery/gate.py": [
        "tests/discovery/test_discovery_gate.py", "tests/discovery/test_discovery_parts.py",
        "tests/discovery/test_discovery_two_classes.py", "tests/discovery/test_discovery_many_classes.py",
    ],
}  # fmt: skip
# Imported once, before any fork.
PRELOADED = ("torch", "numpy", "pandas", "scipy.stats", "sklearn.linear_model", "hypothesis", "pytest", "transformers",
             "peft", "datasets", "safetensors.torch", "evaluate", "captum.attr", "fairlearn.metrics")  # fmt: skip
LONGEST = 120.0
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        file: relative to the repository.
        line: where it is.
        number: of the fault in its file.
        before: the code as it is.
        after: as it is changed.
    """

    file: str
    line: int
    number: int
    before: str
    after: str


def changes(node: ast.AST, name: str) -> Iterator[ast.AST]:
    """What a node is changed into.

    Args:
        node: of the tree.
        name: of the function that it is in, empty outside.
    """
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[i] = SWAPPED[type(operator)]()  # type: ignore[call-overload]
            yield changed
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAPPED:
        changed = copy.deepcopy(node)
        changed.op = SWAPPED[type(node.op)]()  # type: ignore[assignment]
        yield changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        if not (isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)):
            yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1 if isinstance(node.value, int) else node.value * 2 or 1.0)
    elif isinstance(node, ast.Return) and name != "__repr__" and not is_none(node.value):
        yield ast.Return(ast.Constant(None))


def is_none(node: ast.AST | None) -> bool:
    """Whether an expression is None, written or not."""
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def skipped(parent: ast.AST, field: str, child: ast.AST) -> bool:
    """Whether a part of the tree is left alone: messages, annotations, documentation, what the type checker reads."""
    if isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if field in ("annotation", "returns", "decorator_list", "type_params"):
        return True
    if isinstance(parent, ast.If) and isinstance(parent.test, ast.Name) and parent.test.id == "TYPE_CHECKING":
        return True
    return isinstance(parent, ast.Call) and getattr(parent.func, "attr", getattr(parent.func, "id", "")) in (
        "warn", "warning", "cast", "TypeVar",
    )  # fmt: skip


def walk(node: ast.AST, name: str = "") -> Iterator[tuple[ast.AST, str, int | None, ast.AST, str]]:
    """Parent, field, position, child and function, in the order of the source, without what is skipped."""
    for field, value in ast.iter_fields(node):
        for position, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or skipped(node, field, child):
                continue
            inside = child.name if isinstance(child, ast.FunctionDef) else name
            yield node, field, position if isinstance(value, list) else None, child, inside
            yield from walk(child, inside)


def mutants_of(file: str) -> list[tuple[Mutant, str]]:
    """Every fault of a file, and the changed source.

    Args:
        file: relative to the repository.
    """
    tree = ast.parse((ROOT / file).read_text())
    found = []
    for parent, field, position, child, name in list(walk(tree)):
        for changed in changes(child, name):
            put(parent, field, position, changed)
            line = getattr(child, "lineno", getattr(parent, "lineno", 0))
            shown = [ast.unparse(ast.fix_missing_locations(ast.copy_location(n, child))) for n in (child, changed)]
            found.append((Mutant(file, line, len(found), *shown), ast.unparse(ast.fix_missing_locations(tree))))
            put(parent, field, position, child)
    return found


def put(parent: ast.AST, field: str, position: int | None, child: ast.AST) -> None:
    """Set a field of a node, or one entry of a field that is a list."""
    if position is None:
        setattr(parent, field, child)
    else:
        getattr(parent, field)[position] = child


def files_of(area: str) -> list[str]:
    """The files of an area."""
    path = ROOT / area
    return [path.relative_to(ROOT).as_posix() for path in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]


def tests_by_line(area: str) -> tuple[dict[str, dict[int, list[str]]], list[str]]:
    """For each file and line the tests that reach it, fastest first; and all tests of the area.

    Args:
        area: folder or file.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings, data, report = (Path(folder) / name for name in ("rc", "data", "times.json"))
        settings.write_text(f"[run]\ndata_file={data}\nsource={ROOT / 'aifs_peft'}\ndynamic_context=test_function\n")
        tests = [test for test in AREAS[area] if (ROOT / test).exists()]
        code = (
            "import json, pathlib, pytest, sys\n"
            "class Times:\n"
            "    seen = {}\n"
            "    def pytest_runtest_logreport(self, report):\n"
            "        key = report.nodeid.split('[')[0]\n"
            "        self.seen[key] = self.seen.get(key, 0.0) + report.duration\n"
            # Guarded, since a test that spawns a process has this file imported there.
            "if __name__ == '__main__':\n"
            f"    status = pytest.main(['-q', '-p', 'no:cacheprovider', *{tests!r}], plugins=[Times()])\n"
            f"    pathlib.Path({str(report)!r}).write_text(json.dumps(Times.seen))\n"
            "    sys.exit(int(status))\n"
        )
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", str(Path(folder) / "run.py")]
        (Path(folder) / "run.py").write_text(code)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
        if done.returncode != 0:
            sys.exit(f"the tests of {area} fail as they are:\n{done.stdout[-2000:]}\n{done.stderr[-1000:]}")
        times: dict[str, float] = json.loads(report.read_text())
        import coverage

        covered = coverage.CoverageData(str(data))
        covered.read()
        names = {f"{Path(key.split('::')[0]).stem}.{key.split('::')[-1]}": key for key in times}
        found: dict[str, dict[int, list[str]]] = {}
        for file in files_of(area):
            lines = covered.contexts_by_lineno(str(ROOT / file))
            found[file] = {
                line: sorted({names[c] for c in contexts if c in names}, key=lambda key: times[key])
                for line, contexts in lines.items()
            }
        return found, sorted(times, key=lambda key: times[key])


def environment() -> dict[str, str]:
    """Of the tests' processes."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from another source.

    Args:
        name: of the module.
        path: of its file.
        source: that it gets.
    """

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """The module, if it is the one."""
        del path, target
        if fullname != self.name:
            return None
        inner = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        from_file = importlib.util.spec_from_file_location
        return from_file(fullname, self.path, loader=self, submodule_search_locations=inner)

    def exec_module(self, module: Any) -> None:
        """Run the changed source."""
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def survives(mutant: Mutant, source: str, tests: list[str]) -> str:
    """What becomes of a mutant: "killed", "survived", "timeout", or "unreached" where no test comes by.

    Args:
        mutant: the fault.
        source: of the changed file.
        tests: that are run.
    """
    if not tests:
        return "unreached"
    child = os.fork()
    if child == 0:
        os.setsid()  # so that what a test starts can be ended with it
        os._exit(run_tests(mutant, source, tests))
    start = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        if time.monotonic() - start > LONGEST:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timeout"
        time.sleep(0.02)


def run_tests(mutant: Mutant, source: str, tests: list[str]) -> int:
    """In the forked process: import the changed module, run the tests until one fails."""
    import pytest

    path = ROOT / mutant.file
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    sys.meta_path.insert(0, Changed(name, path, source))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--tb=no", *tests]))
    except BaseException:  # noqa: BLE001 - whatever a mutant does, it was noticed
        return 3


def main() -> None:
    """Draw, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="mutants that are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a file, instead of all: every mutant of it, and no results are written")
    parser.add_argument("--areas", nargs="*", default=list(AREAS), choices=list(AREAS))
    parser.add_argument("--cache", type=Path, help="where results are kept as they come, to go on from")
    parser.add_argument("--again", action="store_true", help="run those that survived once more, with the tests of now")
    given = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    pool = [(area, m, s) for area in AREAS for file in files_of(area) for m, s in mutants_of(file)]
    drawn = random.Random(given.seed).sample(pool, min(given.sample, len(pool)))
    if given.only:
        drawn = [entry for entry in pool if entry[1].file == given.only]
    drawn = [entry for entry in drawn if entry[0] in given.areas or given.only]
    cache = given.cache or Path(tempfile.gettempdir()) / f"mutants_{given.seed}.json"
    known: dict[str, str] = json.loads(cache.read_text()) if cache.exists() and not given.only else {}
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    reached = {area: tests_by_line(area) for area in {area for area, *_ in drawn}}
    for area, (_, every) in reached.items():
        unchanged = files_of(area)[-1]
        left = survives(Mutant(unchanged, 0, 0, "", ""), (ROOT / unchanged).read_text(), every)
        if left != "survived":
            sys.exit(f"the tests of {area} do not pass in a forked process as they are ({left}); nothing can be said")
    for count, (area, mutant, source) in enumerate(drawn):
        key = f"{mutant.file}:{mutant.number}:{mutant.before}->{mutant.after}"
        if key in known and not (given.again and known[key] in ("survived", "unreached")):
            continue
        lines, every = reached[area]
        reach = lines[mutant.file].get(mutant.line)
        # Reached only while the module is imported: a constant, which any test may read.
        tests = every if reach == [] else reach or []
        known[key] = survives(mutant, source, tests)
        print(f"{count + 1}/{len(drawn)} {known[key]:9} {mutant.file}:{mutant.line} "
              f"{mutant.before[:50]!r} -> {mutant.after[:50]!r} ({len(tests)} tests)", flush=True)  # fmt: skip
        cache.write_text(json.dumps(known))
    report(given, pool, drawn, known)


def report(given: argparse.Namespace, pool: list[Any], drawn: list[Any], known: dict[str, str]) -> None:
    """Print the shares, and write them where all areas were drawn from."""
    outcome = [(area, mutant, known[f"{mutant.file}:{mutant.number}:{mutant.before}->{mutant.after}"])
               for area, mutant, _ in drawn]  # fmt: skip
    areas = {}
    for area in dict.fromkeys(area for area, *_ in outcome):
        got = [what for one, _, what in outcome if one == area]
        areas[area] = {"mutants": sum(1 for one, *_ in pool if one == area), "drawn": len(got),
                       "killed": sum(what in ("killed", "timeout") for what in got)}  # fmt: skip
    killed = sum(entry["killed"] for entry in areas.values())
    share = 100 * killed / max(len(outcome), 1)
    print(json.dumps(areas, indent=2), f"killed {killed} of {len(outcome)}: {share:.1f} %")
    if given.only or given.areas != list(AREAS):
        return
    left = [{**asdict(mutant), "what": what} for _, mutant, what in outcome if what not in ("killed", "timeout")]
    content = {
        "command": f"python benchmarks/mutants.py --sample {given.sample} --seed {given.seed}",
        "seed": given.seed, "mutants": len(pool), "drawn": len(outcome), "killed": killed, "areas": areas,
        "left": left,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
