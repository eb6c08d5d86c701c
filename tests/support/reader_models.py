"""A tiny random RoBERTa with its tokenizer, and a table of texts it can read."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def save_reader(folder: Path) -> Path:
    """A random RoBERTa classifier with a small word-level tokenizer."""
    torch.manual_seed(0)
    words = ["<s>", "<pad>", "</s>", "<unk>", "the", "is", "good", "bad", "you", "are"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = RobertaConfig(**_TOWER, vocab_size=len(words), max_position_embeddings=40, pad_token_id=1)
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_texts(folder: Path) -> Path:
    """A folder of one CSV file: texts, string labels, a group column."""
    folder.mkdir()
    lines = ["sentence,verdict,kind"]
    for i in range(120):
        kind, verdict = i % 2, (i // 2) % 2
        lines.append(f"{('the', 'you')[kind]} is {('good', 'bad')[verdict]} {i},{('fine', 'toxic')[verdict]},{kind}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder
