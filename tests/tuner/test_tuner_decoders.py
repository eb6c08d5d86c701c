"""Decoders: the latent is what the last token that is no padding has, and the base model pools as ever."""

import copy

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from aifs_peft import AIFSConfig
from aifs_peft.errors import HeadError
from aifs_peft.models import LatentClassifier
from aifs_peft.tuner import find_aifs_layer
from aifs_peft.tuner.last_token import picks_last_token
from aifs_peft.tuner.trial import reads_last_token

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = {"vocab_size": 40, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "num_labels": 3}
PAD, TOKENS = 1, 6


def build(name, **changes):
    torch.manual_seed(0)
    grouped = {**SIZES, **WORDS, "num_key_value_heads": 2, "head_dim": 8, **changes}
    return {
        "llama": lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(**grouped)),
        "qwen2": lambda: hf.Qwen2ForSequenceClassification(hf.Qwen2Config(**grouped)),
        "qwen3": lambda: hf.Qwen3ForSequenceClassification(hf.Qwen3Config(**grouped)),
        "opt": lambda: hf.OPTForSequenceClassification(
            hf.OPTConfig(hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=2,
                         num_attention_heads=2, **{**WORDS, **changes})
        ),
    }[name]().eval()  # fmt: skip


DECODERS = ("llama", "qwen2", "qwen3", "opt")


def batch(side="right"):
    """Texts of 6, 4, 5 and 2 tokens, padded on one side."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.full((4, TOKENS), PAD)
    for row, n in zip(ids, (6, 4, 5, 2), strict=True):
        row[slice(0, n) if side == "right" else slice(TOKENS - n, TOKENS)] = torch.randint(
            3, 40, (n,), generator=generator
        )
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def inner(kind):
    return LoraConfig(r=2, init_lora_weights=False) if kind == "lora" else None


def fill(layer):
    with torch.no_grad():
        for p in layer.head.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))


@torch.no_grad()
def logits(model, side="right"):
    return model.eval()(**batch(side)).logits


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["frozen", "lora"])
@pytest.mark.parametrize("name", DECODERS)
def test_disabled_saved_reloaded_and_merged(name, kind, side, tmp_path):
    base = build(name)
    reference = logits(base, side)
    model = get_peft_model(copy.deepcopy(base), AIFSConfig(encoder_adapter=inner(kind)))
    fill(find_aifs_layer(model))
    trained = logits(model, side)
    assert trained.shape == reference.shape == (4, 3)
    with model.disable_adapter():
        assert torch.equal(logits(model, side), reference)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    other = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, adapter_name="other", low_cpu_mem_usage=True)
    for same in (again, other, copy.deepcopy(again)):
        assert torch.equal(logits(same, side), trained)
    merged = again.merge_and_unload(safe_merge=True)
    assert type(merged) is type(base)
    assert merged.state_dict().keys() == base.state_dict().keys()
    torch.testing.assert_close(logits(merged, side), trained, atol=1e-5, rtol=1e-4)
    plain = model.unload()
    assert torch.equal(logits(plain, side), reference)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in plain.modules())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", DECODERS)
def test_the_latent_is_what_the_base_head_reads_for_the_token_it_keeps(name, side):
    base, inputs = build(name), batch(side)
    model = get_peft_model(copy.deepcopy(base), AIFSConfig())
    with torch.no_grad():
        model.eval()(**inputs)
    z = find_aifs_layer(model).take_output().z
    assert z.shape == (4, 16)
    torch.testing.assert_close(base.score(z), logits(base, side))


@pytest.mark.parametrize("kind", ["frozen", "lora"])
@pytest.mark.parametrize("head", ["copy", "mlp"])
def test_one_latent_per_text_is_intervened_on_and_trained(kind, head, tmp_path):
    model = get_peft_model(build("llama"), AIFSConfig(encoder_adapter=inner(kind), head=head)).train()
    layer = find_aifs_layer(model)
    with layer.intervening(lambda z: z + 1):
        out = model(**batch(), labels=torch.tensor([0, 1, 2, 0]))
    output = layer.take_output()
    assert output.intervened_logits.shape == out.logits.shape == (4, 3)
    torch.testing.assert_close(output.logits, out.logits)
    (out.loss + output.intervened_logits.sum()).backward()
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {n for n, p in model.named_parameters() if p.grad is not None}
    model.eval()
    before = logits(model)
    torch.testing.assert_close(logits(model.merge_and_unload()), before, atol=1e-5, rtol=1e-4)


def test_rows_of_several_adapters_and_latents_that_are_given():
    model = get_peft_model(build("qwen2"), AIFSConfig())
    fill(find_aifs_layer(model))
    first = logits(model)
    model.add_adapter("other", AIFSConfig())
    with model.disable_adapter():
        base = logits(model)
    with torch.no_grad():
        mixed = model.eval()(**batch(), adapter_names=["default", "__base__", "default", "__base__"]).logits
    torch.testing.assert_close(mixed[::2], first[::2])
    torch.testing.assert_close(mixed[1::2], base[1::2])
    z = torch.randn(5, 16)
    assert find_aifs_layer(model)(z).shape == (5, 3)


def test_embeddings_and_models_without_a_padding_token_read_the_last_token():
    model = get_peft_model(build("llama"), AIFSConfig()).eval()
    embedded = model.get_base_model().model.embed_tokens(batch("left")["input_ids"])
    with torch.no_grad():
        model(inputs_embeds=embedded)
        last = find_aifs_layer(model).take_output().z
        hidden = model.get_base_model().model(inputs_embeds=embedded).last_hidden_state
    torch.testing.assert_close(last, hidden[:, -1])
    unpadded = get_peft_model(build("llama", pad_token_id=None), AIFSConfig()).eval()
    one = {name: value[:1] for name, value in batch().items()}
    assert unpadded(**one).logits.shape == (1, 3)


def test_blocks_of_a_decoder_leave_padding_out(tmp_path):
    model = get_peft_model(build("qwen3"), AIFSConfig(latents="multi"))
    layer = find_aifs_layer(model)
    assert [name for name, _ in model.peft_config["default"].latent_blocks] == ["model.layers.0", "model.layers.1"]
    inputs = batch()
    with torch.no_grad():
        model.eval()(**inputs)
        z = layer.take_output().z
        alone = {name: value[3:, :2] for name, value in inputs.items()}
        model(**alone)
    torch.testing.assert_close(layer.take_output().z, z[3:], atol=1e-5, rtol=1e-4)
    fill(layer)
    trained = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(build("qwen3"), tmp_path)), trained)


def test_another_pooling_is_refused():
    for pool in ("cls", "mean"):
        with pytest.raises(HeadError, match=f"takes the logits of the last token.*got '{pool}'"):
            get_peft_model(build("llama"), AIFSConfig(pool=pool))
    assert torch.equal(logits(get_peft_model(build("llama"), AIFSConfig(pool="last"))), logits(build("llama")))


class Mean(hf.LlamaForSequenceClassification):
    """Averages the logits of all tokens."""

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        out = super().forward(input_ids, attention_mask, **kwargs)
        out.logits = self.score(self.model(input_ids, attention_mask=attention_mask).last_hidden_state).mean(1)
        return out


def test_what_pools_otherwise_after_its_head_is_refused():
    torch.manual_seed(0)
    model = Mean(hf.LlamaConfig(**SIZES, **WORDS)).eval()
    assert reads_last_token(model, "score") is False
    with pytest.raises(HeadError, match="are not what its head 'score' gives"):
        get_peft_model(model, AIFSConfig())


def test_without_a_trial_the_class_decides():
    quantised = build("llama")
    quantised.score.weight = nn.Parameter(torch.zeros(3, 16, dtype=torch.uint8), requires_grad=False)
    assert reads_last_token(quantised, "score") is None
    assert picks_last_token(quantised, "score")
    torch.manual_seed(0)
    own = Mean(hf.LlamaConfig(**SIZES, **WORDS))
    own.score.weight = quantised.score.weight
    assert not picks_last_token(own, "score")


@pytest.mark.parametrize("side", ["right", "left"])
def test_an_encoder_without_a_head_reads_the_same_token(side):
    base = build("llama")
    model = LatentClassifier(base.model, num_labels=3).eval()
    with torch.no_grad():
        torch.testing.assert_close(base.score(model.embed(batch(side))), logits(base, side))
