"""A pass of the encoder that reads several layers: what it reads, and what training does with it."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from training_zoo import assert_equal, lora, make_args, make_data, make_trainer, shortcut_data, trained

from aifs_peft.models import LatentClassifier
from aifs_peft.training import AIFSTrainer
from aifs_peft.tuner import AIFSConfig

NOTHING, LAYERS = "spurious_direction_found", "found_in_layers"


class Forgetting(nn.Module):
    """Four blocks, of which the last lets hardly anything of the fourth feature through; takes `features`."""

    def __init__(self):
        super().__init__()
        self.layer = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
        with torch.no_grad():
            for block in self.layer:
                block.weight.copy_(torch.eye(8))
                block.bias.zero_()
            self.layer[3].weight[3, 3] = 0.25
            self.layer[3].weight[3, 4], self.layer[3].weight[4, 4] = 1.0, 0.0  # and the fifth is its noise

    def forward(self, features):
        for block in self.layer:
            features = block(features)
        return features


def hidden(n=600, contrast=6.0):
    """Examples whose attribute the blocks show plainly and the latent hardly does, and their attribute values."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    a = torch.where(torch.arange(n) // 2 % 15 == 0, 1 - y, y)
    x = torch.randn(n, 8, generator=generator)
    x[:, 0] += 2.0 * y
    x[:, 3] += contrast * a
    return [{"features": row, "labels": int(label)} for row, label in zip(x, y, strict=True)], a


def train(folder, data, **options):
    torch.manual_seed(0)
    config = AIFSConfig(encoder_adapter=LoraConfig(r=2, target_modules=r".*layer\.\d"))
    model = get_peft_model(LatentClassifier(Forgetting(), num_labels=2, dim=8), config)
    args = make_args(folder, num_train_epochs=1, **{"learning_rate": 1e-3, **options})
    trainer = AIFSTrainer(model, args, train_dataset=data)
    trainer.train()
    return trainer, trainer.state.log_history[0]


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_an_attribute_that_only_the_blocks_show_is_found_and_trained_against(tmp_path):
    data, a = hidden()
    alone, told = train(tmp_path, data, method_options={"search_layers": "last"})
    assert told[NOTHING] == 0
    assert LAYERS not in told
    assert not alone.layer.state.has_basis
    trainer, told = train(tmp_path, data)
    assert told[NOTHING] == told[LAYERS] == 1
    assert (trainer.layer.state.groups == a).float().mean() > 0.97
    assert trainer.layer.state.basis.shape == (8, 1)  # of the last latent, which the head reads
    assert trainer.layer.state.reader.shape[1] == 9
    assert hooks(trainer.model) == hooks(alone.model)  # nothing listens to the blocks any more


def test_without_an_attribute_training_is_as_without_the_search(tmp_path):
    data, _ = hidden(contrast=0.0)
    trainer, told = train(tmp_path, data)
    alone, _ = train(tmp_path, data, method_options={"search_layers": "last"})
    assert told[NOTHING] == told[LAYERS] == 0
    assert_equal(trained(trainer.model), trained(alone.model))


def test_what_the_last_latent_shows_is_taken_without_another_pass(tmp_path):
    trainer = make_trainer(tmp_path, AIFSConfig(encoder_adapter=lora()), shortcut_data(300), num_train_epochs=1)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first[NOTHING] == 1
    assert LAYERS not in first


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({}, {}),  # a frozen encoder
        ({"latents": "multi", "encoder_adapter": lora()}, {}),  # its latents are those of several layers anyway
        ({"encoder_adapter": lora()}, {"method_options": {"search_layers": "last"}}),
    ],
)
def test_it_is_not_asked_for(tmp_path, config, options):
    trainer = make_trainer(tmp_path, AIFSConfig(**config), make_data(96), num_train_epochs=1, **options)
    trainer.train()
    assert LAYERS not in trainer.state.log_history[0]


def test_the_blocks_are_those_of_joined_latents(tmp_path):
    data = make_data(40)
    one = make_trainer(tmp_path / "a", AIFSConfig(encoder_adapter=lora()), data)
    several = make_trainer(tmp_path / "b", AIFSConfig(latents="multi", encoder_adapter=lora()), data)
    layers = one.runner.contexts.offered.encode_layers()
    blocks = several.layer.blocks
    blocks.fit(several.runner.contexts.offered.encode().z)  # as the trainer does before its first step
    joined = several.runner.contexts.offered.encode()
    torch.testing.assert_close(layers.z, joined.z, atol=1e-4, rtol=1e-4)
    assert several.runner.contexts.offered.encode_layers is None


def test_an_encoder_without_blocks_has_none_to_read(tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(
        LatentClassifier(nn.Linear(8, 8), num_labels=2, dim=8),
        AIFSConfig(encoder_adapter=LoraConfig(r=2, target_modules=["encoder"])),
    )
    trainer = AIFSTrainer(model, make_args(tmp_path), train_dataset=hidden(60)[0])
    assert trainer.runner.contexts.offered.encode_layers() is None
