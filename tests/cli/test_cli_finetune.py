"""End to end through `scripts/finetune.py`, offline: tiny random CLIP, ViT and RoBERTa; push to a loopback Hub."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from latents_npz import write_latents
from loopback_hub import LoopbackHub

from aifs_peft.cli import finetune

ROOT = Path(__file__).parents[2]


def run_script(
    *options: str, launcher: tuple[str, ...] = (sys.executable,), **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `scripts/finetune.py` in a fresh process."""
    return subprocess.run(
        [*launcher, str(ROOT / "scripts" / "finetune.py"), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )


def short(output: Path, *options: str) -> list[str]:
    return ["--output-dir", str(output), "--num-train-epochs", "1", *options]


def check_run(done: subprocess.CompletedProcess[str], output: Path, method: str) -> dict:
    """What every run shows and leaves behind."""
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1" in done.stderr + done.stdout
    assert "worst" in done.stdout
    for name in ("adapter_config.json", "adapter_model.safetensors", "summary.json", "README.md"):
        assert (output / name).is_file(), name
    summary = json.loads((output / "summary.json").read_text())
    assert summary["method"] == method
    assert 0 <= summary["metrics"]["worst_group_accuracy"] <= summary["metrics"]["average_accuracy"] <= 1
    assert summary["selection"]["reads_group_labels"] is False
    assert str(ROOT) not in (output / "adapter_config.json").read_text()
    return summary


def test_accelerate_launch_alone_runs_the_embedded_default(tmp_path: Path) -> None:
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--cpu")
    done = run_script(*short(tmp_path), launcher=launcher)
    summary = check_run(done, tmp_path, "aifs")
    assert (summary["model"], summary["dataset"]) == ("tiny_clip", "digits_on_scenes")
    assert len(summary["metrics"]["groups"]) == 4


def test_vit_with_lora_and_paper(vit_dir: Path, tmp_path: Path) -> None:
    options = short(tmp_path, "--model", str(vit_dir), "--method", "aifs-paper")
    summary = check_run(run_script(*options), tmp_path, "aifs-paper")
    assert summary["state"]["num_updates"] == 1


def test_roberta_frozen_erm_on_the_users_own_texts(roberta_dir: Path, text_dir: Path, tmp_path: Path) -> None:
    options = short(tmp_path, "--model", str(roberta_dir), "--method", "erm", "--adapter", "none", "--max-length", "16")
    columns = {"text": "sentence", "label": "verdict", "group": "kind"}
    done = run_script(
        *options, "--dataset", str(text_dir), "--dataset-options", json.dumps(columns), HF_HOME=str(tmp_path / "home")
    )
    summary = check_run(done, tmp_path, "erm")
    assert summary["label_names"] == ["fine", "toxic"]
    assert sorted(summary["metrics"]["groups"]) == ["0", "1"]


def test_push_and_load_through_a_loopback_hub(clip_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with LoopbackHub() as hub:
        env = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": "hf_x",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        options = short(output, "--model", str(clip_dir), "--push-to-hub", "--hub-model-id", "me/adapter")
        done = run_script(*options, **env)
        check_run(done, output, "aifs")
        assert "pushed: " in done.stdout
        pushed = hub.files["me/adapter"]
        assert pushed["adapter_model.safetensors"] == (output / "adapter_model.safetensors").read_bytes()
        assert b"| cell | n |" in pushed["README.md"]
        assert not [name for name in pushed if name.endswith((".bin", ".pt", ".pkl"))]
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD, str(clip_dir), str(output)],
            capture_output=True, text=True, env={**os.environ, **env},
        )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip().endswith("equal")


def test_a_pushed_table_model_is_loaded_by_the_lines_of_its_card(tmp_path: Path) -> None:
    write_latents(tmp_path)
    output = tmp_path / "run"
    data = ["--dataset", "dominoes_latents", "--data-dir", str(tmp_path), "--adapter", "full", "--method", "erm"]
    with LoopbackHub() as hub:
        env = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": "hf_x",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        done = run_script(*short(output, *data, "--push-to-hub", "--hub-model-id", "me/table"), **env)
        check_run(done, output, "erm")
        assert "base_model/model.safetensors" in hub.files["me/table"]
        card = hub.files["me/table"]["README.md"].decode()
        code = re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)[1]
        local = code.replace("'me/table'", repr(str(output)))
        assert local != code
        both = f"{code}\npushed = model\n{local}\nimport torch\nx = torch.ones(1, 12)\n"
        both += "print('equal' if torch.equal(model(features=x).logits, pushed(features=x).logits) else 'different')"
        loaded = subprocess.run([sys.executable, "-c", both], capture_output=True, text=True, env={**os.environ, **env})
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip().endswith("equal")


LOAD = """
import sys, torch, aifs_peft
from peft import PeftModel
from aifs_peft.models import load_model
pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
logits = []
for source in ("me/adapter", sys.argv[2]):
    base = load_model(sys.argv[1], modality="image", label_names=["a", "b"])
    with torch.no_grad():
        logits.append(PeftModel.from_pretrained(base, source).eval()(pixel_values=pixels).logits)
print("equal" if torch.equal(*logits) else "different")
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nobody/no-such-model"], "not a local directory"),
        (["--dataset", "digits_on_scene"], "digits_on_scenes"),
        (["--adapter", "lroa"], "did you mean 'lora'"),
    ],
)
def test_errors_are_one_line_with_a_remedy(options: list[str], message: str, tmp_path: Path) -> None:
    done = run_script(*short(tmp_path, *options))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error", [ConnectionError("nobody listens"), HFValidationError("bad name"), OSError("dropped")], ids=repr
)
def test_a_push_that_fails_says_where_the_adapter_is(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*args: object, **kwargs: object) -> str:
        raise error

    monkeypatch.setattr("aifs_peft.report.hub.HfApi.create_repo", unreachable)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    write_latents(tmp_path)
    data = ["--dataset", "dominoes_latents", "--data-dir", str(tmp_path), "--model", "identity", "--adapter", "none"]
    run = [*data, "--push-to-hub", "--hub-model-id", "me/adapter", "--use-cpu", "--quiet", "--no-audit"]
    assert finetune.main(short(tmp_path / "run", *run)) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "the adapter was not pushed to 'me/adapter'" in told[0]
    assert f"The run is saved in {tmp_path / 'run'}." in told[0]
    assert f"hf upload me/adapter {tmp_path / 'aifs-push-'}" in told[0]
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()


def test_the_audit_of_an_earlier_run_does_not_stay(tmp_path, monkeypatch):
    from types import SimpleNamespace

    import aifs_peft.report
    from aifs_peft.cli.finetune import write_run

    monkeypatch.setattr(aifs_peft.report, "save_run", lambda model, processor, summary, folder: folder)
    result = SimpleNamespace(audit=None, model=None, processor=None, summary={}, what_if={})
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "conflicting.csv").write_text("row\n1\n")
    write_run(result, tmp_path)
    assert (tmp_path / "audit").exists()  # no run was here: it is somebody's own
    (tmp_path / "summary.json").write_text("{}")
    write_run(result, tmp_path)
    assert not (tmp_path / "audit").exists()
