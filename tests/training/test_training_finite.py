"""What is NaN or infinite ends a training with the step and the cause; nothing of it is saved."""

import pytest
import torch
from torch.utils.data import Dataset
from training_zoo import make_data, make_trainer
from transformers import TrainerCallback

from aifs_peft.errors import NonFiniteError
from aifs_peft.training.finite import require_finite_gradients
from aifs_peft.training.manifest import read_manifest


class AtStep(TrainerCallback):
    """Does something to the trainer's model right after one step, or before the update of it."""

    def __init__(self, step, harm):
        self.step, self.harm = step, harm

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        if state.global_step + 1 == self.step:
            self.harm(model)


def spoil(value):
    def harm(model):
        weight = next(p for name, p in model.named_parameters() if name.endswith("aifs_head.default.weight"))
        weight.data[0, 0] = value

    return harm


def gradient_of(value):
    """A loss whose gradient is wrong in the last step of two epochs."""
    calls = []

    def loss(outputs, labels, num_items_in_batch):
        calls.append(1)
        plain = torch.nn.functional.cross_entropy(outputs["logits"], labels)
        if len(calls) == 16:
            outputs["logits"].register_hook(lambda gradient: gradient * value)
        return plain

    return loss


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_of_the_last_step_that_is_not_finite_is_no_success(tmp_path, value, clip):
    trainer = make_trainer(
        tmp_path, compute_loss_func=gradient_of(value), method="erm", save_strategy="epoch", max_grad_norm=clip
    )
    with pytest.raises(NonFiniteError, match=r"norm of the gradient is (nan|inf) in step 16") as found:
        trainer.train()
    wanted = "beyond the numbers' range" if value == 1e30 else "the gradient of .* holds NaN or infinity"
    assert found.match(wanted)
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-8"]
    read_manifest(tmp_path / "checkpoint-8")


def test_a_gradient_whose_square_overflows_is_named_as_such():
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.grad = torch.full((1, 1), 1e30)
    layer.weight.grad = layer.weight.grad.repeat(1, 1)
    with pytest.raises(NonFiniteError, match="beyond the numbers' range"):
        require_finite_gradients(torch.nn.Sequential(layer, _with_gradient(1e30)), 0)


def _with_gradient(value):
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.grad = torch.full((1, 1), value)
    return layer


@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_weights_are_looked_at_after_the_last_step_and_before_each_save(tmp_path, strategy):
    trainer = make_trainer(tmp_path, callbacks=[AtStep(16, spoil(float("inf")))], method="erm", save_strategy=strategy)
    with pytest.raises(NonFiniteError, match=r"after step 16 the weights of .*aifs_head.*weight are NaN or infinite"):
        trainer.train()
    assert not (tmp_path / "checkpoint-16").exists()


def test_an_evaluation_of_logits_that_are_not_finite_raises(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=make_data(16))
    spoil(float("nan"))(trainer.model)
    with pytest.raises(NonFiniteError, match=r"evaluation batch .* after step 0: the weights of .*aifs_head"):
        trainer.evaluate()
    with pytest.raises(NonFiniteError, match="the weights of"):
        trainer.predict([{"pixel_values": row["pixel_values"]} for row in make_data(4)])


class OneBadPicture(Dataset):
    def __init__(self):
        self.rows = make_data(16)
        self.rows[3] = {**self.rows[3], "pixel_values": torch.full((3, 8, 8), float("nan"))}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def test_the_input_is_named_where_it_is_the_cause(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=OneBadPicture(), eval_strategy="epoch")
    with pytest.raises(NonFiniteError, match="after step 8: so is the input pixel_values"):
        trainer.train()
