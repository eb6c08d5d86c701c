"""Contrastive tuning that guards against a shortcut: what it searches, draws, moves, saves and refuses."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoProcessor, CLIPModel, PrinterCallback, TrainingArguments

from aifs_peft import data
from aifs_peft.data.spurious_scenes import caption_gallery, captions
from aifs_peft.data.spurious_scenes.captions import UNNAMED
from aifs_peft.discovery import discover
from aifs_peft.errors import InvalidInputError
from aifs_peft.training import RetrievalTrainer

FOLDER = str(files("aifs_peft") / "assets" / "tiny_clip")


@pytest.fixture(scope="module")
def scenes():
    loaded = data.load("spurious_scenes", world="factory", n_train=800, n_validation=40, n_test=10, image_size=32,
                       core_strength=2.0)  # fmt: skip
    return {name: loaded[name].add_column("text", captions(loaded[name]).texts) for name in ("train", "validation")}


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


def trainer_on(train, processor, folder, steps=2, model=None, **kwargs):
    torch.manual_seed(0)
    if model is None:
        model = get_peft_model(CLIPModel.from_pretrained(FOLDER), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    args = TrainingArguments(str(folder), max_steps=steps, per_device_train_batch_size=16, learning_rate=1e-3, seed=0,
                             report_to="none", disable_tqdm=True, use_cpu=True, save_steps=2)  # fmt: skip
    trainer = RetrievalTrainer(model, args, train_dataset=train, processing_class=processor, **kwargs)
    trainer.remove_callback(PrinterCallback)
    return trainer


def adapter_of(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.fixture(scope="module")
def trained(scenes, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    trainer = trainer_on(scenes["train"], processor, folder, steps=4, eval_dataset=scenes["validation"], moved=0.5)
    before = adapter_of(trainer)
    trainer.train()
    return trainer, before, folder


def test_the_line_is_found_and_cells_come_equally_often(scenes, trained):
    trainer, before, _ = trained
    assert trainer.robust
    line = np.asarray(scenes["train"]["factor_line"][:])
    assert np.mean(trainer.discovery.groups_ == line) > 0.99
    drawn = torch.cat([2 * batch["classes"] + batch["values"] for batch in trainer.get_train_dataloader()])
    counts = torch.bincount(drawn, minlength=4)
    assert int(counts.max() - counts.min()) <= 1
    assert any(not torch.equal(before[name], p) for name, p in adapter_of(trainer).items())


def test_the_moved_pairs_are_part_of_the_loss_in_training_alone(trained):
    trainer, _, _ = trained
    batch = next(iter(trainer.get_train_dataloader()))
    rest = {name: part for name, part in batch.items() if name not in ("classes", "values")}

    def loss(given):
        return float(trainer.compute_loss(trainer.model, dict(given)).detach())

    trainer.model.train()
    pairs_alone = loss(rest)
    assert loss(batch) != pytest.approx(pairs_alone, abs=1e-4)
    trainer.moved = 0.0
    assert loss(batch) == pytest.approx(pairs_alone, abs=1e-4)
    trainer.moved = 0.5
    trainer.model.eval()
    assert loss(batch) == pytest.approx(pairs_alone, abs=1e-4)
    assert 0 < trainer.evaluate()["eval_loss"] < 10


def test_resumed_it_goes_on_as_if_never_stopped(trained, scenes, processor):
    trainer, _, folder = trained
    again = trainer_on(scenes["train"], processor, folder, steps=4, moved=0.5)
    again.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    for name, p in adapter_of(trainer).items():
        assert torch.equal(p, adapter_of(again)[name]), name


def test_saved_and_reloaded_it_embeds_the_same(trained, scenes, processor, tmp_path):
    trainer, _, _ = trained
    images, texts = trainer.embed(scenes["validation"])
    assert images.shape == texts.shape == (40, 128)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1.0, atol=1e-5)
    trainer.model.save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(CLIPModel.from_pretrained(FOLDER), tmp_path)
    other = trainer_on(None, processor, tmp_path, model=model)
    again = other.embed(scenes["validation"])
    np.testing.assert_allclose(again[0], images, atol=1e-6)
    np.testing.assert_allclose(again[1], texts, atol=1e-6)


def test_plain_where_it_is_asked_for_and_where_nothing_is_found(scenes, processor, tmp_path):
    small = scenes["train"].select(range(100))
    plain = trainer_on(small, processor, tmp_path, discovery=False)
    plain.train()
    searched = trainer_on(small.remove_columns("label").add_column("label", [0, 1] * 50), processor, tmp_path)
    searched.train()
    assert not plain.robust
    assert not searched.robust
    assert not searched.discovery.found
    for name, p in adapter_of(plain).items():
        assert torch.equal(p, adapter_of(searched)[name]), name


def test_what_it_cannot_train_on_is_refused(scenes, processor, tmp_path):
    small = scenes["train"].select(range(60))
    with pytest.raises(InvalidInputError, match="Linear embeds no images and texts"):
        trainer_on(small, processor, tmp_path, model=torch.nn.Linear(2, 2))
    with pytest.raises(InvalidInputError, match="the model's processor for images and texts"):
        trainer_on(small, processor.image_processor, tmp_path)
    with pytest.raises(InvalidInputError, match="one of captions, named text or caption"):
        trainer_on(small.remove_columns("text"), processor, tmp_path)
    with pytest.raises(InvalidInputError, match="discovery=False for plain tuning"):
        trainer_on(small.remove_columns("label"), processor, tmp_path).train()
    with pytest.raises(InvalidInputError, match="no training set"):
        trainer_on(None, processor, tmp_path).train()
    with pytest.raises(InvalidInputError, match="moved must be a finite number"):
        trainer_on(small, processor, tmp_path, moved=1.0)
    with pytest.raises(InvalidInputError, match="None searches, False trains plainly"):
        trainer_on(small, processor, tmp_path, discovery=True)
    other = discover(np.random.default_rng(0).normal(size=(80, 4)), np.arange(80) % 2, random_state=0)
    with pytest.raises(InvalidInputError, match="discovery is of 80 examples and the training set has 60"):
        trainer_on(small, processor, tmp_path, discovery=other).train()


def test_captions_are_true_of_their_scenes(scenes):
    made = captions(scenes["train"], named=0.5, seed=3)
    assert made.true_of(scenes["train"]).diagonal().all()
    assert 0.4 < np.mean(made.first != UNNAMED) < 0.6
    gallery = caption_gallery(scenes["train"])
    assert len(set(gallery.texts)) == len(gallery.texts) == 36
    true = gallery.true_of(scenes["train"])
    assert (true.sum(axis=1) == 6).all()  # unnamed or rightly named, in three wordings
    with pytest.raises(InvalidInputError, match="named"):
        captions(scenes["train"], named=2.0)
