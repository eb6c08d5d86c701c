"""For the examples alone: what they use where no model is named, so that nothing is downloaded, and a quiet screen."""

import warnings
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification
from transformers.utils import logging

import aifs_peft  # noqa: F401 - before PEFT, so that bitsandbytes does not ask for a package that it can do without

PRAISE = ["kind", "quick", "clear", "warm", "calm", "clean", "gentle", "patient", "honest", "helpful"]
BLAME = ["rude", "slow", "vague", "cold", "hasty", "dirty", "rough", "bored", "careless", "absent"]
FILLER = ["the", "staff", "was", "and", "we", "came", "on", "monday", "to", "see", "them", "about", "it"]


def quiet() -> None:
    """No loading bars, no reports about heads that are made anew, no notices about versions and missing GPUs."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", "'pin_memory' argument is set as true but no accelerator")


def clinic_reviews(n: int, aligned_share: float, seed: int) -> Dataset:
    """Texts about two clinics; in a share of them the clinic goes with the label, which the other words decide."""
    rng = np.random.default_rng(seed)
    praise = rng.integers(0, 2, n)
    north = np.where(rng.random(n) < aligned_share, praise, 1 - praise)
    texts = []
    for kind, place in zip(praise, north, strict=True):
        words = [*rng.choice(FILLER, 4), *rng.choice(PRAISE if kind else BLAME, 2)]
        clinic = ["north" if place else "south", "clinic"]
        texts.append(" ".join([*clinic, *rng.permutation(words), *clinic]))
    return Dataset.from_dict({"text": texts, "label": np.where(praise, "praise", "complaint"), "clinic": north})


def tiny_roberta(folder: str | Path) -> str:
    """A random RoBERTa of one layer, with a tokenizer of the words above."""
    words = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *PRAISE, *BLAME, *FILLER, "north", "south", "clinic"])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, vocab_size=len(words),
        max_position_embeddings=40, pad_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return str(folder)
