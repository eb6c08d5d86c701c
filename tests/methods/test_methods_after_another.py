"""A new training on an adapter that another training left: it claims and saves what it found, and nothing older."""

import pytest
import torch
from methods_zoo import METHODS, make_trainer
from peft import PeftModel

from aifs_peft.methods import get
from aifs_peft.report import summary_from_trainer
from aifs_peft.training import AIFSTrainer
from aifs_peft.tuner import find_aifs_layer

SHORT = {"num_train_epochs": 1, "max_steps": 2}


def leave(state):
    """What `aifs` leaves after a training that found something, of other examples than those of the new one."""
    beta = torch.eye(state.dim)[:2] - torch.eye(state.dim)[:2].mean(0)
    state.update(
        mask=torch.ones(1), basis=(beta[:1] / beta[0].norm()).T, displacements=beta, class_displacements=beta,
        centre=torch.ones(state.dim), reader=torch.cat([beta, torch.zeros(2, 1)], dim=1), ema=torch.ones(1),
        evidence=torch.tensor(7.0), groups=torch.arange(10) % 2, weights=torch.ones(10), memory=torch.ones(3),
        num_updates=4,
    )  # fmt: skip


def left_by(method, folder, before=None):
    """The state after a short training, and what the saved adapter and its card hold."""
    modality = "image" if get(method).reads_tokens else "table"
    trainer = make_trainer(method, modality, "frozen", folder, **SHORT)
    if before is not None:
        before(trainer.layer.state)
    trainer.train()
    trainer.adapted.save_pretrained(folder)
    saved = PeftModel.from_pretrained(trainer.adapted.unload(), folder)
    return find_aifs_layer(saved).state.state_dict(), summary_from_trainer(trainer)["state"]


@pytest.mark.parametrize("method", METHODS)
def test_a_training_leaves_what_it_leaves_on_a_new_adapter(method, tmp_path):
    wanted, told = left_by(method, tmp_path / "new")
    state, told_again = left_by(method, tmp_path / "again", before=leave)
    assert told_again == told
    for name, value in wanted.items():
        assert torch.equal(state[name], value), name


def test_the_published_recipe_goes_on_from_its_own_mask(tmp_path):
    def given(state):
        state.update(mask=torch.linspace(0, 1, state.dim), ema=torch.linspace(1, 2, state.dim))

    trainer = make_trainer("aifs-paper", "table", "frozen", tmp_path, num_train_epochs=2)
    state = trainer.layer.state
    given(state)
    mask, seen = state.mask.clone(), []
    trainer.method.end_of_epoch = lambda latents, context: seen.append(context.state.mask.clone()) or {}
    trainer.train()
    assert torch.equal(seen[0], mask)
    assert int(state.num_updates) == 1
    assert bool(state.ema.all())


def test_a_look_at_the_loader_takes_nothing_away(tmp_path):
    trainer = make_trainer("erm", "table", "frozen", tmp_path, **SHORT)
    leave(trainer.layer.state)
    next(iter(trainer.get_train_dataloader()))
    assert trainer.layer.state.has_basis
    assert len(trainer.layer.state.reader) == 2


def test_a_training_that_is_refused_takes_nothing_away(tmp_path, monkeypatch):
    trainer: AIFSTrainer = make_trainer("erm", "table", "frozen", tmp_path, **SHORT)
    leave(trainer.layer.state)

    def refuse(setup):
        raise ValueError("no")

    monkeypatch.setattr(trainer.method, "check", refuse)
    with pytest.raises(ValueError, match="no"):
        trainer.train()
    assert trainer.layer.state.has_basis
    assert len(trainer.layer.state.groups) == 10
