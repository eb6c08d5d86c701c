"""Run in a fresh process: the commands that push, against a loopback Hub that says no in one way after another.

`python push_commands.py FOLDER` writes a list of `[fault, command, status, lines on stderr, files kept, files of the
run]`. HF_ENDPOINT is set here.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latents_npz import write_latents
from loopback_hub import LoopbackHub
from push_faults import FAULTS

FINETUNE = [
    "--dataset", "dominoes_latents", "--model", "identity", "--adapter", "none", "--num-train-epochs", "1", "--use-cpu",
    "--quiet", "--method", "erm", "--push-to-hub", "--hub-model-id", "me/adapter",
]  # fmt: skip
SCENES = ["--n-train", "12", "--n-validation", "4", "--n-test", "4", "--image-size", "16", "--push-to-hub", "me/scenes"]


def names_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def called(main: Callable[[list[str]], int], words: list[str]) -> tuple[int, list[str]]:
    """Exit status, and the lines on stderr."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = main(words)
    return status, errors.getvalue().strip().splitlines()


def main(folder: Path) -> None:
    """Print the outcomes."""
    hub = LoopbackHub().__enter__()
    os.environ["HF_ENDPOINT"] = hub.endpoint
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)  # where what was not pushed is kept
    warnings.simplefilter("ignore")
    from aifs_peft import _hub as hub_calls
    from aifs_peft.cli import finetune
    from aifs_peft.data.spurious_scenes import __main__ as scenes

    hub_calls._SECONDS = 0.5
    write_latents(folder)
    out: list[Any] = []
    for fault in FAULTS:
        hub.fault, hub.after = fault, 0
        if fault == "no listener":
            hub.__exit__()
        run = folder / "run"
        for command, call, words in (
            ("finetune", finetune.main, [*FINETUNE, "--data-dir", str(folder), "--output-dir", str(run)]),
            ("scenes", scenes.main, SCENES),
        ):
            status, lines = called(call, words)
            kept = list(folder.glob("aifs-push-*"))
            held = names_in(run) if run.exists() else []
            out.append([fault, command, status, lines, {str(place): names_in(place) for place in kept}, held])
            for place in [*kept, run]:
                shutil.rmtree(place, ignore_errors=True)
    sys.stdout.write("\n" + json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
