"""A checkpoint goes on as what it is: every method's under every other method, and under other numbers."""

import functools
import logging

import pytest
import torch
from accelerate import Accelerator
from methods_zoo import METHODS, OPTIONS, base_model, make_rows, make_trainer
from peft import LoraConfig, PeftModel, get_peft_model

from aifs_peft.errors import CheckpointMismatchError
from aifs_peft.methods import get
from aifs_peft.training import AIFSTrainer, EpochHook
from aifs_peft.training.manifest import read_manifest, write_manifest
from aifs_peft.training.resuming import check_same_run, saved_run
from aifs_peft.tuner import AIFSConfig

STEPS = 2  # of 6 in an epoch


@functools.cache
def resumer(method, folder):
    """A trainer of this method that has not trained yet; being refused leaves it so."""
    return make_trainer(method, "image", "lora", folder / f"by-{method}", max_steps=STEPS + 1)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """One checkpoint of each method, in mid-epoch, made when first asked for."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def of(method):
        options = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": STEPS}
        trainer = make_trainer(method, "image", "lora", folder / method, **options)
        trainer.method.finish = lambda context: {}  # what comes after training is not asked about here
        trainer.train()
        return folder / method / f"checkpoint-{STEPS}"

    yield of
    resumer.cache_clear()


@pytest.mark.parametrize("before", METHODS)
def test_under_every_other_method_it_is_refused(before, checkpoints, tmp_path_factory):
    checkpoint = checkpoints(before)
    assert read_manifest(checkpoint)["method"] == before
    for after in METHODS:
        if after == before:
            continue
        trainer = resumer(after, tmp_path_factory.getbasetemp())
        said = f"written by method '{before}', and is to be resumed by '{after}'"
        with pytest.raises(CheckpointMismatchError, match=said):
            trainer.train(resume_from_checkpoint=str(checkpoint))
        assert trainer.state.global_step == 0


@pytest.mark.parametrize("method", METHODS)
def test_under_its_own_method_it_goes_on(method, checkpoints, tmp_path):
    trainer = make_trainer(method, "image", "lora", tmp_path, max_steps=STEPS + 1)
    trainer.method.finish = lambda context: {}
    trainer.train(resume_from_checkpoint=str(checkpoints(method)))
    assert trainer.state.global_step == STEPS + 1


# Method, training arguments of the run that goes on, what is said of the change.
CHANGED = [
    ("jtt", {"method_options": {"lambda_up": 50.0}}, "method_options.lambda_up 20.0 then, 50.0 now"),
    ("jtt", {"max_repeats": 5.0}, "max_repeats 20.0 then, 5.0 now"),
    ("afr", {"method_options": {"steps": 50, "held_out": 0.4}}, "method_options.held_out 0.2 then, 0.4 now"),
    ("irm", {"method_options": {"environments": "eiil", "min_examples": 1}}, "'given' then, 'eiil' now"),
    ("xrm-gdro", {"method_options": {"twins": {"draws": 3, "steps": 200}}}, "method_options.twins.draws 2 then, 3 now"),
    ("gdro-oracle", {"balance_groups": False}, "balance_groups True then, False now"),
    ("erm", {"label_smoothing_factor": 0.1}, "label_smoothing 0.0 then, 0.1 now"),
    ("aifs", {"alpha": 0.25}, "alpha 1.0 then, 0.25 now"),
    ("aifs", {"lambda_": 2.0}, "lambda_ 0.5 then, 2.0 now"),
    ("aifs", {"directions": "keep"}, "directions 'refit' then, 'keep' now"),
    ("aifs", {"discovery_options": {"max_attributes": 2}}, "discovery.max_attributes None then, 2 now"),
    ("aifs", {"method_options": {"synthetic": 0.0}}, "method_options.synthetic .* then, 0.0 now"),
    ("aifs-paper", {"beta": 0.0}, "beta 0.5 then, 0.0 now"),
    ("aifs-paper", {"class_weights": [1.0, 2.0]}, r"class_weights None then, \[1.0, 2.0\] now"),
    ("aifs-paper", {"mask_update_every": 2}, "mask_update_every 1 then, 2 now"),
    ("aifs", {"mask_samples": 30}, "mask_samples None then, 30 now"),
]


@pytest.mark.parametrize(("method", "options", "said"), CHANGED, ids=[f"{m}-{'-'.join(o)}" for m, o, _ in CHANGED])
def test_other_numbers_are_refused_by_name(method, options, said, checkpoints, tmp_path):
    trainer = make_trainer(method, "image", "lora", tmp_path, max_steps=STEPS + 1, **options)
    with pytest.raises(CheckpointMismatchError, match=f"other numbers of method '{method}': .*{said}"):
        trainer.train(resume_from_checkpoint=str(checkpoints(method)))


# What the method does not read, or what says the same: nothing is another than it was.
UNCHANGED = [
    ("erm", {"alpha": 9.0, "directions": "keep"}),
    ("jtt", {"method_options": {"lambda_up": 20.0}, "beta": 3.0}),
    ("aifs", {"alpha": 1.0}),
]


@pytest.mark.parametrize(("method", "options"), UNCHANGED)
def test_numbers_that_change_nothing_are_no_others(method, options, checkpoints, tmp_path):
    trainer = make_trainer(method, "image", "lora", tmp_path, max_steps=STEPS + 1, **options)
    trainer.train(resume_from_checkpoint=str(checkpoints(method)))
    assert trainer.state.global_step == STEPS + 1


CONFIGURATIONS = {
    "encoder_adapter.lora_alpha 8 then, 32 now": {"encoder_adapter": LoraConfig(r=4, lora_alpha=32)},
    "encoder_adapter.lora_dropout 0.0 then, 0.5 now": {"encoder_adapter": LoraConfig(r=4, lora_dropout=0.5)},
    "encoder_adapter.use_rslora False then, True now": {"encoder_adapter": LoraConfig(r=4, use_rslora=True)},
    "pool 'auto' then, 'mean' now": {"pool": "mean"},
    "trained_modules None then, 'all-linear' now": {"trained_modules": "all-linear", "encoder_adapter": None},
}


@pytest.mark.parametrize(("said", "changes"), CONFIGURATIONS.items())
def test_another_adapter_is_refused_by_name(said, changes, checkpoints, tmp_path):
    trainer = make_trainer("erm", "image", "lora", tmp_path, max_steps=STEPS + 1)
    config = AIFSConfig(**{"recipe": "erm", "encoder_adapter": LoraConfig(r=4), **changes})
    model = get_peft_model(base_model("image"), config)
    other = AIFSTrainer(model, trainer.args, train_dataset=make_rows("image"), eval_dataset=make_rows("image", 64))
    with pytest.raises(CheckpointMismatchError, match=f"other configuration of the adapter: .*{said}"):
        other.train(resume_from_checkpoint=str(checkpoints("erm")))


@pytest.mark.parametrize("method", METHODS)
def test_another_seed_at_an_epochs_end_is_refused_where_what_is_held_out_would_be_drawn_anew(method, tmp_path, caplog):
    then, now = (make_trainer(method, "image", "lora", tmp_path, seed=seed)._run() for seed in (1, 2))
    saved = saved_run(then, step=6, epoch=1.0, resumable=True)
    if method in ("leia", "neurontune", "ravl", "shortcutprobe"):
        with pytest.raises(CheckpointMismatchError, match=f"numbers of method '{method}': seed 1 then, 2 now"):
            check_same_run("here", saved, now)
        return
    with caplog.at_level(logging.WARNING):
        check_same_run("here", saved, now)
    assert "not exactly the uninterrupted one" in caplog.text


def test_a_note_of_an_earlier_release_is_not_compared(checkpoints, tmp_path, caplog):
    trainer = make_trainer("erm", "image", "lora", tmp_path / "first", max_steps=STEPS, save_steps=STEPS,
                           save_strategy="steps")  # fmt: skip
    trainer.train()
    checkpoint = tmp_path / "first" / f"checkpoint-{STEPS}"
    write_manifest(checkpoint, {**read_manifest(checkpoint), "settings": "0" * 64, "configuration": "0" * 64})
    again = make_trainer("erm", "image", "lora", tmp_path / "again", max_steps=STEPS + 1)
    with caplog.at_level(logging.WARNING):
        again.train(resume_from_checkpoint=str(checkpoint))
    assert "of an earlier release, does not tell the numbers of method 'erm'" in caplog.text
    assert again.state.global_step == STEPS + 1


def test_in_a_loop_of_ones_own_every_other_method_is_refused():
    hooks = {}
    for method in METHODS:
        cls = get(method)
        config = AIFSConfig(recipe=cls.recipe, auxiliary=cls.auxiliary, encoder_adapter=LoraConfig(r=4))
        model = get_peft_model(base_model("image"), config)
        options = {"method": method, "method_options": OPTIONS.get(method, {})}
        hooks[method] = EpochHook(model, make_rows("image"), accelerator=Accelerator(cpu=True), **options)
    for before, written in hooks.items():
        for after, hook in hooks.items():
            if before == after:
                hook.load_state_dict(written.state_dict())
                continue
            said = f"the loaded state was written by method '{before}', and is to be resumed by '{after}'"
            with pytest.raises(CheckpointMismatchError, match=said):
                hook.load_state_dict(written.state_dict())


def test_accelerate_asks_a_registered_hook(tmp_path):
    def loop(folder, method="jtt", resume=False, **options):
        accelerator = Accelerator(cpu=True)
        model = get_peft_model(base_model("table"), AIFSConfig(recipe="erm"))
        hook = EpochHook(model, make_rows("table"), accelerator=accelerator, method=method, **options)
        accelerator.register_for_checkpointing(hook)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        model, optimizer = accelerator.prepare(model, optimizer)
        if resume:
            accelerator.load_state(folder)
        for _ in hook.epochs(2 if resume else 1, completed=int(resume)):
            for batch in hook.loader:
                accelerator.backward(hook.loss(model, batch))
                optimizer.step()
                optimizer.zero_grad()
            hook.finish_epoch()
        if not resume:
            accelerator.save_state(folder)
        return hook

    folder = str(tmp_path / "state")
    first = loop(folder)
    again = loop(folder, resume=True)
    assert again.step == 2 * first.step
    assert torch.equal(again.layer.state.weights, first.layer.state.weights)
    with pytest.raises(CheckpointMismatchError, match="written by method 'jtt', and is to be resumed by 'afr'"):
        loop(folder, method="afr", resume=True)
    with pytest.raises(CheckpointMismatchError, match=r"method_options.lambda_up 20.0 then, 4.0 now"):
        loop(folder, method_options={"lambda_up": 4.0}, resume=True)


# Method of the adapter, method that trains it anew, what it must not take over.
ANEW = [
    ("jtt", "erm", "weights"),
    ("afr", "gdro-oracle", "weights"),
    ("irm", "jtt", "groups"),
    ("gdro-oracle", "ravl", "memory"),
    ("spume", "ravl", "memory"),
    ("xrm-gdro", "reweight-oracle", "groups"),
]


@pytest.mark.parametrize(("before", "after", "name"), ANEW)
def test_a_new_training_of_anothers_adapter_takes_nothing_over(before, after, name, checkpoints, tmp_path):
    checkpoint = str(checkpoints(before))
    model = PeftModel.from_pretrained(base_model("image"), checkpoint, is_trainable=True)
    args = make_trainer(after, "image", "lora", tmp_path, max_steps=7).args
    trainer = AIFSTrainer(model, args, train_dataset=make_rows("image"), eval_dataset=make_rows("image", 64))
    held = getattr(trainer.layer.state, name).clone()
    assert held.numel()
    trainer.train()
    now = getattr(trainer.layer.state, name)
    assert now.shape != held.shape or not torch.equal(now, held)
