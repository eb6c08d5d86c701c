"""Every way to save or push writes the same honest card, and nothing that is a pickle, a path or an example."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from loopback_hub import LoopbackHub
from peft import get_peft_model
from report_runs import comparison, save_roberta, summary

from aifs_peft.errors import InvalidInputError
from aifs_peft.models import load_model
from aifs_peft.report import save_run
from aifs_peft.report.publish import publishable
from aifs_peft.tuner import AIFSConfig

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory):
    """Folder of the run, and what the loopback Hub got, by repository and file."""
    folder = tmp_path_factory.mktemp("push")
    roberta = save_roberta(folder / "base")
    with LoopbackHub() as hub:
        env = {
            **os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_x", "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        script = [sys.executable, str(SUPPORT / "push_routes.py"), str(folder), str(roberta)]
        done = subprocess.run(script, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("done")
    return folder, hub.files


def body(card: bytes | str) -> str:
    """A card without what differs by its name."""
    text = card.decode() if isinstance(card, bytes) else card
    return re.sub(r"'(me/\w+|path/to/this/folder)'", "REPO", text)


def test_all_routes_write_the_same_card(pushed) -> None:
    _, files = pushed
    cards = {repo: body(content["README.md"]) for repo, content in files.items() if repo not in ("me/base", "me/live")}
    assert set(cards) - {"me/base", "me/on-hub-base"} == {"me/trainer", "me/model", "me/adapter", "me/other"}
    on_hub = yaml.safe_load(cards.pop("me/on-hub-base").split("---")[1])
    assert on_hub["base_model"] == "me/base"
    cards["me/trainer"] = cards["me/trainer"].replace("license: mit\n", "")  # told in this one call
    assert len(set(cards.values())) == 1
    card = cards["me/trainer"]
    assert "More Information Needed" not in card
    assert "ERM does not report whether there is a shortcut." in card
    assert "Class labels only" in card
    assert "these are no test figures" in card
    data = yaml.safe_load(card.split("---")[1])
    assert (data["pipeline_tag"], data["library_name"]) == ("text-classification", "peft")
    assert "base_model" not in data  # a folder of this machine


def test_the_card_that_is_only_written_is_the_same_too(pushed) -> None:
    folder, files = pushed
    saved = (folder / "saved" / "README.md").read_text()
    parts = [
        text.split("## How to load")[0].split("\n---\n")[1]
        for text in (saved, (folder / "run" / "README.md").read_text())
    ]
    there = files["me/trainer"]["README.md"].decode()
    assert parts == [there.split("## How to load")[0].split("\n---\n")[1]] * 2
    assert f"from_pretrained({str(folder / 'base')!r})" in saved
    assert "from_pretrained('base')  # was a folder of the author's" in there
    data = yaml.safe_load((folder / "run" / "README.md").read_text().split("---")[1])
    assert data["license"] == "mit"
    assert "mine" in data["tags"]


def test_nothing_but_the_adapter_goes_up(pushed) -> None:
    folder, files = pushed
    names = {"README.md", "summary.json", "adapter_config.json", "adapter_model.safetensors"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    for repo, content in files.items():
        if repo in ("me/base", "me/live"):
            continue
        assert names <= set(content) <= names | tokenizer, repo
        for name, data in content.items():
            assert str(folder).encode() not in data, (repo, name)
        json.loads(content["summary.json"], parse_constant=pytest.fail)
    assert (folder / "run" / "training_args.bin").is_file() or list((folder / "run").glob("*/training_args.bin"))


def test_pushes_while_training_hold_no_pickled_arguments(pushed) -> None:
    files = pushed[1]["me/live"]
    assert "adapter_model.safetensors" in files
    assert "last-checkpoint/optimizer.pt" in files  # asked for, to go on from there
    assert not [name for name in files if name.endswith("training_args.bin")]
    assert "ERM does not report whether there is a shortcut." in files["README.md"].decode()
    assert "More Information Needed" not in files["README.md"].decode()


def test_a_copy_pushes_its_own_weights(pushed) -> None:
    files = pushed[1]
    weights = {repo: content.get("adapter_model.safetensors") for repo, content in files.items()}
    assert weights["me/trainer"] == weights["me/model"] == weights["me/adapter"]
    assert weights["me/other"] != weights["me/model"]


def adapter(names: list[str]):
    return get_peft_model(load_model("tiny_clip", modality="image", label_names=names), AIFSConfig(recipe="erm"))


def test_a_saved_run_is_json_for_every_reader(tmp_path: Path) -> None:
    run = summary(model="tiny_clip", comparison=comparison(), history=[{"loss": float("nan")}])
    folder = save_run(adapter(["no", "yes"]), None, run, tmp_path)
    text = (folder / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["history"] == [{"loss": None}]
    assert json.loads((folder / "adapter_config.json").read_text())["labels"] == ["no", "yes"]


def test_a_summary_that_json_cannot_hold_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"summary\['model_object'\]"):
        save_run(adapter(["no", "yes"]), None, summary(model="tiny_clip", model_object=object()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_published_holds_no_path_and_no_example() -> None:
    audit = {"found": True, "sentence": "s", "conflicting": [{"input": "/data/patients/1.png"}], "projection": [1]}
    run = {
        "model": "/home/me/vit", "dataset": "C:\\data\\scans.csv", "audit": audit, "note": "a/b/c is text",
        "spec": {"data_dir": "~/data", "dataset_options": {"data_files": "/data/a.csv"}},
    }  # fmt: skip
    out = publishable(run)
    assert out["model"] == "vit"
    assert out["dataset"] == "scans.csv"
    assert out["audit"] == {"found": True, "sentence": "s"}
    assert out["spec"] == {"data_dir": "data", "dataset_options": {"data_files": "a.csv"}}
    assert out["note"] == "a/b/c is text"
    assert publishable(run, examples=True)["audit"]["conflicting"] == [{"input": "1.png"}]
    assert run["audit"] == audit
