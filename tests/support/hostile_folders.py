"""Folders of runs as somebody hostile, or a bad disk, would leave them; and every way to read such a folder.

A case changes the files of a sound folder. Reading it must give the sound result, or an error: of this package, or of
PEFT and transformers where they refuse the folder before this package is asked. On the command line that is one line.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import struct
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, pipeline

import aifs_peft
from aifs_peft import cli
from aifs_peft.errors import AIFSError
from aifs_peft.tuner import find_aifs_layer

CONFIG, WEIGHTS, SUMMARY = "adapter_config.json", "adapter_model.safetensors", "summary.json"
AUDIT, TABLE, EXAMPLES = "audit/audit.json", "audit/conflicting.csv", "audit/examples.json"
TEXTS = ["you are good", "the is bad"]
# Written by what must not be run.
MARK = "RAN.txt"
SECONDS = 60
PACKAGE = Path(aifs_peft.__file__).parent
Case = Callable[[Path], None]


class Pickled:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def text(name: str, content: str | bytes) -> Case:
    """Another content for one file."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def missing(name: str) -> Case:
    return lambda folder: (folder / name).unlink()


def a_folder(name: str) -> Case:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def link(name: str, target: str) -> Case:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def fields(name: str, **values: Any) -> Case:
    """Other values for some keys of a JSON file; `...` takes the key away."""

    def change(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        data.update(values)
        (folder / name).write_text(json.dumps({k: v for k, v in data.items() if v is not ...}))

    return change


def tensors(change_all: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Case:
    """Other tensors in the adapter's file."""

    def change(folder: Path) -> None:
        saved = change_all(load_file(folder / WEIGHTS))
        save_file({name: value.contiguous() for name, value in saved.items()}, folder / WEIGHTS, {"format": "pt"})

    return change


def tensor(part: str, change_one: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    """Another value for the tensors with `part` in their name."""
    return tensors(lambda saved: {n: change_one(v) if part in n else v for n, v in saved.items()})


def renamed(old: str, new: str) -> Case:
    return tensors(lambda saved: {name.replace(old, new): value for name, value in saved.items()})


def without(part: str) -> Case:
    return tensors(lambda saved: {name: value for name, value in saved.items() if part not in name})


def cut(name: str, share: float) -> Case:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def header(change_one: Callable[[dict[str, Any]], Any]) -> Case:
    """Another header for the safetensors file, with the same body."""

    def change(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        told = json.loads(content[8 : 8 + size])
        changed = change_one(told)
        new = json.dumps(told if changed is None else changed).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])

    return change


def header_size(size: int) -> Case:
    def change(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", size) + content[8:])

    return change


def _shape(told: dict[str, Any], shape: list[int]) -> None:
    next(value for name, value in told.items() if name.endswith("aifs_state.groups"))["shape"] = shape


def pickled(name: str, *, keep: bool) -> Case:
    """A pickle with code in it, beside the safetensors file or in its place."""

    def change(folder: Path) -> None:
        if not keep:
            (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(Pickled(folder / MARK)))

    return change


def _first(column: str, value: str) -> Case:
    def change(folder: Path) -> None:
        lines = (folder / TABLE).read_text().splitlines()
        place = lines[0].split(",").index(column)
        cells = lines[1].split(",") if len(lines) > 1 else ["0"] * len(lines[0].split(","))
        cells[place] = value
        (folder / TABLE).write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")

    return change


NAN = float("nan")
SCRIPT = "<script>alert(1)</script>"
DEEP = "[" * 100_000 + "]" * 100_000
# What is no JSON object of the kind that is expected.
NO_JSON: dict[str, str | bytes] = {
    "empty": "", "not JSON": "{,}", "cut short": '{"peft_type": "AI', "a list": "[1, 2]", "a number": "3",
    "null": "null", "bytes that are not UTF-8": b"\xff\xfe\x00\x80", "a string": '"AIFS"',
    "too deep": DEEP,
    "an empty object": "{}", "zeros": b"\0" * 64,
}  # fmt: skip
# Of each kind of field of AIFSConfig, what it is not.
WRONG_FIELDS: dict[str, list[Any]] = {
    "lambda_": ["0.5", None, NAN, 10**400, -1, True, [0.5], {}], "gamma": ["x", float("inf")], "eps0": [0, "0"],
    "recipe": ["tree", 3, None, ["erm"], {}], "noise": [1, "uniform"], "mask_rule": [[], 0], "attribution": [True],
    "attribution_steps": [0, 1.5, 10**30, "8", True], "top_k": ["1", 0, 10**18], "ema_decay": [1.0, "0"],
    "head": [3, "tree", None], "head_hidden": ["8", -1], "auxiliary": [0, "x"], "pool": [[], "max"],
    "target_modules": [3, [], ["nowhere"], "..", {"a": 1}, [3], [""], ["classifier", "roberta"]],
    "encoder_adapter": [3, "LoRA", [], {}, {"peft_type": "NOPE"},
                        {"peft_type": "AIFS"}, {"peft_type": []}],
    "trained_modules": [3, [], [3], {"a": 1}], "num_labels": ["2", 0, 10**18, -1, 3, True],
    "labels": [3, [], ["a"], [1, 2], "ab", {"a": 1}, ["a", "b", "c"], [["a"], ["b"]]],
    "new_layers": [3, ["nowhere"], [3], "x"], "class_weights": ["x", [NAN, 1], [1]], "use_basis": ["yes", 3],
    "adversarial": ["yes", 1, [1]], "sensitivity_sign": [0, "1"],
    "state_shapes": [3, {"groups": [10**15]}, {"groups": "3"}, {"mask": [-1]}, [], {"nonsense": [3]}],
    "peft_type": ["LORA", "NOPE", 3, None, [], "aifs", "PROMPT_TUNING"], "task_type": [3, "NOPE", []],
    "inference_mode": ["yes", None], "revision": [3, "../..", []], "peft_version": [3, "9.9"],
    "auto_mapping": [3, {"base_model_class": "os.system", "parent_library": "os"}, []], "nonsense": [1],
    "base_model_name_or_path": [3, None, "", "../../../etc", "/etc", "http://127.0.0.1:9/x", "a/b/c/d", [], "~"],
}  # fmt: skip


# The same of the encoder's LoRA.
WRONG_LORA: dict[str, list[Any]] = {
    "r": [-1, 0, "8", 10**12, 1.5, NAN, [], 4], "lora_alpha": ["x", None, [], NAN],
    "target_modules": [3, "(", ["nowhere"], [], [3]], "lora_dropout": ["x", 2, -1, NAN], "nonsense": [1],
    "use_dora": [True, "yes", []], "init_lora_weights": ["nope", 3], "rank_pattern": [3, {"query": -1}],
    "bias": ["all", 3], "modules_to_save": [3, ["nowhere"]], "layers_to_transform": ["x", [99]],
}  # fmt: skip


def lora(name: str, value: Any) -> Case:
    def change(folder: Path) -> None:
        inner = json.loads((folder / CONFIG).read_text())["encoder_adapter"]
        fields(CONFIG, encoder_adapter={**inner, name: value})(folder)

    return change


def _config_cases() -> Iterator[tuple[str, Case]]:
    yield "config missing", missing(CONFIG)
    yield "config a folder", a_folder(CONFIG)
    yield "config a link to nothing", link(CONFIG, "nowhere.json")
    yield "config a link to itself", link(CONFIG, CONFIG)
    for kind, content in NO_JSON.items():
        yield f"config {kind}", text(CONFIG, content)
    for name, values in WRONG_FIELDS.items():
        for value in values:
            yield f"config {name}={value!r:.60}", fields(CONFIG, **{name: value})
    for name, values in WRONG_LORA.items():
        for value in values:
            yield f"config LoRA {name}={value!r:.60}", lora(name, value)


def _weight_cases() -> Iterator[tuple[str, Case]]:
    yield "weights missing", missing(WEIGHTS)
    yield "weights a folder", a_folder(WEIGHTS)
    yield "weights a link to nothing", link(WEIGHTS, "nowhere.safetensors")
    yield "weights a link to /dev/null", link(WEIGHTS, "/dev/null")
    yield "weights empty", text(WEIGHTS, b"")
    for share in (0.0005, 0.01, 0.1, 0.5, 0.9, 0.999):
        yield f"weights cut at {share}", cut(WEIGHTS, share)
    for size in (0, 2**20, 2**40, 2**63, 2**64 - 1):
        yield f"weights with a header of {size}", header_size(size)
    yield "weights with a header that is a list", header(lambda told: [1])
    yield "weights with an empty header", header(lambda told: {})
    for shape in ([10**15], [2**63], [-1], [1.5], "3", [2**32, 2**32]):
        yield f"weights with a shape {shape}", header(lambda told, shape=shape: _shape(told, shape))
    yield "weights, all NaN", tensor("", lambda v: v * NAN if v.is_floating_point() else v)
    yield "head NaN", tensor("aifs_head", lambda v: v * NAN)
    yield "head infinite", tensor("aifs_head", lambda v: v / 0)
    yield "LoRA NaN", tensor("lora_A", lambda v: v * NAN)
    yield "head integers", tensor("aifs_head", lambda v: v.long())
    yield "head complex", tensor("aifs_head", lambda v: v.to(torch.complex64))
    yield "head of booleans", tensor("aifs_head", lambda v: v > 0)
    yield "LoRA integers", tensor("lora_A", lambda v: v.to(torch.int8))
    yield "head of another shape", tensor("aifs_head", lambda v: v[:1])
    yield "head transposed", tensor("aifs_head", lambda v: v.T if v.ndim == 2 else v)
    yield "LoRA of another rank", tensor("lora_A", lambda v: v[:1])
    yield "LoRA transposed", tensor("lora_A", lambda v: v.T)
    yield "one tensor more", tensors(lambda saved: {**saved, "base_model.model.nowhere.weight": torch.ones(3)})
    yield "one LoRA tensor more", tensors(lambda saved: {
        **saved, "base_model.model.roberta.nowhere.lora_A.weight": torch.ones(3, 3)})  # fmt: skip
    yield "a weight of the base model", tensors(lambda saved: {
        **saved, "base_model.model.roberta.embeddings.word_embeddings.weight": torch.zeros(10, 16)})  # fmt: skip
    yield "head renamed", renamed("aifs_head", "aifs_tail")
    yield "all renamed", renamed("base_model", "model")
    yield "LoRA renamed", renamed("lora_A", "lora_C")
    yield "another layer", renamed("layer.0", "layer.7")
    yield "without head", without("aifs_head")
    yield "without state", without("aifs_state")
    yield "without mask", without("aifs_state.mask")
    yield "without LoRA", without("lora_")
    yield "without lora_B", without("lora_B")
    yield "without anything", without("")
    for name in ("mask", "basis", "groups", "num_updates", "displacements"):
        yield f"{name} negative", tensor(f"aifs_state.{name}", lambda v: -v - 5)
        yield f"{name} of another shape", tensor(f"aifs_state.{name}", lambda v: torch.zeros(3, 3, 3, dtype=v.dtype))
        yield f"{name} huge", tensor(f"aifs_state.{name}", lambda v: v + 2**60)
    yield "a pickle beside the weights", pickled("adapter_model.bin", keep=True)
    yield "a pickle for the weights", pickled("adapter_model.bin", keep=False)
    yield "a pickle named safetensors", pickled(WEIGHTS, keep=False)
    yield "pickled arguments", pickled("training_args.bin", keep=True)
    yield "a pickled base model", pickled("pytorch_model.bin", keep=True)


def _run_cases() -> Iterator[tuple[str, Case]]:
    yield "summary missing", missing(SUMMARY)
    yield "summary a folder", a_folder(SUMMARY)
    yield "card binary", text("README.md", b"\xff\x00\x80" * 99)
    yield "card a link to /etc/passwd", link("README.md", "/etc/passwd")
    for name in (SUMMARY, AUDIT, EXAMPLES, "what_if.json"):
        for kind, content in NO_JSON.items():
            yield f"{name} {kind}", text(name, content)
    for name, values in SUMMARY_FIELDS.items():
        for value in values:
            yield f"summary {name}={value!r:.60}", fields(SUMMARY, **{name: value})
    for name, values in AUDIT_FIELDS.items():
        for value in values:
            yield f"audit {name}={value!r:.60}", fields(AUDIT, **{name: value})
    for kind, content in {**NO_JSON, "script": f"row,label\n0,{SCRIPT}\n", "NaN": "row,label\nnan,nan\n"}.items():
        yield f"{TABLE} {kind}", text(TABLE, content)
    yield f"{TABLE} missing", missing(TABLE)
    yield f"{AUDIT} missing", missing(AUDIT)


SUMMARY_FIELDS: dict[str, list[Any]] = {
    "model": [3, None, "", "..", "/etc", "http://127.0.0.1:9/x", [], "mlp", "a/b/c"],
    "modality": ["sound", 3, None, "features", "image", []],
    "label_names": [3, [], ["a"], None, "ab", {"a": 1}, [1, 2], ["a", "b", "c"], [SCRIPT, "b"], ["a", "a"], [None, []]],
    "spec": [3, None, [], {}, {"revision": 3}, {"quantization": "5bit"}, {"max_length": -1}, {"max_length": "x"},
             {"dataset": "/etc"}, {"dataset": 3}, {"dataset_options": "x"}],
    "method": [3, None, "nope", SCRIPT, []],
    "comparison": [3, None, [], {}, {"rows": 3}, {"rows": [3]}, {"goes_with": 3},
                   {"sentences": SCRIPT}, {"rows": [{}]}],
    "metrics": [3, None, [], {}, {"groups": 3}, {"worst_group_accuracy": "x"}, {"worst_group_accuracy": NAN}],
    "history": [3, None, [3], [{}], [{"loss": "x"}], [{"loss": NAN, "epoch": NAN}], {}],
    "seed": ["x", None, 10**30, []], "config": [3, None, []], "state": [3, None, []], "selection": [3, None, []],
    "audit": [3, None, [], {"found": "yes"}], "dataset": [SCRIPT, 3, None], "versions": [3, SCRIPT, {"torch": []}],
}  # fmt: skip
AUDIT_FIELDS: dict[str, list[Any]] = {
    "found": ["yes", 3, None], "sentence": [SCRIPT, 3, None, []], "conflicting": [3, None, [3], [{}], [{"row": NAN}]],
    "associations": [3, [3], [{}]], "projection": [3, [3], [[NAN]]], "evidence": [3, NAN, {}], "cells": [3, [{}], None],
    "tokens": [[NAN], 3, [[SCRIPT]]], "label_names": [3, [], [SCRIPT]],
}  # fmt: skip
CASES = dict([*_config_cases(), *_weight_cases(), *_run_cases()])


# Of these, the Python ways read nothing.
OF_THE_RUN = ("summary", "audit", "what_if", "card")


def cases_for(way: str, every: int = 1) -> dict[str, Case]:
    """One case in `every` that this way of reading can meet, and all that carry code."""
    named = [(n, c) for n, c in CASES.items() if way in Ways.COMMANDS or not n.startswith(OF_THE_RUN)]
    return dict(named[::every]) | {name: case for name, case in named if "pickle" in name}


# The ways in. Each gives something to compare with the sound folder's.


def _logits(model: Any, tokens: dict[str, torch.Tensor]) -> list[Any]:
    with torch.no_grad():
        logits: list[Any] = model.eval()(**tokens).logits.double().numpy().round(6).tolist()
    return logits


class Ways:
    """Every way to read the folder of a run of RoBERTa on texts.

    Args:
        base: folder of the base model.
        sound: the folder as it was saved.
        inputs: a file of texts.
    """

    def __init__(self, base: Path, sound: Path, inputs: Path) -> None:
        self.base, self.sound, self.inputs = base, sound, inputs
        ids = torch.tensor([[0, 8, 9, 6, 2], [0, 4, 5, 7, 2]])
        self.tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def _base(self) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(self.base, num_labels=2)

    def peft_model(self, folder: Path) -> Any:
        return _logits(PeftModel.from_pretrained(self._base(), folder), self.tokens)

    def load_adapter(self, folder: Path) -> Any:
        model = PeftModel.from_pretrained(self._base(), self.sound)
        before = _logits(model, self.tokens)
        try:
            model.load_adapter(folder, "other")
            model.set_adapter("other")
            return _logits(model, self.tokens)
        finally:
            model.set_adapter("default")
            assert _logits(model, self.tokens) == before, "the adapter that was there changed"

    def auto_peft_model(self, folder: Path) -> Any:
        return _logits(AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=2), self.tokens)

    def pipeline(self, folder: Path) -> Any:
        made = pipeline("text-classification", model=str(folder), device="cpu")
        return [(row["label"], round(row["score"], 5)) for row in made(TEXTS)]

    def evaluate(self, folder: Path) -> Any:
        return _command(["evaluate", str(folder), "--use-cpu", "--quiet", "--json"])

    def predict(self, folder: Path) -> Any:
        return _command(["predict", str(folder), str(self.inputs), "--use-cpu", "--quiet"])

    def card(self, folder: Path) -> Any:
        return _command(["card", str(folder)])

    def report(self, folder: Path) -> Any:
        _command(["report", str(folder), "--output", str(folder / "out.html")])
        page = (folder / "out.html").read_text()
        assert SCRIPT not in page, "a script got into the report"
        return "a report"

    PYTHON = ("peft_model", "load_adapter", "auto_peft_model", "pipeline")
    COMMANDS = ("evaluate", "predict", "card", "report")


def plant(base: Path, folder: Path) -> None:
    """Give the adapter of a short run weights and a state of some size, so that losing any of them shows."""
    model = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base, num_labels=2), folder)
    generator = torch.Generator().manual_seed(0)
    saved = load_file(folder / WEIGHTS)
    for name, value in saved.items():
        if "aifs_state" not in name:
            saved[name] = torch.randn(value.shape, generator=generator)
    save_file(saved, folder / WEIGHTS, {"format": "pt"})
    model.load_adapter(folder, "planted")
    model.set_adapter("planted")
    state = find_aifs_layer(model).state
    d = state.dim
    beta = torch.eye(d)[:2] - torch.eye(d)[:2].mean(0)
    state.update(
        mask=torch.ones(1), basis=(beta[:1] / beta[0].norm()).T, displacements=beta, centre=torch.zeros(d),
        class_displacements=torch.eye(d)[2:4] - torch.eye(d)[2:4].mean(0), groups=torch.arange(72) % 2,
        reader=torch.cat([4 * beta, torch.zeros(2, 1)], dim=1),
    )  # fmt: skip
    model.save_pretrained(folder, selected_adapters=["planted"])
    for name in (CONFIG, WEIGHTS):
        (folder / "planted" / name).replace(folder / name)
    shutil.rmtree(folder / "planted")


class RefusedError(Exception):
    """A command said no, in one line and with a status of its own."""


def _command(argv: list[str]) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(argv)
    if status == 0:
        return out.getvalue()
    lines = [line for line in err.getvalue().splitlines() if line.startswith("error:")]
    assert status in (1, 2), status
    assert len(lines) == 1, err.getvalue()
    raise RefusedError(lines[0])


def _late(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _passed_through_here(error: BaseException) -> bool:
    """Whether this package had the matter in its hands when the error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).is_relative_to(PACKAGE) for frame in frames)


def allowed(way: str, case: str) -> set[str]:
    """What may come of reading a case in some way; each exception has its reason."""
    words = {"equal", "refused"}
    if way in Ways.PYTHON:
        words.add("refused by others")
        if case == "config peft_type='LORA'":  # then PEFT makes a LoRA of it, and warns of the fields it does not know
            words.add("different")
    if way == "pipeline" and (" integers" in case or " of booleans" in case or case == "a weight of the base model"):
        # transformers' own loader turns them into other numbers, or loads them, before this package looks.
        words.add("different")
    if way == "card" and case.startswith("summary"):  # it says what the summary says
        words.add("different")
    return words


def read_all(ways: Ways, way: str, every: int, work: Path) -> list[tuple[str, str, str]]:
    """Every case in one way: its name, the word of `outcome`, and what was said.

    Args:
        ways: with the sound folder.
        way: name of a method of it.
        every: see `cases_for`.
        work: an empty folder; it is empty again afterwards.
    """
    read, done = getattr(ways, way), []
    expected = read(ways.sound)
    for name, case in cases_for(way, every).items():
        folder = work / "case"
        shutil.copytree(ways.sound, folder)
        case(folder)
        here = expected.replace(str(ways.sound), str(folder)) if isinstance(expected, str) else expected
        word, said = outcome(read, folder, here, folder)
        done.append((name, word, " ".join(said.split()).replace(str(work), "")[:200]))
        shutil.rmtree(folder)
    return done


def make_run(base: Path, texts: Path, folder: Path) -> Ways:
    """A short run of RoBERTa on texts, with weights and state of some size."""
    columns = json.dumps({"text": "sentence", "label": "verdict", "group": "kind"})
    argv = ["--model", str(base), "--dataset", str(texts), "--dataset-options", columns, "--epochs", "1",
            "--save-only-model", "--max-length", "16", "--use-cpu", "--quiet",
            "--output-dir", str(folder / "run")]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["finetune", *argv]) == 0
    shutil.rmtree(next((folder / "run").glob("checkpoint-*")), ignore_errors=True)
    plant(base, folder / "run")
    (folder / "new.txt").write_text("\n".join(TEXTS) + "\n")
    return Ways(base, folder / "run", folder / "new.txt")


def outcome(read: Callable[[Path], Any], folder: Path, expected: Any, mark: Path) -> tuple[str, str]:
    """What came of reading one folder: a word, and what was said.

    Returns:
        "equal", "different", "refused" (this package), "refused by others" or "fault", with the message.
    """
    before = signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            got = read(folder)
    except (RefusedError, AIFSError) as error:
        word, said = "refused", str(error)
    except TimeoutError as error:
        word, said = "fault", str(error)
    except Exception as error:  # noqa: BLE001 - sorting them is the point
        # PEFT and transformers refuse some folders before this package is asked.
        word = "fault" if isinstance(error, AssertionError) or _passed_through_here(error) else "refused by others"
        said = f"{type(error).__name__}: {error}"
    else:
        word = "equal" if _same(got, expected) else "different"
        said = "; ".join(str(w.message).splitlines()[0] for w in told) or "nothing said"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return ("fault", "code was run") if (mark / MARK).exists() else (word, said)


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(np.allclose(np.array(a, dtype=float), np.array(b, dtype=float), atol=1e-5))
    except (ValueError, TypeError):
        return bool(a == b)
