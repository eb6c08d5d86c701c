"""Run in a fresh process: every way to push and to load, against a loopback Hub that says no in one way after another.

`python push_faults.py FOLDER ROBERTA` writes a list of `[fault, way, type, message]`; the type is "" where nothing was
raised. HF_ENDPOINT is set here.
"""

import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loopback_hub import LoopbackHub

FAULTS = [401, 403, 404, 500, "dropped", "HTML", "silent", "no listener"]


def tried(way: str, call: Callable[[], Any]) -> list[str]:
    """What came of one call."""
    from aifs_peft.errors import AIFSError

    try:
        call()
    except AIFSError as error:
        return [way, type(error).__name__, str(error)]
    except Exception as error:  # noqa: BLE001 - the test says that there must be none
        return [way, f"foreign {type(error).__name__}", str(error)]
    return [way, "", ""]


def train_pushing(folder: Path, roberta: str) -> None:
    """A training that pushes its checkpoints, whose Hub went away after the repository was made."""
    from push_routes import make_trainer

    trainer = make_trainer(folder / "live", roberta, "erm", hub_model_id="me/live")
    # As `push_to_hub=True` leaves them while the Hub still answers.
    trainer.args.push_to_hub, trainer.hub_model_id, trainer.push_in_progress = True, "me/live", None
    trainer.train()
    assert len(list((folder / "live").glob("checkpoint-*"))) == 2
    shutil.rmtree(folder / "live")


def main(folder: Path, roberta: str) -> None:
    """Print the outcomes."""
    hub = LoopbackHub().__enter__()
    os.environ["HF_ENDPOINT"] = hub.endpoint
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)  # where what was not pushed is kept
    warnings.simplefilter("ignore")
    from push_routes import make_trainer

    from aifs_peft import _hub as hub_calls
    from aifs_peft.models import load_model
    from aifs_peft.report import attach_card, push_adapter, summary_from_trainer

    assert hub_calls._SECONDS == 60
    hub_calls._SECONDS = 0.5
    trainer = make_trainer(folder / "run", roberta, "erm", hub_model_id="me/trainer")
    trainer.train()
    summary, model = summary_from_trainer(trainer), trainer.adapted
    attach_card(model, summary, trainer.processing_class)
    out = []
    for fault in FAULTS:
        hub.fault, hub.after = fault, 0
        if fault == "no listener":
            hub.__exit__()
        told = [
            tried("trainer", trainer.push_to_hub),
            tried("model", lambda: model.push_to_hub("me/model")),
            tried("adapter", lambda: push_adapter(model, None, summary, "me/adapter")),
            tried("saved already", lambda: push_adapter(model, None, summary, "me/adapter", saved_in=folder / "run")),
            tried("made by a trainer", lambda: make_trainer(
                folder / "new", roberta, "erm", hub_model_id="me/new", push_to_hub=True)),
        ]  # fmt: skip
        if fault not in (500, "silent", "no listener"):  # huggingface_hub tries again for 20 seconds after these
            told.append(tried("load", lambda: load_model("me/base", modality="text", label_names=["a", "b"])))
        elif fault != "silent":
            told.append(tried("while training", lambda: train_pushing(folder, roberta)))
        if fault == 403:  # a token that may read: the repository is there, the commit is refused
            hub.after = 1
            told.append(tried("read only", trainer.push_to_hub))
        out += [[fault, *row] for row in told]
        kept = list(folder.glob("aifs-push-*"))
        assert len(kept) >= 3
        for place in kept:  # whole, ready to go up
            assert (place / "adapter_model.safetensors").is_file()
            assert (place / "README.md").is_file()
            shutil.rmtree(place)
        if fault == 401:
            hub.fault = None
            out.append(["none", *tried("bad name", lambda: push_adapter(model, None, summary, "me/a b/c?"))])
    sys.stdout.write("\n" + json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
