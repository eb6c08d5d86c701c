"""Malformed files, command lines and adapter configurations for the fuzzer."""

import contextlib
import functools
import io
import json
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st
from mutations import damage, mutate_bytes
from own_data import write_pictures
from own_files import CASES, FRAME, odd_frame

import aifs_peft
from aifs_peft import AIFSConfig, cli
from aifs_peft.cli import options
from aifs_peft.data import from_table, load_own
from aifs_peft.errors import AIFSError

PACKAGE = Path(aifs_peft.__file__).parent
_SEEDS = st.integers(0, 2**32 - 1)
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 0.5, -0.1, 1e300, float("nan"), float("inf"), 10**30, "", " ", "x", "a,b", "none",
    "all", "auto", "true", "1", "-1", "0.5", "1e400", "../..", "/etc/passwd", "/dev/null", "no/such", "~", "\0", "é",
    "[1]", "{}", '{"a": 1}', "{", [], [1], ["x"], [None], {}, {"a": 1}, {"a": {"b": []}}, "a" * 5000, "9" * 5000,
]  # fmt: skip
COLUMNS = [*FRAME.columns, "split", "nowhere", "", None, 3, ["age"], ["age", "case"], "all", "none"]
# Whole YAML files that are no options.
SNIPPETS: list[bytes] = [
    b"", b"3", b"- a\n- b", b"a", b"{", b"[", b"\xff\xfe", b"\0", b"a: b: c", b"? a\n? b",
    b"!!python/object:os.system {}",
    b"!!python/object/apply:os.system ['true']", b"epochs: 1\nepochs: 2", b"<<: 3", b"<<: [1]\nepochs: 1",
    b"a: &a [x]\nb: *a", b"epochs: *nowhere", b"epochs: 2026-02-31", b"epochs: 0x", b"epochs: 1e999", b"{[]: 1}",
    b"{{}: 1}", b"epochs: !!int x", b"epochs: !!float x", b"epochs: !!binary x", b"epochs: !!timestamp x",
    b"epochs: !!set {a}", b"epochs: !!bool x", b"epochs: " + b"9" * 5000, b"[" * 3000, b"{a: " * 3000, b"null: 1",
    b"true: 1", b"1: 1",
    b"~: ~", b"%YAML 9.9\n---\nepochs: 1", b"---\na: 1\n---\nb: 2", b"epochs: |\n  1", b"\tepochs: 1", b"epochs: '1",
    b"\xef\xbb\xbfepochs: 1",
    b"seed: &a [1, *a]", b"dataset_options: &a {x: *a}",
    b"a: &a [l, l, l, l, l, l, l, l]\n" + b"".join(
        b"%c: &%c [%s]\n" % (c + 1, c + 1, b", ".join([b"*%c" % c] * 8)) for c in range(ord("a"), ord("j"))
    ) + b"dataset_options: *j",
    b"dataset_options:\n  a: &a [l, l, l, l, l, l, l, l]\n" + b"".join(
        b"  %c: &%c [%s]\n" % (c + 1, c + 1, b", ".join([b"*%c" % c] * 8)) for c in range(ord("a"), ord("j"))
    ) + b"epochs: 0\n",
]  # fmt: skip


@functools.cache
def _work() -> Path:
    """A folder for this process, with every kind of sound table in it."""
    work = Path(tempfile.mkdtemp(prefix="fuzz"))
    for case, (name, write, _, _) in CASES.items():
        write_pictures(work / case, FRAME["path"].tolist())
        write(work / case / name)
    return work


@contextlib.contextmanager
def _folder(sound: Path | None = None) -> Iterator[Path]:
    """A folder of a case: empty, or with what lies in another."""
    place = Path(tempfile.mkdtemp(dir=_work()))
    try:
        if sound is not None:
            shutil.copytree(sound, place, dirs_exist_ok=True)
        yield place
    finally:
        shutil.rmtree(place)


def _odd_options(rng: np.random.Generator, known: dict[str, Any]) -> dict[str, Any]:
    """Options of own data, in half of all cases with one or two of another value."""
    chosen = dict(known)
    for _ in range(max(0, int(rng.integers(-2, 3)))):
        name = str(rng.choice([*("image", "text", "label", "features", "attribute", "group", "split", "root"),
                               *("test_share", "validation_share", "seed", "missing")]))  # fmt: skip
        pool = COLUMNS if rng.random() < 0.6 else ODD
        chosen[name] = pool[int(rng.integers(len(pool)))]
    return chosen


def read_table(drawn: tuple[str, int, bool]) -> None:
    """`load_own` of a damaged table, by its path or its folder's."""
    case, seed, by_name = drawn
    rng = np.random.default_rng(seed)
    name, _, table, known = CASES[case]
    with _folder(_work() / case) as folder:
        if rng.random() < 0.8:
            damage(folder / name, rng, table)
        splits = load_own(folder / name if by_name else folder, **_odd_options(rng, known))
        for part in splits.values():
            if len(part):
                part[0]


def read_frame(seed: int) -> None:
    """`from_table` of a frame in which some cells are anything, under any options."""
    rng = np.random.default_rng(seed)
    known = [
        {"text": "report", "label": "finding", "attribute": "scanner"},
        {"features": ["age"], "label": "finding", "attribute": "case", "missing": "drop"},
        {"image": "path", "label": "scanner", "missing": "drop"},
    ][int(rng.integers(3))]
    asked = {name: value for name, value in _odd_options(rng, known).items() if name != "group"}
    frame = odd_frame(rng)
    if rng.random() < 0.15:
        frame.columns = [frame.columns[0], *frame.columns[:-1]]
    if rng.random() < 0.1:
        frame = frame.iloc[: int(rng.integers(4))]
    from_table(frame, **asked)


def read_configuration(seed: int) -> None:
    """A YAML file of options of `aifs finetune`."""
    rng = np.random.default_rng(seed)
    known = list(options.build_parser().options)
    if rng.random() < 0.15:
        content = SNIPPETS[int(rng.integers(len(SNIPPETS)))]
    else:
        chosen = rng.choice([*known, "nonsense", "epochs"], int(rng.integers(1, 5)))
        given = {str(name): ODD[int(rng.integers(len(ODD)))] for name in chosen}
        content = yaml.safe_dump(given, allow_unicode=True).encode()
        if rng.random() < 0.2:
            content = mutate_bytes(content, rng)
    with _folder() as folder:
        (folder / "run.yaml").write_bytes(content)
        options.parse(["--config", str(folder / "run.yaml"), "--output-dir", str(folder / "run"), "--use-cpu"])


def _words(rng: np.random.Generator, known: list[str]) -> list[str]:
    out = []
    for _ in range(int(rng.integers(0, 5))):
        flag = "--" + str(rng.choice(known)).strip("_").replace("_", "-")
        value = ODD[int(rng.integers(len(ODD)))]
        word = value if isinstance(value, str) else json.dumps(value)
        out += [f"{flag}={word}"] if rng.random() < 0.3 else [flag, word] if rng.random() < 0.85 else [flag]
        if rng.random() < 0.05:
            out.append(word)
    return out


def parse_arguments(seed: int) -> None:
    """The words of `aifs finetune`, read and checked."""
    rng = np.random.default_rng(seed)
    words = _words(rng, list(options.build_parser().options))
    with _folder() as folder, contextlib.redirect_stdout(io.StringIO()):
        options.parse([word for word in words if word != "--help"] + ["--output-dir", str(folder), "--use-cpu"])


# The other commands read a folder first, and there is none; `demo` and `finetune` would train.
COMMANDS = ("audit", "evaluate", "predict", "report", "card", "methods", "doctor", "nonsense")
_OPTIONS = ["dataset", "model", "json", "quiet", "output", "data_dir", "image", "label", "part", "split", "use_cpu",
            "dataset_options", "method", "max_length", "seed", "batch_size", "nonsense"]  # fmt: skip


def call_command(seed: int) -> None:
    """A command of `aifs` in this process: 0, or one line on stderr and status 1 or 2."""
    rng = np.random.default_rng(seed)
    name = str(rng.choice(COMMANDS))
    words = [ODD[int(rng.integers(len(ODD)))] for _ in range(int(rng.integers(0, 3)))]
    argv = [name, *(str(word) for word in words), *_words(rng, _OPTIONS)]
    if name == "audit":
        argv += ["--dataset", "no/such/folder"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(argv)
    if status == 0 or (name == "doctor" and status == 1 and not err.getvalue()):
        return
    lines = [line for line in err.getvalue().splitlines() if line.startswith("error:")]
    assert status in (1, 2), f"status {status}"
    assert len(lines) == 1, err.getvalue()[-300:]
    raise RefusedError(lines[0])


class RefusedError(AIFSError):
    """A command said no, in one line and with a status of its own."""


def read_adapter_configuration(seed: int) -> None:
    """`AIFSConfig.from_pretrained` of a changed `adapter_config.json`."""
    rng = np.random.default_rng(seed)
    config = AIFSConfig(num_labels=2, task_type="SEQ_CLS")
    with _folder() as folder:
        config.save_pretrained(folder)
        file = folder / "adapter_config.json"
        if rng.random() < 0.25:
            file.write_bytes(mutate_bytes(file.read_bytes(), rng))
        else:
            content = json.loads(file.read_text())
            for name in rng.choice([*content, "nonsense"], int(rng.integers(1, 4))):
                value = ODD[int(rng.integers(len(ODD)))]
                content[str(name)] = value
            file.write_text(json.dumps(content))
        try:
            AIFSConfig.from_pretrained(folder)
        except AIFSError:
            raise
        except Exception as error:
            # PEFT reads the file, and refuses some before this package is asked.
            frames = traceback.extract_tb(error.__traceback__)
            if any(Path(frame.filename).is_relative_to(PACKAGE) for frame in frames):
                raise
            raise RefusedError(str(error)) from error


def _quietly(call: Callable[[Any], None]) -> Callable[[Any], None]:
    def run(drawn: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(drawn)

    return run


FILE_TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
    "load_own": (st.tuples(st.sampled_from(list(CASES)), _SEEDS, st.booleans()), _quietly(read_table)),
    "from_table": (_SEEDS, _quietly(read_frame)),
    "YAML of aifs finetune": (_SEEDS, _quietly(read_configuration)),
    "words of aifs finetune": (_SEEDS, _quietly(parse_arguments)),
    "commands of aifs": (_SEEDS, _quietly(call_command)),
    "adapter_config.json": (_SEEDS, _quietly(read_adapter_configuration)),
}
# Imported before the first case, whose time is limited.
_MODULES = ["pandas", "datasets", "transformers", "aifs_peft.training", *(f"aifs_peft.cli.{c}" for c in COMMANDS[:-1])]
for _name in _MODULES:
    import_module(_name)
