"""ShortcutProbe-style: the split, the detector and the retraining by small computations, and a planted shortcut."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from batches import epoch_context
from planted import planted, worst
from torch import nn

from aifs_peft.errors import HeadError, InvalidConfigError, InvalidInputError
from aifs_peft.latent import MLPHead
from aifs_peft.methods import Latents, Setup, make
from aifs_peft.methods.common.held_out import stratified_rows
from aifs_peft.methods.common.last_linear import last_features, last_linear
from aifs_peft.methods.last_layer.shortcutprobe_directions import (
    Descent,
    high_loss_half,
    invariant_layer,
    mistake_directions,
    shortcut_basis,
)
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents


def built(**options):
    return make("shortcutprobe", method_options=options)


def shortcut_head(width=16):
    """A linear head that adds up the core and the shortcut dimensions of `planted`, the shortcut more."""
    head = nn.Linear(width, 2)
    with torch.no_grad():
        direction = torch.zeros(width)
        direction[:4], direction[4:8] = 0.5, 1.0
        head.weight.copy_(torch.stack([-direction, direction]))
        head.bias.zero_()
    return head


def finished(head, z, y, **options):
    method = built(**options)
    everything = Latents(z, y, torch.arange(len(y)), len(y))
    context = epoch_context(head, labels=y, encode=lambda: everything, seed=3)
    method.prepare(context)
    return method.finish(context)


def test_the_probe_set_is_a_share_of_each_class_and_never_trained_on():
    y = torch.tensor([0] * 50 + [1] * 20 + [2] * 5)
    probe = stratified_rows(y, 0.2, seed=1, fewest=2)
    assert [int(probe[y == c].sum()) for c in (0, 1, 2)] == [10, 4, 2]
    assert torch.equal(probe, stratified_rows(y, 0.2, seed=1, fewest=2))
    assert not torch.equal(probe, stratified_rows(y, 0.2, seed=2, fewest=2))
    plan = built().sampling(y, epoch_context(nn.Identity(), seed=1))
    assert torch.equal(plan.weights == 0, probe)
    with pytest.raises(InvalidInputError, match=r"class 1 has 3 training.*at least 4"):
        built().prepare(epoch_context(nn.Identity(), labels=torch.tensor([0, 0, 0, 0, 1, 1, 1])))


def test_halves_are_by_loss_within_each_class():
    generator = torch.Generator().manual_seed(0)
    losses, y = torch.rand(41, generator=generator), torch.arange(41) % 3
    high = high_loss_half(losses, y)
    for c in (0, 1, 2):
        own = losses[y == c]
        assert int(high[y == c].sum()) == len(own) // 2
        assert losses[high & (y == c)].min() > losses[~high & (y == c)].max()


def test_mistake_directions_equal_the_svd_of_the_class_differences():
    generator = torch.Generator().manual_seed(0)
    h, y = torch.randn(60, 5, generator=generator), torch.arange(60) % 3
    predicted = torch.where(torch.rand(60, generator=generator) < 0.3, (y + 1) % 3, y)
    rows = []
    for c in (0, 1, 2):
        own, wrong = h[y == c].numpy(), (predicted != y)[y == c].numpy()
        rows.append(own[wrong].mean(0) - own[~wrong].mean(0))
    expected = np.linalg.svd(np.stack(rows), full_matrices=False)[2][:2]
    found = mistake_directions(h, y, predicted, 2).numpy()
    np.testing.assert_allclose(np.abs((expected @ found).diagonal()), 1.0, rtol=1e-5)
    assert mistake_directions(h, y, y, 2).shape == (5, 0)


def test_one_step_of_each_fit_equals_its_formula():
    generator = torch.Generator().manual_seed(0)
    h, y = torch.randn(8, 3, generator=generator), torch.arange(8) % 2
    layer = (torch.randn(2, 3, generator=generator), torch.randn(2, generator=generator))
    predicted = F.linear(h, *layer).argmax(1)
    assert 0 < int((predicted != y).sum()) < 8
    everyone, once = torch.arange(8), Descent(1, 0.1, 8, 0)
    basis = shortcut_basis(h, y, layer, everyone, count=1, mistake_share=0.3, semantic_weight=5.0, descent=once)
    start = mistake_directions(h, y, predicted, 1).requires_grad_()
    unit = start / start.norm()
    part = h @ unit @ unit.T
    weights = torch.where(predicted != y, 0.3 / int((predicted != y).sum()), 0.7 / int((predicted == y).sum()))
    each = F.cross_entropy(F.linear(part, *layer), predicted, reduction="none")
    each = each + 5.0 * F.cross_entropy(F.linear(h - part, *layer), y, reduction="none")
    (slope,) = torch.autograd.grad((weights * each).sum(), start)
    stepped = (start - 0.1 * slope).detach()
    torch.testing.assert_close((basis * stepped / stepped.norm()).sum().abs(), torch.tensor(1.0))

    donors = everyone.flip(0)
    weight, bias = invariant_layer(h, y, layer, basis, donors, spuriousness_weight=5.0, descent=once)
    w, b = (x.clone().requires_grad_() for x in layer)
    swapped = h - h @ basis @ basis.T + h[donors] @ basis @ basis.T
    p, q = F.linear(h, w, b).log_softmax(1), F.linear(swapped, w, b).log_softmax(1)
    loss = -p[everyone, y].mean() + 5.0 * (p.exp() * (p - q)).sum(1).mean()
    for new, old, slope in zip((weight, bias), layer, torch.autograd.grad(loss, (w, b)), strict=True):
        torch.testing.assert_close(new, old - 0.1 * slope)


def test_without_epochs_the_layer_comes_back_as_it_was():
    z, y, _ = planted(n=400)
    for head in (
        shortcut_head(),
        nn.Linear(16, 2, bias=False),
        MLPHead(16, 2, (8,), "tanh", generator=torch.Generator().manual_seed(0)),
    ):
        before = head(z).detach()
        numbers = finished(head, z, y, epochs=0)
        torch.testing.assert_close(head(z).detach(), before, rtol=1e-4, atol=1e-5)
        assert numbers["probe_mistakes"] > 0


def test_the_direction_is_found_and_the_layer_ignores_it():
    z, y, _ = planted(n=2500)
    head = shortcut_head()
    before = worst(head)
    # Off centre, so that the way there and back counts.
    with torch.no_grad():
        head.bias -= head.weight @ torch.full((16,), 3.0)
    numbers = finished(head, z + 3.0, y)
    assert numbers["shortcut_directions"] == 2.0
    assert numbers["probe_mistakes"] < 0.1
    with torch.no_grad():
        head.bias += head.weight @ torch.full((16,), 3.0)
        shortcut, core = head.weight[1, 4:8] - head.weight[0, 4:8], head.weight[1, :4] - head.weight[0, :4]
    assert before < 0.2
    assert float(shortcut.norm()) < float(core.norm())
    assert worst(head) > before + 0.3


def test_only_the_last_layer_of_an_mlp_moves():
    z, y, _ = planted(n=400)
    head = MLPHead(16, 2, (8,), "tanh", generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    finished(head, z, y)
    moved = {name for name, p in head.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"output.weight", "output.bias"}
    assert last_linear(head) is head.output
    assert last_features(head, z).shape == (400, 8)


def test_a_probe_set_without_mistakes_leaves_the_layer_and_says_so(caplog):
    y = torch.arange(40) % 2
    z = torch.zeros(40, 16)
    z[:, :8] = (2.0 * y - 1)[:, None]
    head = shortcut_head()
    numbers = finished(head, z, y)
    assert "no shortcut shows" in caplog.text
    assert numbers == {"probe_mistakes": 0.0, "shortcut_directions": 0.0}
    assert torch.equal(head.weight, shortcut_head().weight)


def test_checks():
    for options, match in (
        ({"base_vectors": 0}, "base_vectors must be"),
        ({"epochs": 1.5}, "epochs must be an integer"),
        ({"misclassified_ratio": 1.5}, "misclassified_ratio must be"),
        ({"probe_share": 0.6}, "probe_share must be"),
        ({"learning_rate": 0}, "learning_rate must be"),
    ):
        with pytest.raises(InvalidConfigError, match=match):
            built(**options)
    with pytest.raises(HeadError, match="without a linear layer"):
        built().check(Setup(nn.Tanh(), encoder_trains=True, num_labels=2))


def test_a_planted_shortcut_is_handled_after_plain_training_and_runs_repeat():
    z, y, _ = planted(n=2500)
    schedule = LatentSchedule(epochs=20, learning_rate=1e-2)
    plain = fit_on_latents("erm", z, y, num_labels=2, schedule=schedule).head
    fits = [fit_on_latents("shortcutprobe", z, y, num_labels=2, schedule=schedule) for _ in range(2)]
    assert worst(fits[0].head) > worst(plain) + 0.15
    assert torch.equal(fits[0].head.weight, fits[1].head.weight)
    assert fits[0].history[-1]["shortcut_directions"] == 2.0
