"""ULE-style: gradients and penalties against closed forms, where it is degenerate, and a planted shortcut."""

import numpy as np
import pytest
import torch
from batches import epoch_context, step_context
from planted import planted, worst
from torch import nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent import MLPHead
from aifs_peft.methods import Latents, MethodSettings, Setup, make
from aifs_peft.methods.regularisers.ule import coordinate_change, cosine_penalty, output_gradient, saliency_penalty
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import LatentOutput


def built(**options):
    return make("ule", method_options=options)


def prepared(z, y, *, encoder_trains=False, **options):
    method = built(**options)
    everything = Latents(z, y, torch.arange(len(y)), len(y))
    method.prepare(epoch_context(nn.Identity(), encoder_trains=encoder_trains, encode_untuned=lambda: everything))
    return method


def tanh_gradient(head, z, output):
    """`d (output' logits) / dz` of a one-layer tanh MLP, in NumPy; `output` is `(batch, classes)`."""
    inner, outer = head.hidden_0.weight.detach().numpy(), head.output.weight.detach().numpy()
    hidden = np.tanh(z.numpy() @ inner.T + head.hidden_0.bias.detach().numpy())
    return (output @ outer * (1 - hidden**2)) @ inner


@pytest.mark.parametrize("classes", [2, 3])
def test_gradients_equal_the_closed_form(classes):
    head = MLPHead(4, classes, (5,), "tanh", dropout=0.5, generator=torch.Generator().manual_seed(0))
    z, y = torch.randn(6, 4), torch.arange(6) % classes
    output = np.tile([-1.0, 1.0], (6, 1)) if classes == 2 else np.eye(3)[y.numpy()]
    gradient = output_gradient(head, z, y, create_graph=True)
    np.testing.assert_allclose(gradient.detach().numpy(), tanh_gradient(head, z, output), rtol=1e-4, atol=1e-6)
    assert gradient.requires_grad
    assert head.dropout_0.training
    assert not output_gradient(head, z, y, create_graph=False).requires_grad


@pytest.mark.parametrize("coordinates", ["standardised", "whitened"])
@pytest.mark.parametrize("penalty", ["cosine", "saliency"])
def test_the_loss_equals_the_formula(coordinates, penalty):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(7, 4, generator=generator) * torch.tensor([1.0, 5.0, 0.2, 1.0])
    y = torch.arange(7) % 2
    head, student = MLPHead(4, 2, (5,), "tanh", generator=generator), nn.Linear(4, 2)
    method = prepared(z, y, coordinates=coordinates, penalty=penalty, lambda1=0.5, lambda2=3.0)
    context = step_context(head, y, auxiliary=student, progress=0.15)
    terms = method.loss(LatentOutput(z, head(z)), y, context)
    centred = z.double().numpy() - z.double().numpy().mean(0)
    if coordinates == "standardised":
        change = np.diag(centred.std(0))
    else:
        values, vectors = np.linalg.eigh(centred.T @ centred / 7)
        change = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    teacher = tanh_gradient(head, z, np.tile([-1.0, 1.0], (7, 1))) @ change
    weight = student.weight.detach().numpy()
    leaned = np.tile(weight[1] - weight[0], (7, 1)) @ change
    if penalty == "cosine":
        cosine = (leaned * teacher).sum(1) / np.linalg.norm(leaned, axis=1) / np.linalg.norm(teacher, axis=1)
        expected = (cosine**2).mean()
    else:
        a, b = (np.abs(g) / np.abs(g).max(1, keepdims=True) for g in (leaned, teacher))
        expected = ((b - 0.5 * (1 - a)) ** 2).mean()
    # At 15 % of all steps half of the ramp from 5 % to 25 % is done.
    assert float(terms["unlearning"].detach()) == pytest.approx(1.5 * expected, rel=1e-4)
    assert set(terms) == {"cross_entropy", "student", "unlearning"}
    grads = torch.autograd.grad(terms["unlearning"], list(student.parameters()), allow_unused=True, retain_graph=True)
    assert grads == (None, None)
    assert torch.autograd.grad(terms["unlearning"], head.hidden_0.weight)[0].abs().sum() > 0


def test_the_penalty_waits_for_the_student_and_grows():
    options = built(head_start=0.1, ramp=0.4, lambda2=2.0).options
    assert [options.weight(p) for p in (0.0, 0.1, 0.3, 0.5, 0.9)] == pytest.approx([0.0, 0.0, 1.0, 2.0, 2.0])
    step = built(head_start=0.1, ramp=0.0, lambda2=2.0).options
    assert [step.weight(p) for p in (0.0, 0.1, 0.9)] == [0.0, 2.0, 2.0]
    z, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    head = MLPHead(3, 2, (4,))
    context = step_context(head, y, auxiliary=nn.Linear(3, 2))
    assert set(prepared(z, y).loss(LatentOutput(z, head(z)), y, context)) == {"cross_entropy", "student"}


def test_a_tuned_encoder_is_the_teachers_alone():
    torch.manual_seed(0)
    before, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    head, student = MLPHead(3, 2, (4,)), nn.Linear(3, 2)
    z = (before + 1).requires_grad_()
    method = prepared(before, y, encoder_trains=True, student_q=0.0)
    context = step_context(head, y, auxiliary=student, progress=0.5)
    terms = method.loss(LatentOutput(z, head(z)), y, context)
    torch.testing.assert_close(terms["student"], nn.functional.cross_entropy(student(before), y))
    assert torch.autograd.grad(terms["student"], z, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(terms["unlearning"], z)[0].abs().sum() > 0


def test_a_linear_teacher_on_frozen_latents_has_one_gradient_and_is_refused():
    head = nn.Linear(3, 2)
    gradient = output_gradient(head, torch.randn(5, 3), torch.zeros(5, dtype=torch.long), create_graph=False)
    torch.testing.assert_close(gradient, (head.weight[1] - head.weight[0]).detach().expand(5, -1))
    given = {"num_labels": 2, "auxiliary": nn.Linear(3, 2)}
    with pytest.raises(InvalidConfigError, match=r"degenerates.*head=\"mlp\".*encoder_adapter"):
        built().check(Setup(head, encoder_trains=False, **given))
    built().check(Setup(head, encoder_trains=True, **given))
    built().check(Setup(MLPHead(3, 2, (4,)), encoder_trains=False, **given))
    with pytest.raises(InvalidConfigError, match=r"second head.*auxiliary=\"linear\""):
        built().check(Setup(head, encoder_trains=True, num_labels=2))


def test_a_right_angle_to_a_discriminant_in_whitened_latents_leaves_no_class_means_apart():
    """Why "whitened" is not the default: whatever is orthogonal there has equal class means."""
    z, y, _ = planted(n=1000)
    covariance = torch.cov(z.T.double(), correction=0)
    gap = (z[y == 1].mean(0) - z[y == 0].mean(0)).double()
    discriminant = torch.linalg.solve(covariance, gap)
    change = coordinate_change(z, "whitened").double()
    torch.testing.assert_close(change @ change, covariance, atol=1e-5, rtol=1e-5)
    teacher = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    along, seen = change @ discriminant, change @ teacher
    teacher = torch.linalg.solve(change, seen - along * (seen @ along) / (along @ along))
    assert float(cosine_penalty((change @ discriminant)[None], (change @ teacher)[None])) < 1e-12
    assert abs(float(teacher @ gap)) < 1e-4 * float(teacher.norm() * gap.norm())


def test_penalties_of_zero_gradients_are_finite():
    zero, one = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3)
    for value in (cosine_penalty(one, zero), saliency_penalty(one, zero, 1.0)):
        (gradient,) = torch.autograd.grad(value, zero)
        assert bool(gradient.isfinite().all())


def test_options_are_checked():
    for options, match in (
        ({"penalty": "cosin"}, "did you mean 'cosine'"),
        ({"coordinates": "raw"}, "coordinates must be one of"),
        ({"lambda2": -1}, "lambda2 must be"),
        ({"student_lr_scale": 0}, "student_lr_scale must be"),
        ({"student_q": 2}, "student_q must be"),
    ):
        with pytest.raises(InvalidConfigError, match=match):
            built(**options)


def test_a_shortcut_on_one_dimension_is_unlearned_and_runs_repeat():
    options = {"core_dims": 1, "shortcut_dims": 1}
    z, y, _ = planted(**options)
    schedule = LatentSchedule(epochs=20, learning_rate=1e-2)

    def fit(**own):
        settings = MethodSettings.for_method("ule", method_options=own)
        return fit_on_latents("ule", z, y, num_labels=2, settings=settings, schedule=schedule).head

    plain, unlearned = fit(lambda2=0.0), fit()
    assert worst(plain, **options) < 0.42
    assert worst(unlearned, **options) > 0.45
    assert all(torch.equal(a, b) for a, b in zip(unlearned.parameters(), fit().parameters(), strict=True))
