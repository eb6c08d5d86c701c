"""Latents of a decoder without an adapter are those of the token that it classifies, as with one."""

import pytest
import torch
from peft import get_peft_model
from transformers import Qwen2Config, Qwen2ForSequenceClassification

from aifs_peft import AIFSConfig
from aifs_peft.experiments.latents import latents_of

PAD = 1


class Texts:
    """Batches of token ids, padded on one side."""

    def __init__(self, side: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.full((5, 6), PAD)
        for row, n in zip(self.ids, (6, 3, 5, 2, 4), strict=True):
            place = slice(0, n) if side == "right" else slice(6 - n, 6)
            row[place] = torch.randint(3, 40, (n,), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        ids = self.ids[start:stop]
        return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_token_that_is_classified_is_read(side: str) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen2Config(vocab_size=40, intermediate_size=16, pad_token_id=PAD, num_labels=3, **sizes)
    model, texts = Qwen2ForSequenceClassification(config).eval(), Texts(side)
    plain = latents_of(model, texts, batch_size=2)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with torch.no_grad():
        torch.testing.assert_close(model.score(plain), model(**texts.batch(0, 5)).logits)
    torch.testing.assert_close(latents_of(get_peft_model(model, AIFSConfig()), texts, batch_size=3), plain)
