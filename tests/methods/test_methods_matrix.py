"""Every method, frozen and LoRA, on images, texts and tables, through the one trainer."""

import pytest
import torch
from methods_zoo import METHODS, MODALITIES, make_trainer, runs_on

from aifs_peft.methods import get

# Their loss is no plain fit to the data: SPUME's tasks move to what is still hard, ULE's penalty sets in after a while.
MOVING_LOSS = {"spume", "ule"}
CASES = [
    (method, modality, adapter)
    for method in METHODS
    for modality in MODALITIES
    for adapter in ("frozen", "lora")
    if runs_on(method, modality)
]


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.parametrize(("method", "modality", "adapter"), CASES)
def test_trains_what_it_should_and_nothing_else(method, modality, adapter, tmp_path):
    trainer = make_trainer(method, modality, adapter, tmp_path)
    before = snapshot(trainer.model)
    trainer.train()
    after = snapshot(trainer.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    # DistilBERT's layer before its head is in no checkpoint of an encoder: it is trained with the head.
    allowed = ("aifs_head", "aifs_auxiliary", "pre_classifier.aifs_copy")
    if adapter == "lora":
        allowed += ("lora_",)
    assert moved
    assert not [name for name in moved if not any(part in name for part in allowed)]
    assert any("aifs_head" in name for name in moved)
    if adapter == "lora":
        assert any("lora_" in name for name in moved)
    terms = [row["cross_entropy"] for row in trainer.state.log_history if "cross_entropy" in row]
    quarter = len(terms) // 4
    if method in MOVING_LOSS:
        assert trainer.evaluate(trainer.train_dataset)["eval_accuracy"] > 0.6
    else:
        assert sum(terms[-quarter:]) < sum(terms[:quarter]), terms
    assert all(torch.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize("method", METHODS)
def test_resumes_exactly_within_an_epoch(method, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 4, "num_train_epochs": 2}
    modality = "table" if runs_on(method, "table") else "image"
    whole = make_trainer(method, modality, "lora", tmp_path / "whole", **options)
    whole.train()
    again = make_trainer(method, modality, "lora", tmp_path / "again", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    for (name, one), (_, two) in zip(whole.model.state_dict().items(), again.model.state_dict().items(), strict=True):
        assert torch.equal(one, two), name


def test_every_method_says_what_it_is():
    for name in METHODS:
        method = get(name)
        assert method.title, name
        assert method.paper, name
        assert method.cost, name
        assert method.supervision in {"none", "hints", "groups"}
        assert (method.supervision == "groups") == name.endswith("-oracle")
        assert isinstance(method.needs, tuple)
