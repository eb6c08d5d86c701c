"""The lines of the card's *How to load* run, and give the logits that were saved."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from report_runs import save_roberta, save_vit, summary
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from aifs_peft.models import load_model, load_processor
from aifs_peft.report import render_card, save_run
from aifs_peft.tuner import AIFSConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
NAMES = ["no 'quotes'", 'yes "quotes"']


def code_of(folder: Path) -> dict[str, str]:
    """Title and code of every snippet in the card of a saved run, with the folder's own path in it."""
    text = (folder / "README.md").read_text()
    found = re.findall(r"^([^\n]+):\n\n```python\n(.*?)\n```", text, flags=re.DOTALL | re.MULTILINE)
    return {title: code.replace("'path/to/this/folder'", repr(str(folder))) for title, code in found}


def trained(base: torch.nn.Module, lora: bool) -> Any:
    """An adapter that is not in its initial state."""
    inner = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False) if lora else None
    model = get_peft_model(base, AIFSConfig(encoder_adapter=inner)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def run_snippets(folder: Path, inputs: dict[str, torch.Tensor], logits: torch.Tensor, monkeypatch: Any) -> list[str]:
    """Execute the snippets in order in one namespace; each model that comes out gives the saved logits."""
    monkeypatch.chdir(folder)
    space: dict[str, Any] = {}
    for title, code in code_of(folder).items():
        exec(code, space)
        made = space["classify"].model if "pipeline" in code else space["plain" if "plain" in code else "model"]
        with torch.no_grad():
            torch.testing.assert_close(made(**inputs).logits, logits, atol=1e-5, rtol=0, msg=title)
    if "classify" in space:
        labels = space["classify"].model.config.id2label
        assert list(labels.values()) == NAMES  # from the adapter alone
    return list(code_of(folder))


@pytest.mark.parametrize("lora", [False, True])
def test_images(lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_vit(tmp_path / "vit")
    model = trained(
        AutoModelForImageClassification.from_pretrained(base, num_labels=2, ignore_mismatched_sizes=True), lora
    )
    pixels = {"pixel_values": torch.rand(2, 3, 16, 16)}
    logits = model(**pixels).logits.detach()
    run = summary(model=str(base), label_names=NAMES)
    folder = save_run(model, AutoImageProcessor.from_pretrained(base), run, tmp_path / "run")
    titles = run_snippets(folder, pixels, logits, monkeypatch)
    assert titles == ["With PEFT", "In one call", "As a plain model, without PEFT", "In a pipeline"]
    again = AutoModelForImageClassification.from_pretrained(folder / "merged").eval()
    torch.testing.assert_close(again(**pixels).logits, logits, atol=1e-5, rtol=0)
    space: dict[str, Any] = {}
    exec(code_of(folder)["In a pipeline"], space)
    assert {row["label"] for row in space["classify"](Image.new("RGB", (20, 20)))} == set(NAMES)


def test_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_roberta(tmp_path / "roberta")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = trained(AutoModelForSequenceClassification.from_pretrained(base), lora=True)
    tokens = {"input_ids": torch.tensor([[0, 4, 5, 6, 2]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    logits = model(**tokens).logits.detach()
    run = summary(model=str(base), task="text-classification", label_names=NAMES)
    folder = save_run(model, tokenizer, run, tmp_path / "run")
    assert len(run_snippets(folder, tokens, logits, monkeypatch)) == 4
    space: dict[str, Any] = {}
    exec(code_of(folder)["In a pipeline"], space)
    assert space["classify"]("you are good")[0]["label"] in NAMES


def test_the_embedded_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(load_model("tiny_clip", modality="image", label_names=NAMES), lora=False)
    size = model.get_base_model().config.vision_config.image_size
    pixels = {"pixel_values": torch.rand(1, 3, size, size)}
    logits = model(**pixels).logits.detach()
    processor = load_processor("tiny_clip", modality="image")
    folder = save_run(model, processor, summary(model="tiny_clip", label_names=NAMES), tmp_path / "run")
    assert run_snippets(folder, pixels, logits, monkeypatch)[-1] == "In a pipeline"
    direct = AutoModelForImageClassification.from_pretrained(folder).eval()  # transformers by itself
    torch.testing.assert_close(direct(**pixels).logits, logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["mlp", "identity"])
def test_a_model_made_for_a_table(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(40, 5)
    base = load_model(name, modality="features", label_names=NAMES, train_features=features)
    model = trained(base, lora=False)
    logits = model(features=features).logits.detach()
    run = summary(model=name, task="tabular-classification", modality="features", label_names=NAMES)
    folder = save_run(model, None, run, tmp_path / "run")
    assert len(run_snippets(folder, {"features": features}, logits, monkeypatch)) == 2


def test_no_how_to_leans_on_experiments() -> None:
    for model in ("tiny_clip", "mlp", "me/vit", None):
        assert "experiments" not in str(render_card(summary(model=model)).content)


def test_a_run_in_the_folder_of_another_leaves_nothing_of_it(tmp_path: Path) -> None:
    """Base model and processor of an earlier run would be loaded with the adapter of the later one."""
    folder = tmp_path / "run"
    features = torch.randn(20, 4)
    table = load_model("mlp", modality="features", label_names=NAMES, train_features=features)
    rows = summary(model="mlp", task="tabular-classification", modality="features", label_names=NAMES)
    roberta = save_roberta(tmp_path / "roberta")
    text = AutoModelForSequenceClassification.from_pretrained(roberta)
    runs = {
        "table": (table, None, rows),
        "image": (
            load_model("tiny_clip", modality="image", label_names=NAMES),
            load_processor("tiny_clip", modality="image"),
            summary(model="tiny_clip", label_names=NAMES),
        ),
        "text": (
            text,
            AutoTokenizer.from_pretrained(roberta),
            summary(model=str(roberta), task="text-classification", label_names=NAMES),
        ),
    }
    ours = {"README.md", "summary.json", "adapter_config.json", "adapter_model.safetensors"}
    expected = {
        "table": {"base_model"},
        "image": {"config.json", "model.safetensors", "preprocessor_config.json"},
        "text": {"tokenizer.json", "tokenizer_config.json"},
    }
    for name in ("table", "image", "text", "image", "table"):
        base, processor, about = runs[name]
        save_run(get_peft_model(base, AIFSConfig()), processor, about, folder)
        assert {path.name for path in folder.iterdir()} == ours | expected[name], name
        runs[name] = (get_peft_model(base, AIFSConfig()).unload(), processor, about)


# What a run in the same folder may have left, of whatever method, model and version.
LEFT = (
    "model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "adapter_model.bin",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "report.html", "base_model/config.json",
    "second/adapter_config.json", "second/adapter_model.safetensors",
)  # fmt: skip
KEPT = ("checkpoint-7/adapter_config.json", "notes.txt", "data/model.txt")


def test_files_of_an_earlier_run_of_any_kind_are_removed_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    base = load_model("mlp", modality="features", label_names=NAMES, train_features=torch.randn(20, 4))
    about = summary(model="mlp", task="tabular-classification", modality="features", label_names=NAMES)
    save_run(trained(base, lora=False), None, about, folder)
    for name in (*LEFT, *KEPT):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    save_run(trained(base.__class__(base.config), lora=False), None, about, folder)
    assert [name for name in LEFT if (folder / name).exists()] == ["base_model/config.json"]  # its own
    assert (folder / "base_model" / "config.json").read_text() != "{}"
    assert all((folder / name).exists() for name in KEPT)
    bare = tmp_path / "bare"  # no run was here: nothing is touched
    bare.mkdir()
    (bare / "vocab.txt").write_text("mine")
    save_run(trained(base.__class__(base.config), lora=False), None, about, bare)
    assert (bare / "vocab.txt").read_text() == "mine"
