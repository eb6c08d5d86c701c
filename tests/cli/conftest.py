"""Tiny random models in Hugging Face format, made once for all command-line tests."""

from pathlib import Path

import pytest
import torch
from quiet import libraries_speak_again  # noqa: F401 - for every test of this folder
from reader_models import save_texts
from report_runs import save_roberta
from transformers import (
    CLIPConfig,
    CLIPModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def _save_processor(folder: Path) -> None:
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of two towers, 16 px images."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    vision = {**_TOWER, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config={**_TOWER, "vocab_size": 64}, vision_config=vision)).save_pretrained(folder)
    _save_processor(folder)
    return folder


@pytest.fixture(scope="session")
def vit_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ViT classifier, 16 px images."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    ViTForImageClassification(ViTConfig(**_TOWER, image_size=16, patch_size=8)).save_pretrained(folder)
    _save_processor(folder)
    return folder


@pytest.fixture(scope="session")
def roberta_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random RoBERTa classifier with a small word-level tokenizer."""
    return save_roberta(tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="session")
def text_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one CSV file: texts, string labels, a group column."""
    return save_texts(tmp_path_factory.mktemp("texts") / "texts")
