"""ULE by saliency: its loss against NumPy, who is trained by what, and where it is degenerate."""

import numpy as np
import pytest
import torch
from batches import epoch_context, step_context
from torch import nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent import MLPHead
from aifs_peft.methods import Latents, Setup, TrainingPlan, make
from aifs_peft.methods.regularisers.ule_saliency import largest_output_gradient
from aifs_peft.tuner import LatentOutput


def heads(classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (MLPHead(4, classes, (5,), "tanh", dropout=0.5, generator=generator) for _ in range(2))


def numpy_saliency(head, z):
    """`|d max_k s_k / dz|` divided by its largest entry, of a one-layer tanh MLP."""
    inner, outer = head.hidden_0.weight.detach().numpy(), head.output.weight.detach().numpy()
    hidden = np.tanh(z.detach().numpy() @ inner.T + head.hidden_0.bias.detach().numpy())
    largest = (hidden @ outer.T + head.output.bias.detach().numpy()).argmax(1)
    gradient = np.abs((outer[largest] * (1 - hidden**2)) @ inner)
    return gradient / gradient.max(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_loss_equals_the_formula(classes):
    head, student = heads(classes)
    z, y = torch.randn(7, 4, generator=torch.Generator().manual_seed(1)), torch.arange(7) % classes
    method = make("ule-saliency", method_options={"lambda1": 0.5, "lambda2": 3.0})
    method.prepare(epoch_context(head))
    terms = method.loss(LatentOutput(z, head(z)), y, step_context(head, y, auxiliary=student.eval()))
    seen, own = numpy_saliency(student, z), numpy_saliency(head, z)
    assert float(terms["unlearning"].detach()) == pytest.approx(3 * ((0.5 * (1 - seen) - own) ** 2).mean(), rel=1e-4)
    torch.testing.assert_close(terms["student"], nn.functional.cross_entropy(student(z), y))
    assert set(terms) == {"cross_entropy", "student", "unlearning"}
    assert head.dropout_0.training


def test_the_student_learns_from_labels_alone_and_the_teacher_alone_tunes_the_encoder():
    head, student = heads(2)
    before, y = torch.randn(4, 4), torch.tensor([0, 1, 0, 1])
    z = (before + 1).requires_grad_()
    everything = Latents(before, y, torch.arange(4), 4)
    method = make("ule-saliency")
    method.prepare(epoch_context(head, encoder_trains=True, encode_untuned=lambda: everything))
    terms = method.loss(LatentOutput(z, head(z)), y, step_context(head, y, auxiliary=student.eval()))
    torch.testing.assert_close(terms["student"], nn.functional.cross_entropy(student(before), y))
    assert torch.autograd.grad(terms["student"], z, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(terms["unlearning"], z, retain_graph=True)[0].abs().sum() > 0
    parameters = list(student.parameters())
    grads = torch.autograd.grad(terms["unlearning"], parameters, allow_unused=True, retain_graph=True)
    assert set(grads) == {None}
    assert torch.autograd.grad(terms["unlearning"], head.hidden_0.weight)[0].abs().sum() > 0


def test_a_linear_teacher_on_frozen_latents_is_refused_and_no_penalty_is_told():
    head, second = nn.Linear(3, 2), MLPHead(3, 2, (4,))
    with pytest.raises(InvalidConfigError, match=r"degenerates.*head=\"mlp\".*encoder_adapter"):
        make("ule-saliency").check(Setup(head, encoder_trains=False, num_labels=2, auxiliary=second))
    make("ule-saliency").check(Setup(head, encoder_trains=True, num_labels=2, auxiliary=second))
    plan = TrainingPlan(steps=10, steps_per_epoch=5)
    assert make("ule-saliency").idle(plan) is None
    assert "lambda2 is 0" in make("ule-saliency", method_options={"lambda2": 0.0}).idle(plan)
    with pytest.raises(InvalidConfigError, match="lambda1 must be"):
        make("ule-saliency", method_options={"lambda1": -1})


def test_the_gradient_keeps_a_graph_only_where_it_is_asked_to():
    head, _ = heads(2)
    z = torch.randn(3, 4)
    assert largest_output_gradient(head, z, create_graph=True).requires_grad
    assert not largest_output_gradient(head, z, create_graph=False).requires_grad
