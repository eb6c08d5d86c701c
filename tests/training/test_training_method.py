"""Which method trains which adapter, what a checkpoint says of it, and when it would be plain training."""

import logging
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from training_zoo import lora, make_args, make_data, make_model, make_trainer, shortcut_data

from aifs_peft.errors import CheckpointMismatchError, InvalidConfigError
from aifs_peft.methods import TrainingPlan, get, make, names
from aifs_peft.training import AIFSTrainer, EpochHook
from aifs_peft.training.manifest import read_manifest, write_manifest
from aifs_peft.training.parallel import refuse_sharding
from aifs_peft.tuner import AIFSConfig

RECIPES = ("discovery", "paper", "erm")


@pytest.mark.parametrize("method", names())
@pytest.mark.parametrize("recipe", RECIPES)
def test_no_method_runs_on_the_numbers_of_another_recipe(tmp_path, method, recipe):
    cls = get(method)
    config = AIFSConfig(recipe=recipe, auxiliary=cls.auxiliary)
    mixes = {("aifs", "paper"), ("aifs-paper", "discovery"), ("aifs-paper", "erm")}
    if (method, recipe) not in mixes:
        assert make_trainer(tmp_path, config, method=method).method.name == method
        return
    with pytest.raises(InvalidConfigError, match=f"method '{method}' trains by the numbers of recipe") as error:
        make_trainer(tmp_path, config, method=method)
    assert f'the adapter has those of recipe "{recipe}"' in str(error.value)
    with pytest.raises(InvalidConfigError, match="the mixture is neither"):
        EpochHook(make_model(config), make_data(8), accelerator=Accelerator(cpu=True), method=method)


def test_numbers_that_a_user_sets_are_no_mixture(tmp_path):
    trainer = make_trainer(tmp_path, AIFSConfig(noise="gaussian", sensitivity_sign=-1), method="aifs")
    assert (trainer.method.settings.noise, trainer.method.settings.sensitivity_sign) == ("gaussian", -1)


def trained_checkpoint(folder, method, data):
    config = AIFSConfig(recipe={"aifs": "discovery", "aifs-paper": "paper"}.get(method, "erm"))
    options = {"method": method, "save_strategy": "epoch", "num_train_epochs": 1, "per_device_train_batch_size": 30}
    make_trainer(folder, config, data, **options).train()
    return next(folder.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("erm", "jtt"),
        ("erm", "aifs"),
        ("erm", "afr"),
        ("jtt", "erm"),
        ("aifs", "erm"),
        ("aifs", "jtt"),
        ("aifs-paper", "erm"),
    ],
)
def test_a_checkpoint_is_resumed_by_the_method_that_wrote_it(tmp_path, before, after):
    data = shortcut_data()
    checkpoint = trained_checkpoint(tmp_path, before, data)
    assert read_manifest(checkpoint)["method"] == before
    config = AIFSConfig(recipe="discovery" if after == "aifs" else "erm")
    other = make_trainer(tmp_path / "other", config, data, method=after, per_device_train_batch_size=30)
    with pytest.raises(
        CheckpointMismatchError, match=f"written by method '{before}', and is to be resumed by '{after}'"
    ):
        other.train(resume_from_checkpoint=str(checkpoint))
    # Even where the note is another, a method that has learnt before its first step misses what it learnt.
    if get(after).learns_first:
        numbers = {"settings": "", "configuration": ""}  # of an earlier release, which are not compared
        write_manifest(checkpoint, {**read_manifest(checkpoint), "method": after, **numbers})
        if before == "erm":
            with pytest.raises(CheckpointMismatchError, match=f"method '{after}' goes on from what it learnt"):
                make_trainer(tmp_path / "third", config, data, method=after, per_device_train_batch_size=30).train(
                    resume_from_checkpoint=str(checkpoint)
                )


def test_what_a_method_learns_first_is_there_after_its_first_step(tmp_path):
    data = shortcut_data()
    for method in ("aifs", "jtt", "afr", "lff", "xrm-gdro"):
        recipe = "discovery" if method == "aifs" else "erm"
        config = AIFSConfig(recipe=recipe, auxiliary=get(method).auxiliary)
        options = {"method_options": {"twins": {"draws": 2, "steps": 200}}} if method == "xrm-gdro" else {}
        trainer = make_trainer(tmp_path, config, data, method=method, max_steps=1, **options)
        trainer.method.finish = lambda context: {}  # after training it may let go of it
        trainer.train()
        assert get(method).learns_first
        for name in get(method).learns_first:
            buffer = getattr(trainer.layer.state, name)
            assert buffer.numel() > 0, f"{method}: {name}"
            assert buffer.ndim > 0 or buffer > 0, f"{method}: {name}"


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        (AIFSConfig.paper(), {"num_train_epochs": 1}, "before a mask was used"),
        (AIFSConfig.paper(), {"max_steps": 8}, "before a mask was used"),
        (AIFSConfig.paper(), {"max_steps": 3}, "before a mask was used"),
        (AIFSConfig.paper(), {"num_train_epochs": 4, "mask_update_every": 4}, "at the end of every 4 epoch"),
        (AIFSConfig.paper(), {"alpha": 0.0, "beta": 0.0}, "alpha and beta are 0"),
        (AIFSConfig.paper(), {"max_steps": 9}, None),
        (AIFSConfig.paper(), {"num_train_epochs": 2}, None),
        (AIFSConfig.paper(), {"num_train_epochs": 4, "mask_update_every": 3}, None),
        (AIFSConfig.paper(), {"num_train_epochs": 1, "gradient_accumulation_steps": 2}, "of 4 steps"),
        (AIFSConfig(recipe="erm"), {"num_train_epochs": 1}, None),
    ],
)
def test_a_method_that_will_be_plain_training_says_so_before_it_begins(tmp_path, caplog, config, options, said):
    trainer = make_trainer(tmp_path, config, **options)
    said_at = []
    handler = logging.Handler()
    handler.emit = lambda record: said_at.append((trainer.state.global_step, record.getMessage()))
    logger = logging.getLogger("aifs_peft.training.epoch_runner")
    logger.addHandler(handler)
    try:
        trainer.train()
    finally:
        logger.removeHandler(handler)
    told = [(step, text) for step, text in said_at if "will be plain training" in text]
    if said is None:
        assert told == []
    else:
        ((step, text),) = told
        assert step == 0
        assert said in text


def test_the_warm_up_of_ravl_counts():
    method = make("ravl", method_options={"warmup": 2})
    assert method.idle(TrainingPlan(steps=20, steps_per_epoch=10)) is not None
    assert method.idle(TrainingPlan(steps=21, steps_per_epoch=10)) is None


# Numbers under which nothing of a method is left -> what is said before training; an error where it is refused.
NEUTRAL = {
    "jtt, weight 1": ("jtt", {"lambda_up": 1.0}, {}, "lambda_up is 1"),
    "jtt, no repeats": ("jtt", {}, {"max_repeats": 1.0}, "max_repeats is 1"),
    "spectral-decoupling, strength 0": ("spectral-decoupling", {"strength": 0.0}, {}, "strength is 0"),
    "irm, penalty 0": ("irm", {"penalty": 0.0}, {"balance_groups": False}, "penalty is 0"),
    "elrep, thetas 0": ("elrep", {"theta1": 0.0, "theta2": 0.0}, {}, "InvalidConfigError"),
    "erm-balanced, no repeats": ("erm-balanced", {}, {"max_repeats": 1.0}, "InvalidConfigError"),
    "reweight-oracle, no repeats": ("reweight-oracle", {}, {"max_repeats": 1.0}, "InvalidConfigError"),
    "reweight-oracle, not balanced": ("reweight-oracle", {}, {"balance_groups": False}, "InvalidConfigError"),
}


@pytest.mark.parametrize("case", NEUTRAL)
def test_numbers_that_leave_nothing_of_a_method_are_told_or_refused(case):
    name, options, settings, said = NEUTRAL[case]
    plan = TrainingPlan(steps=30, steps_per_epoch=10)
    if said == "InvalidConfigError":
        setup = SimpleNamespace(auxiliary=None, tokens=True)
        with pytest.raises(InvalidConfigError, match="erm"):
            make(name, method_options=options, **settings).check(setup)
        return
    reason = make(name, method_options=options, **settings).idle(plan)
    assert reason is not None
    assert said in reason
    assert make(name).idle(plan) is None


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_sharding_by_a_launcher_is_refused(tmp_path, monkeypatch, variable):
    model, data = make_model(), make_data(8)
    args = make_args(tmp_path)
    accelerator = Accelerator(cpu=True)
    monkeypatch.setenv(variable, "true")
    with pytest.raises(InvalidConfigError, match=rf"(FSDP|DeepSpeed) is on \({variable}"):
        AIFSTrainer(model, args, train_dataset=data)
    with pytest.raises(InvalidConfigError, match="DistributedDataParallel"):
        EpochHook(model, data, accelerator=accelerator)
    monkeypatch.setenv(variable, "false")
    AIFSTrainer(model, args, train_dataset=data)


@pytest.mark.parametrize(("plugin", "engine"), [("fsdp_plugin", "FSDP"), ("deepspeed_plugin", "DeepSpeed")])
def test_sharding_by_an_accelerator_is_refused(plugin, engine):
    class State:
        pass

    accelerator = State()
    accelerator.state = State()
    refuse_sharding(accelerator)
    setattr(accelerator.state, plugin, object())
    with pytest.raises(InvalidConfigError, match=f"{engine} is on"):
        refuse_sharding(accelerator)


def test_a_model_loaded_in_shards_is_refused(tmp_path, monkeypatch):
    model = make_model(AIFSConfig.paper(encoder_adapter=lora()))
    monkeypatch.setattr(type(model.get_base_model()), "is_distributed_loading_by_transformers", True)
    with pytest.raises(InvalidConfigError, match="loaded in shards"):
        make_trainer(tmp_path, model=model)
