"""The README is true: its tables are what the committed results say, and its Python runs."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_tables_come_from_committed_results() -> None:
    render = runpy.run_path(str(ROOT / "benchmarks" / "render_readme.py"))["render"]
    assert "| `erm` |" in README
    assert render(README) == README


def stand_ins(folder: Path) -> None:
    """What a reader has and the test lacks: a folder of images, and a model under the name that the README gives."""
    for position in range(40):
        kind, split = ("cat", "dog")[position % 2], ("train", "validation")[position % 4 == 0]
        (folder / "my_images" / split / kind).mkdir(parents=True, exist_ok=True)
        shade = 100 * (position % 2) + position
        Image.new("RGB", (16, 16), (shade, shade, 40)).save(folder / "my_images" / split / kind / f"{position}.png")
        if position % 4 == 0:
            (folder / "my_images" / split / "dog").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (200, shade, 0)).save(folder / "my_images" / split / "dog" / f"{position}.png")
    name = re.search(r'^name = "(.*)"$', README, flags=re.MULTILINE)
    assert name is not None
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(folder / name[1])
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / name[1])


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_python_blocks_run(block: str, tmp_path: Path) -> None:
    stand_ins(tmp_path)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_first_python_is_short_and_of_plain_pieces() -> None:
    block = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
    lines = [line for line in block.splitlines() if line and not line.startswith(("from", "import"))]
    assert len(lines) <= 12
    assert set(re.findall(r"from (aifs_peft\S*)", block)) == {"aifs_peft"}


def test_every_file_the_readme_names_exists() -> None:
    for name in re.findall(r"(?:scripts|docs|benchmarks|examples)/[\w/]+\.\w+", README):
        assert (ROOT / name).exists(), name
