"""A training method in one's own Accelerate loop: the training is that of `AIFSTrainer`."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from training_modes import AMPLIFIED, BFLOAT16, ROUNDING, SIZE, assert_within, model_for
from training_zoo import assert_equal, lora, make_data, make_model, make_trainer, shortcut_data, trained

from aifs_peft.errors import CheckpointMismatchError, HeadError, InvalidConfigError, InvalidInputError
from aifs_peft.training import EpochHook
from aifs_peft.tuner import AIFSConfig


def train(config, data, epochs=2, completed=0, model=None, optimizer_state=None, stop=None, accumulate=1, **options):
    """A plain loop; gives the model, the hook and what was noted at the epoch `stop`."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = make_model(config) if model is None else model
    rows = [{"pixel_values": row["pixel_values"], "labels": row["label"]} for row in data]
    hook = EpochHook(model, rows, accelerator=accelerator, batch_size=8 // accumulate, seed=7, **options)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    noted = None
    for epoch in hook.epochs(epochs, completed):
        for batch in hook.loader:
            with accelerator.accumulate(wrapped):
                accelerator.backward(hook.loss(wrapped, batch))
                optimizer.step()
                optimizer.zero_grad()
        if epoch + 1 == stop:
            hook.finish_epoch()
            weights = {name: value.clone() for name, value in get_peft_model_state_dict(model).items()}
            noted = weights, copy.deepcopy(optimizer.state_dict())
    return model, hook, noted


@pytest.mark.parametrize("recipe", ["erm", "paper", "discovery"])
def test_the_loop_trains_what_the_trainer_trains(tmp_path, recipe):
    data = shortcut_data()

    def config():
        return AIFSConfig(recipe=recipe, encoder_adapter=lora())

    trainer = make_trainer(
        tmp_path, config(), data, lr_scheduler_type="constant", max_grad_norm=0.0, optim="adamw_torch",
        ddp_find_unused_parameters=None,
    )  # fmt: skip
    trainer.train()
    model, hook, _ = train(config(), data)
    assert_equal(trained(trainer.model), trained(model))
    assert hook.step == trainer.state.global_step
    assert ("invariance" in hook.numbers) == (recipe != "erm")


def test_accumulated_batches_are_one_batch():
    data = make_data(64)
    results = [train(AIFSConfig.paper(mask_scale="max"), data, accumulate=k)[0] for k in (1, 4)]
    assert_equal(*(trained(model) for model in results), exact=False, tolerance=1e-5)


def test_a_loop_goes_on_from_an_epochs_end():
    data = make_data(64)

    def config():
        return AIFSConfig.paper(mask_scale="max", ema_decay=0.5, encoder_adapter=lora())

    whole, hook, (weights, optimizer) = train(config(), data, epochs=3, stop=1)
    assert int(hook.layer.state.num_updates) == 3
    again = make_model(config())
    set_peft_model_state_dict(again, weights)
    resumed, _, _ = train(config(), data, epochs=3, completed=1, model=again, optimizer_state=optimizer)
    assert_equal(trained(whole), trained(resumed))
    with pytest.raises(CheckpointMismatchError, match="method 'aifs' goes on from what it learnt"):
        train(AIFSConfig(), data, epochs=3, completed=1)


MODES = {
    "eager attention": ({"attention": "eager"}, AMPLIFIED),
    "checkpointing": ({"checkpointing": {"use_reentrant": False}}, 0.0),
    "reentrant checkpointing": ({"checkpointing": {"use_reentrant": True}}, 0.0),
    "accumulation": ({"accumulate": 2}, ROUNDING),
    "bfloat16": ({"precision": "bf16"}, BFLOAT16),
    "compiled": ({"backend": "eager"}, 0.0),
}


def own_loop(recipe, regime, attention=None, checkpointing=None, accumulate=1, precision="no", backend=None):
    """Two epochs of a plain loop under a mode, on the data and models of `training_modes`."""
    model = model_for(recipe, regime, attention)
    if checkpointing is not None:
        model.get_base_model().activation_checkpointing_enable(checkpointing)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate, mixed_precision=precision)
    rows = [{"pixel_values": row["pixel_values"], "labels": row["label"]} for row in shortcut_data(SIZE)]
    hook = EpochHook(model, rows, accelerator=accelerator, batch_size=16 // accumulate, seed=7)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    runs, optimizer = accelerator.prepare(model, optimizer)
    if backend is not None:
        torch._dynamo.reset()
        runs = torch.compile(runs, backend=backend)
    for _ in hook.epochs(2):
        for batch in hook.loader:
            with accelerator.accumulate(runs):
                accelerator.backward(hook.loss(runs, batch))
                optimizer.step()
                optimizer.zero_grad()
    return trained(model)


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Precision is a state of the process in Accelerate."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # Dynamo's own
@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize(("recipe", "regime"), [("discovery", "LoRA"), ("paper", "frozen")])
def test_a_mode_gives_the_plain_loop(name, recipe, regime):
    options, share = MODES[name]
    plain = own_loop(recipe, regime)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert_within(own_loop(recipe, regime, **options), plain, share)


def test_fp16_that_would_be_left_out_is_refused():
    accelerator = Accelerator(cpu=True, mixed_precision="fp16")
    with pytest.raises(InvalidConfigError, match="fp16 does nothing on a CPU"):
        EpochHook(make_model(), make_data(8), accelerator=accelerator)


def test_an_encoder_that_gets_no_gradient_is_refused_in_the_first_step():
    model = make_model(AIFSConfig.paper(encoder_adapter=lora()))
    encoder = model.get_base_model().vit
    forward = encoder.forward
    encoder.forward = lambda *given, **named: torch.no_grad()(forward)(*given, **named)
    hook = EpochHook(model, [{k: r[k] for k in ("pixel_values", "label")} for r in make_data(16)], batch_size=8)
    for _ in hook.epochs(1):
        with pytest.raises(InvalidConfigError, match="no gradient reaches them"):
            hook.loss(model, next(iter(hook.loader)))
        break


def test_what_does_not_fit_is_refused():
    data = [{"pixel_values": torch.zeros(3, 8, 8), "label": 0}] * 4
    accelerator = Accelerator(cpu=True)
    with pytest.raises(HeadError, match="get_peft_model"):
        EpochHook(nn.Linear(2, 2), data, accelerator=accelerator)
    with pytest.raises(InvalidInputError, match="nothing to tell apart"):
        EpochHook(make_model(), data, accelerator=accelerator)
    with pytest.raises(InvalidConfigError, match="unknown method 'aifz'"):
        EpochHook(make_model(), data, accelerator=accelerator, method="aifz")
