"""Reentrant checkpointing: the encoder's adapter learns as without it, or the model is refused by name."""

import functools

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint
from tuner_zoo import batch, build

from aifs_peft import AIFSConfig
from aifs_peft.errors import InvalidConfigError
from aifs_peft.models import LatentClassifier
from aifs_peft.tuner._transformers import has_input_gradients, is_reentrant

INNER = LoraConfig(target_modules=r".*(q_proj|v_proj|query|value)", r=2, init_lora_weights=False)


def gradients(model, inputs):
    model.train()
    model(**inputs).logits.logsumexp(1).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad and "lora" in name}
    assert found
    return found


def tuned(name, base=None):
    torch.manual_seed(0)
    return get_peft_model(build(name) if base is None else base, AIFSConfig(encoder_adapter=INNER))


@pytest.mark.parametrize("name", ["vit", "roberta"])
@pytest.mark.parametrize("options", [{"use_reentrant": True}, {"use_reentrant": False}])
def test_the_adapter_gets_the_gradient_it_has_without(name, options):
    wanted, inputs = gradients(tuned(name), batch(name)), batch(name)
    model = tuned(name)
    model.get_base_model().activation_checkpointing_enable(options)
    assert any(is_reentrant(module) for module in model.modules()) == options["use_reentrant"]
    got = gradients(model, inputs)
    for key, value in wanted.items():
        assert got[key] is not None, key
        assert torch.equal(got[key], value), key


def test_a_frozen_encoder_is_not_recomputed_and_not_touched():
    model = get_peft_model(build("vit"), AIFSConfig())
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": True})
    model.train()
    assert not has_input_gradients(model.get_base_model())


def test_an_encoder_within_a_model_of_ours_is_found():
    encoder = build("vit").vit
    encoder.activation_checkpointing_enable({"use_reentrant": True})
    model = tuned("vit", LatentClassifier(encoder, num_labels=2))
    found = gradients(model, batch("vit"))
    assert all(gradient is not None for gradient in found.values())


class Recomputed(nn.Module):
    """A layer that is checkpointed as those of transformers are, in a model that knows nothing of it."""

    gradient_checkpointing = False

    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(4, 8)

    def forward(self, x):
        return self._gradient_checkpointing_func(self.q_proj, x) if self.gradient_checkpointing else self.q_proj(x)


@pytest.mark.parametrize("options", [{"use_reentrant": True}, {}])
def test_a_model_without_input_embeddings_is_refused(options):
    layer = Recomputed()
    layer.gradient_checkpointing = True
    layer._gradient_checkpointing_func = functools.partial(checkpoint, **options)
    config = AIFSConfig(encoder_adapter=LoraConfig(target_modules=["q_proj"], r=2))
    model = get_peft_model(LatentClassifier(layer, num_labels=2, dim=8), config)
    with pytest.raises(InvalidConfigError, match=r"gives no gradient to an encoder's adapter.*Recomputed has no input"):
        model.train()
    layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=False)
    model.train()
