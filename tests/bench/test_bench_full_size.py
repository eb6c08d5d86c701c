"""Configurations for full size: each is read by the real parser, and its dry run tells time, memory and data."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from aifs_peft.bench import full_size
from aifs_peft.bench.full_size import ARCHITECTURES, SIZES, dry_run
from aifs_peft.cli.options import parse
from aifs_peft.errors import InvalidConfigError
from aifs_peft.experiments import FinetuneSpec
from aifs_peft.training import AIFSTrainingArguments

CONFIGS = sorted((Path(__file__).parents[2] / "benchmarks" / "full_size").glob("*.yaml"))
MILLIONS = {
    "google/vit-base-patch16-224-in21k": 85.8,
    "FacebookAI/roberta-base": 124.6,
    "openai/clip-vit-base-patch16": 86.0,
    "openai/clip-vit-large-patch14": 303.2,
}


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_the_parser_takes_them(path: Path, tmp_path: Path) -> None:
    spec, args, _ = parse(["--config", str(path), "--output-dir", str(tmp_path / "run")])
    assert spec.model in ARCHITECTURES
    assert any(name in spec.dataset for name in SIZES)
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 256
    assert (args.num_train_epochs, args.lr_scheduler_type.value, args.optim.value) == (200, "cosine", "adamw_torch")
    assert args.early_stopping_patience
    assert f"--config benchmarks/full_size/{path.name}" in path.read_text()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_architectures_have_their_published_size(name: str) -> None:
    with torch.device("meta"):
        model = ARCHITECTURES[name][1](2)
    # Encoder and head: of a CLIP the part that reads images, and what a model without a tower of its own has.
    count = sum(v.numel() for n, v in model.named_parameters() if "text_model" not in n and "projection" not in n)
    assert count / 1e6 == pytest.approx(MILLIONS[name], abs=1.0)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FinetuneSpec, AIFSTrainingArguments]:
    """A run of an architecture that is small, on a folder of Waterbirds that is not there yet."""

    def build(classes: int) -> ViTForImageClassification:
        config = ViTConfig(hidden_size=192, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4)
        config.num_labels = classes
        return ViTForImageClassification(config)

    monkeypatch.setitem(full_size.ARCHITECTURES, "tiny", ("image", build))
    args = AIFSTrainingArguments(
        output_dir=str(tmp_path / "run"), method="erm", num_train_epochs=3, per_device_train_batch_size=64, use_cpu=True
    )
    return FinetuneSpec(model="tiny", dataset="waterbirds", data_dir=str(tmp_path)), args


def test_a_dry_run(
    tiny: tuple[FinetuneSpec, AIFSTrainingArguments], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny[1].method = "aifs"
    forecast = dry_run(*tiny, batches=(2, 24))
    assert "no spurious direction found" not in caplog.text  # of random pictures it says nothing
    assert forecast.trained < forecast.parameters
    assert forecast.seconds_per_example > 0
    assert forecast.cpu_seconds_per_example > 0
    # An example of a batch keeps, in 4 layers of 197 tokens of width 192, some megabytes.
    assert 1e6 < forecast.bytes_per_example < 1e8
    assert forecast.peak_bytes > 64 * 1e6
    assert not forecast.complete
    told = forecast.describe()
    assert "an epoch of 4,795 examples" in told
    assert "metadata.csv" in told
    assert not (tmp_path / "run").exists()


def test_a_dry_run_on_a_folder_that_is_there(tiny: tuple[FinetuneSpec, AIFSTrainingArguments], tmp_path: Path) -> None:
    folder = tmp_path / "waterbird_complete95_forest2water2"
    folder.mkdir()
    rows = [f"{i},{i}.jpg,{i % 2},{i // 6},{i // 3 % 2},place.jpg" for i in range(18)]
    (folder / "metadata.csv").write_text("img_id,img_filename,y,split,place,place_filename\n" + "\n".join(rows))
    for i in range(18):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.jpg")
    forecast = dry_run(*tiny, batches=(1, 2))
    assert forecast.complete
    assert "an epoch of 6 examples" in forecast.describe()
    assert forecast.describe().endswith("complete, but its training split has 6 examples, and the published one 4,795")
    (folder / "17.jpg").unlink()
    broken = dry_run(*tiny, batches=(1, 2))
    assert not broken.complete
    assert "17.jpg is missing" in broken.describe()


def test_what_a_dry_run_does_not_know(tmp_path: Path) -> None:
    args = AIFSTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(InvalidConfigError, match="knows the architectures google/vit"):
        dry_run(FinetuneSpec(model="tiny_clip"), args)
    with pytest.raises(InvalidConfigError, match="knows how large celeba"):
        dry_run(FinetuneSpec(model="FacebookAI/roberta-base", dataset="compas"), args)
