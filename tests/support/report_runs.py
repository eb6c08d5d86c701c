"""Summaries and tiny saved models for tests of cards and reports."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from aifs_peft.experiments import provenance

_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "the", "is", "good", "bad", "you", "are"]


def summary(**changes: Any) -> dict[str, Any]:
    """What a run leaves behind, before there were comparisons and audits."""
    group = {"n": 40, "accuracy": 0.75, "accuracy_interval": [0.588, 0.873]}
    return {
        "model": "openai/clip-vit-base-patch16", "dataset": "toy", "task": "image-classification",
        "label_names": ["no", "yes"], "method": "aifs", "seed": 0, "seconds": 12.0,
        "state": {"num_updates": 3, "spurious_directions": 1},
        "selection": {"rule": "worst_class", "reads_group_labels": False}, "groups": {"train": {"no|left": 40}},
        "metrics": {"average_accuracy": 0.8, "worst_group_accuracy": 0.75, "groups": {"no, left": group}},
        "provenance": provenance(), **changes,
    }  # fmt: skip


def comparison(cells_from: str = "inferred") -> dict[str, Any]:
    """Plain training and the method on the same examples, as a run records them."""

    def side(accuracy: float) -> dict[str, float]:
        return {"accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.05}

    rows = [
        {"cell": "aligned", "n": 400, "plain": side(0.93), "method": side(0.9)},
        {"cell": "conflicting", "n": 25, "plain": side(0.28), "method": side(0.74)},
    ]
    return {
        "cells_from": cells_from, "rows": rows, "average": {"plain": side(0.89), "method": side(0.88)},
        "worst": {"plain": side(0.28), "method": side(0.74)},
        "sentences": ["Conflicting examples: 28.0 % before, 74.0 % after (n = 25)."],
    }  # fmt: skip


def save_vit(folder: Path) -> Path:
    """A random ViT of three classes for images of 16 pixels, with its processor."""
    torch.manual_seed(0)
    config = ViTConfig(**_TOWER, image_size=16, patch_size=8, num_labels=3)
    ViTForImageClassification(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def save_roberta(folder: Path) -> Path:
    """A random RoBERTa classifier with a tokenizer of ten words."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = RobertaConfig(**_TOWER, vocab_size=len(WORDS), max_position_embeddings=40, pad_token_id=1)
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder
