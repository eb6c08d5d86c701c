"""Methods on tensors alone: registry, terms against hand-computed values, masks, directions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.methods import (
    EpochContext,
    Latents,
    Method,
    MethodSettings,
    Setup,
    StepContext,
    get,
    make,
    names,
    register,
)
from aifs_peft.methods.aifs.offsets import basis_of, fit_offsets
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.tuner import AIFSConfig, AIFSState, LatentOutput


def context(head, state, labels):
    return StepContext(
        head=head,
        state=state,
        labels=labels,
        index=torch.arange(len(labels)),
        generator=torch.Generator().manual_seed(0),
        draw=lambda width, kind: torch.ones(len(labels), width),
        step=0,
    )


def epoch(head, state, **options):
    return EpochContext(
        head=head, state=state, num_labels=2, encoder_trains=False, device=torch.device("cpu"), **options
    )


@pytest.fixture
def head():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_names_and_closest_match():
    assert {"erm", "aifs", "aifs-paper"} <= set(names())
    with pytest.raises(InvalidConfigError, match="did you mean 'erm'"):
        get("emr")
    with pytest.raises(InvalidConfigError, match=r"unknown method 'zzz'; known"):
        get("zzz")


def test_every_method_declares_itself():
    for name in names():
        method = get(name)
        assert method.name == name
        assert method.supervision in {"none", "hints", "groups"}
        assert method.collects_latents in {"none", "initial", "epoch", "both"}
        assert method.paper


def test_register_refuses_no_name_and_a_taken_one():
    with pytest.raises(InvalidConfigError, match="has no name"):
        register(type("Nameless", (Method,), {}))
    with pytest.raises(InvalidConfigError, match="'erm' belongs to"):
        register(type("Other", (Method,), {"name": "erm"}))


def test_entry_points_are_offered_and_checked(monkeypatch):
    from aifs_peft.methods import registry

    class Point:
        name, value = "outside", "package:Outside"

        def __init__(self, cls):
            self.cls = cls

        def load(self):
            return self.cls

    outside = type("Outside", (Method,), {"name": "outside"})
    for cls, good in ((int, False), (outside, True)):
        monkeypatch.setattr(
            registry, "entry_points", lambda group, name=None, c=cls: [Point(c)] if name in (None, "outside") else []
        )
        assert "outside" in names()
        if good:
            assert get("outside") is outside
        else:
            with pytest.raises(InvalidConfigError, match="must be a subclass"):
                get("outside")
    registry._REGISTRY.pop("outside")


def test_settings_override_and_check():
    assert MethodSettings.from_config(AIFSConfig(alpha=3.0), beta=0.0).alpha == 3.0
    assert MethodSettings.for_method("erm", alpha=None).alpha == AIFSConfig(recipe="erm").alpha
    with pytest.raises(InvalidConfigError, match="alpha must be a finite number of at least 0"):
        MethodSettings.from_config(AIFSConfig(), alpha=-1.0)
    with pytest.raises(InvalidConfigError, match="directions must be"):
        MethodSettings.for_method("aifs", directions="up")
    with pytest.raises(InvalidConfigError, match=r"no field 'ema_deca' \(did you mean 'ema_decay'"):
        make("aifs-paper", ema_deca=0.5)


def test_paper_terms_equal_the_formulas(head):
    state = AIFSState(3)
    mask = torch.tensor([0.5, 0.0, 1.0])
    state.update(mask=mask)
    method = make("aifs-paper", alpha=2.0, beta=0.25, lambda_=0.5, sensitivity_sign=-1)
    z, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    step = context(head, state, y)
    moved = method.intervention(step)(z)
    torch.testing.assert_close(moved, z + 0.5 * mask)
    terms = method.loss(LatentOutput(z, head(z), moved, head(moved)), y, step)
    p, q = head(z).softmax(1), head(moved).softmax(1)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(head(z), y))
    torch.testing.assert_close(terms["invariance"], 2.0 * (p * (p / q).log()).sum(1).mean())
    leaf = z.clone().requires_grad_()
    log_p = head(leaf).log_softmax(1)[torch.arange(4), y].sum()
    gradient = torch.autograd.grad(log_p, leaf)[0]
    torch.testing.assert_close(terms["sensitivity"], -0.25 * (mask * gradient.abs()).sum(1).mean())


def test_empty_mask_and_zero_weights_do_nothing(head):
    y = torch.tensor([0, 1])
    z = torch.randn(2, 3)
    for settings, mask in (({}, torch.zeros(3)), ({"alpha": 0.0, "beta": 0.0}, torch.ones(3))):
        state = AIFSState(3)
        state.update(mask=mask)
        method = make("aifs-paper", **settings)
        step = context(head, state, y)
        assert method.intervention(step) is None
        assert set(method.loss(LatentOutput(z, head(z)), y, step)) == {"cross_entropy"}


def printed_scores(head, z, weights):
    """The published formula, written out: `(z_j - 0) * sum_k w_k d log p(y_k|z) / d z_j` at `z` itself."""
    W, p = head.weight.detach().double(), head(z).detach().double().softmax(1)
    slope = weights @ W - weights.sum(-1, keepdim=True) * (p @ W)
    return (z.double() * slope).abs().mean(0)


def test_paper_attributes_by_the_printed_formula(head):
    z = torch.randn(20, 3)
    latents = Latents(z, torch.arange(20) % 2, torch.arange(20), 20)
    p = head(z).detach().double().softmax(1)
    cases = (
        ({}, torch.full((20, 2), 0.5, dtype=torch.float64)),
        ({"class_weights": [3.0, 1.0]}, torch.tensor([[3.0, 1.0]]).double().expand(20, 2)),
        ({"class_weights": "probability"}, p),
        ({"class_weights": [3.0, 1.0], "top_k": 1}, F.one_hot(p.argmax(1)) * torch.tensor([3.0, 1.0]).double()),
    )
    for changes, weights in cases:
        state = AIFSState(3)
        make("aifs-paper", **changes).end_of_epoch(latents, epoch(head, state))
        wanted = printed_scores(head, z, weights)
        torch.testing.assert_close(state.ema, wanted, rtol=1e-4, atol=1e-7)
        mask = (1.0 / (wanted + 0.1)).softmax(0)  # gamma 1, eps0 0.1, summing to one
        torch.testing.assert_close(state.mask, mask.float(), rtol=1e-4, atol=1e-6)


def test_class_weights_must_fit_the_classes(head):
    setup = Setup(head, encoder_trains=False, num_labels=2)
    make("aifs-paper", class_weights=[1.0, 2.0]).check(setup)
    with pytest.raises(InvalidConfigError, match="one number for each of 2 classes, got 3"):
        make("aifs-paper", class_weights=[1.0, 2.0, 3.0]).check(setup)


def test_paper_mask_comes_from_attributions_and_follows_the_ema(head):
    with torch.no_grad():
        head.weight[:, 1] = 0.0  # the head ignores this dimension: inverse rule, largest mask
    state = AIFSState(3)
    method = make("aifs-paper", attribution="ig", ema_decay=0.5, mask_rule="inverse_relative")
    latents = Latents(torch.randn(20, 3), torch.arange(20) % 2, torch.arange(20), 20)
    numbers = method.end_of_epoch(latents, epoch(head, state))
    assert state.mask.argmax() == 1
    assert numbers["completeness_error"] < 1e-4
    first = state.ema.clone()
    doubled = Latents(latents.z * 2, latents.labels, latents.index, 20)
    alone = AIFSState(3)
    method.end_of_epoch(doubled, epoch(head, alone))
    method.end_of_epoch(doubled, epoch(head, state))
    torch.testing.assert_close(state.ema, 0.5 * first + 0.5 * alone.ema)
    assert int(state.num_updates) == 2


def test_shares_of_two_processes_add_up_to_the_same_mask(head):
    latents = Latents(torch.randn(21, 3), torch.arange(21) % 2, torch.arange(21), 21)
    method = make("aifs-paper")
    whole = AIFSState(3)
    method.end_of_epoch(latents, epoch(head, whole))
    sums = []
    for rank in (0, 1):
        method.end_of_epoch(
            latents, epoch(head, AIFSState(3), rank=rank, world_size=2, reduce_sum=lambda x: (sums.append(x), x)[1])
        )
    both = AIFSState(3)
    method.end_of_epoch(latents, epoch(head, both, reduce_sum=lambda x: sums[0] + sums[1]))
    torch.testing.assert_close(both.ema, whole.ema, rtol=1e-6, atol=1e-9)


def test_poor_completeness_keeps_the_mask(head, caplog):
    deep = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 2))
    with torch.no_grad():
        deep[0].weight.mul_(40)
    state = AIFSState(3)
    method = make("aifs-paper", attribution="ig", attribution_steps=1)
    latents = Latents(torch.randn(20, 3) * 5, torch.arange(20) % 2, torch.arange(20), 20)
    method.end_of_epoch(latents, epoch(deep, state))
    assert "raise attribution_steps" in caplog.text
    assert not state.mask.any()


def test_counterfactual_swaps_the_attribute(head):
    state = AIFSState(3)
    beta = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    groups = torch.tensor([0, 1])
    state.update(basis=basis_of(beta), mask=torch.ones(1), displacements=beta, groups=groups)
    method = make("aifs", noise="counterfactual", sensitivity_sign=1)
    z = torch.randn(2, 3)
    step = context(head, state, torch.tensor([0, 1]))
    method.prepare(epoch(head, state, labels=torch.tensor([0, 1])))
    torch.testing.assert_close(method.intervention(step)(z), z + torch.tensor([[2.0, 0, 0], [-2.0, 0, 0]]))
    terms = method.loss(LatentOutput(z, head(z)), torch.tensor([0, 1]), step)
    assert terms["sensitivity"] > 0


def test_discovery_fills_the_state_for_labels_with_a_gap():
    generator = torch.Generator().manual_seed(0)
    n = 600
    code = torch.arange(n) % 2
    attribute = torch.where((torch.arange(n) // 2) % 20 == 0, 1 - code, code)
    z = torch.randn(n, 8, generator=generator)
    z[:, 0] += 2.0 * code
    z[:, 1] += 8.0 * attribute
    labels = 2 * code  # classes 0 and 2 of 3
    state = AIFSState(8)
    full = EpochContext(
        head=nn.Linear(8, 3), state=state, num_labels=3, encoder_trains=False, device=torch.device("cpu")
    )
    numbers = make("aifs").start(Latents(z, labels, torch.arange(n), n), full)
    assert numbers["spurious_direction_found"] == 1
    assert state.displacements.shape == (3, 8)
    assert not state.displacements[1].any()
    assert set(state.groups.tolist()) == {0, 2}
    assert (state.groups == 2 * attribute).float().mean() > 0.98
    assert state.basis[1].abs().item() > 0.9
    with pytest.raises(InvalidConfigError, match=f"all {n} training examples, got 1"):
        make("aifs").start(Latents(z[:1], labels[:1], torch.tensor([0]), n), full)


def test_offsets_are_the_planted_ones_where_the_data_tell_them():
    generator = torch.Generator().manual_seed(1)
    y, a = torch.randint(0, 3, (500,), generator=generator), torch.randint(0, 3, (500,), generator=generator)
    alpha, beta = torch.randn(3, 4, generator=generator), torch.randn(3, 4, generator=generator)
    alpha, beta = alpha - alpha.mean(0), beta - beta.mean(0)
    z = alpha[y] + beta[a] + 0.05 * torch.randn(500, 4, generator=generator)
    # Values of a head with five classes, of which three occur.
    places = torch.tensor([0, 2, 3])
    classes, found = fit_offsets(z, places[y], places[a], 5, 5)
    torch.testing.assert_close(found[places], beta.double(), atol=0.02, rtol=0)
    torch.testing.assert_close(classes[places], alpha.double(), atol=0.02, rtol=0)
    assert not found[[1, 4]].any()
    assert not classes[[1, 4]].any()
    basis = basis_of(found)
    assert basis.shape == (4, 2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2, dtype=torch.float64))
    assert math.isclose(float((basis @ (basis.T @ found.T) - found.T).norm()), 0, abs_tol=1e-9)
    with pytest.raises(InvalidInputError, match="one row per example"):
        fit_offsets(torch.zeros(2, 4), y, a, 3, 3)
    with pytest.raises(InvalidInputError, match="All 500 latents are equal"):
        fit_offsets(torch.ones(500, 4), y, a, 3, 3)


def test_components_without_a_class_signal_go_to_the_attribute():
    """Twenty conflicting examples in 200 dimensions: least squares gives the class their noise."""
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 2
    a = np.where(np.arange(2000) < 20, 1 - y, y)
    z = rng.normal(size=(2000, 200)) * np.linspace(3, 1, 200)
    z[:, 0] += 12 * y
    z[:, 1] += 12 * a
    classes, values = fit_offsets(torch.as_tensor(z), torch.as_tensor(y), torch.as_tensor(a), 2, 2)
    alpha, beta = (classes[1] - classes[0]).numpy(), (values[1] - values[0]).numpy()
    raw = [z[(y == c) & (a == b)].mean(0) for c, b in ((0, 1), (1, 1))]
    assert np.linalg.norm(alpha[2:]) < 0.7 * np.linalg.norm((raw[1] - raw[0])[2:])
    np.testing.assert_allclose(alpha + beta, z[(y == 1) & (a == 1)].mean(0) - z[(y == 0) & (a == 0)].mean(0), atol=0.02)


def test_known_attribute_values_are_a_hint_for_discovery():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 3000)
    a = np.where(rng.random(3000) < 0.95, y, 1 - y)
    Z = rng.normal(size=(3000, 32))
    Z[:, 0] += 1.5 * y
    Z[:, 1] += 2.5 * a  # below what discovery finds alone
    known = np.full(3000, -1)
    for cell in range(4):
        rows = np.flatnonzero(2 * y + a == cell)[:10]
        known[rows] = a[rows]
    found = {}
    for name, columns in (("alone", {}), ("hinted", {"hint_groups": torch.as_tensor(known)})):
        fit = fit_on_latents(
            "aifs",
            torch.as_tensor(Z, dtype=torch.float32),
            torch.as_tensor(y),
            num_labels=2,
            schedule=LatentSchedule(epochs=1),
            columns=columns,
        )
        found[name] = fit.state
    assert not found["alone"].has_basis
    assert found["hinted"].has_basis
    assert float(found["hinted"].basis[1].abs().max()) > 0.7
