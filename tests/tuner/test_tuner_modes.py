"""One rule for what stays in evaluation mode: it follows what is trained, not how the adapter was configured."""

import pytest
from peft import LoraConfig, get_peft_model
from torch import nn
from tuner_zoo import build

from aifs_peft import AIFSConfig
from aifs_peft.latent._support import evaluating
from aifs_peft.tuner import find_aifs_layer
from aifs_peft.tuner.modes import trains_encoder

INNER = LoraConfig(target_modules=["q_proj", "v_proj"], r=2)


def dropouts(model):
    inside = set(find_aifs_layer(model).modules())
    return [m for m in model.modules() if isinstance(m, nn.Dropout) and m not in inside]


@pytest.mark.parametrize(
    ("inner", "change", "trains"),
    [
        (None, None, False),
        (INNER, None, True),
        (None, True, True),  # the user trains the encoder's own weights
        (INNER, False, False),  # ... or froze the adapter
    ],
)
def test_the_encoder_is_in_training_mode_exactly_when_something_in_it_is_trained(inner, change, trains):
    model = get_peft_model(build("vit"), AIFSConfig(encoder_adapter=inner))
    layer = find_aifs_layer(model)
    if change is not None:
        model.get_base_model().vit.requires_grad_(change)
    assert trains_encoder(model, layer) == trains
    model.train()
    assert dropouts(model)
    assert all(module.training == trains for module in dropouts(model))
    assert all(module.training for module in layer.modules())
    assert model.training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_block_in_evaluation_mode_puts_every_mode_back():
    model = get_peft_model(build("vit"), AIFSConfig()).train()
    before = {module: module.training for module in model.modules()}
    assert set(before.values()) == {True, False}

    def look_and_fail():
        assert not any(module.training for module in model.modules())
        raise KeyError("in the block")

    with pytest.raises(KeyError, match="in the block"), evaluating(model):
        look_and_fail()
    assert {module: module.training for module in model.modules()} == before
