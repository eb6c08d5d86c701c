"""Classes that the training set lacks, and classes that no example has as attribute value: nothing is moved to them."""

import pytest
import torch
from torch import nn

from aifs_peft.explain.reading import attribute_scores, fit_reader
from aifs_peft.methods import EpochContext, Latents, StepContext, make
from aifs_peft.methods.aifs.offsets import basis_of, fit_offsets
from aifs_peft.training.selection import selection_metrics
from aifs_peft.tuner import AIFSState, LatentOutput

# Where each of five values lies on the first axis; 1 and 4 do not occur, and lie where they would be noticed.
PLACES = torch.tensor([-3.0, 100.0, 1.0, 2.0, -100.0])
OCCURRING = (0, 2, 3)


def step(state, labels, draw, num_labels):
    return StepContext(
        head=nn.Linear(2, num_labels),
        state=state,
        labels=labels,
        index=torch.arange(len(labels)),
        generator=torch.Generator(),
        draw=lambda width, kind: draw[:, :width],
        step=0,
    )


def prepared(state, labels, num_labels, **settings):
    method = make("aifs", **settings)
    method.prepare(
        EpochContext(
            head=nn.Linear(2, num_labels),
            state=state,
            num_labels=num_labels,
            encoder_trains=False,
            device=torch.device("cpu"),
            labels=labels,
        )
    )
    return method


def state_with(displacements, groups, class_displacements=None):
    state = AIFSState(2)
    state.update(
        mask=torch.ones(1),
        basis=torch.eye(2)[:, :1],
        displacements=displacements,
        groups=groups,
        class_displacements=torch.zeros(0, 2) if class_displacements is None else class_displacements,
    )
    return state


def normals(n, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_counterfactuals_are_drawn_evenly_over_the_other_values_that_occur():
    groups = torch.tensor(OCCURRING).repeat(3000)
    state = state_with(torch.stack([PLACES, torch.zeros(5)], 1), groups)
    method = prepared(state, groups, 5)
    moved = method.intervention(step(state, groups, normals(9000), 5))(torch.zeros(9000, 2))[:, 0] + PLACES[groups]
    for own in OCCURRING:
        others = [float(PLACES[value]) for value in OCCURRING if value != own]
        found, counts = moved[groups == own].round().unique(return_counts=True)
        assert found.tolist() == sorted(others)
        assert counts.min() > 1400


def test_a_gap_in_the_labels_changes_no_move():
    """Classes 0, 1, 2 of three and the same as classes 0, 2, 3 of five."""
    y, a = torch.arange(300) % 3, torch.arange(300) // 3 % 3
    places, draw = torch.tensor(OCCURRING), normals(300)
    alpha, beta = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(1))
    z = torch.randn(300, 2, generator=torch.Generator().manual_seed(2))
    results = []
    for num_labels, where in ((3, torch.arange(3)), (5, places)):
        wide = torch.zeros(2, num_labels, 2)
        wide[0, where], wide[1, where] = alpha, beta
        state = state_with(wide[1], where[a], wide[0])
        method = prepared(state, where[y], num_labels)
        context = step(state, where[y], draw, num_labels)
        synthetic, label = method._synthetic(z, where[y], context)
        cells = method.sampling(where[y], context).cells.unique(return_inverse=True)[1]
        results.append((method.intervention(context)(z), synthetic, torch.searchsorted(where, label), cells))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_a_class_that_nobody_has_as_value_is_a_label_and_no_value_of_synthetic_examples():
    labels, groups = torch.arange(300) % 3, torch.arange(300) % 2
    alpha = torch.tensor([[0.0, -1], [0, 0], [0, 1]])
    beta = torch.tensor([[-2.0, 0], [2, 0], [50, 0]])
    state = state_with(beta, groups, alpha)
    method = prepared(state, labels, 3)
    context = step(state, labels, normals(300), 3)
    z, label = method._synthetic(torch.zeros(300, 2) + alpha[labels] + beta[groups], labels, context)
    assert set(label.tolist()) == {0, 1, 2}
    assert set(z[:, 0].tolist()) == {-2.0, 2.0}
    torch.testing.assert_close(z[:, 1], alpha[label][:, 1])
    moved = method.intervention(context)(beta[groups])
    torch.testing.assert_close(moved, beta[1 - groups])


def test_one_value_alone_leaves_latents_where_they_are():
    labels = torch.arange(40) % 2
    state = state_with(torch.tensor([[0.0, 0], [5, 0]]), torch.zeros(40, dtype=torch.long))
    assert prepared(state, labels, 2).intervention(step(state, labels, normals(40), 2)) is None


@pytest.mark.parametrize("num_labels", [3, 5])
def test_offsets_of_a_value_that_nobody_has_are_zero_and_no_direction(num_labels):
    generator = torch.Generator().manual_seed(0)
    y, a = torch.arange(3000) % 3, torch.randint(0, 2, (3000,), generator=generator)
    alpha = torch.tensor([[0.0, 0, 0], [0, 3, 0], [0, 0, 3]])
    z = alpha[y] + torch.tensor([[-2.0, 0, 0], [2, 0, 0]])[a] + 0.1 * torch.randn(3000, 3, generator=generator)
    classes, values = fit_offsets(z, y, a, num_labels, num_labels)
    assert not values[2:].any()
    torch.testing.assert_close(values[1], torch.tensor([2.0, 0, 0]).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(values[0], -values[1])
    torch.testing.assert_close(classes[:3], (alpha - alpha.mean(0)).double(), atol=0.05, rtol=0)
    assert basis_of(values).shape == (3, 1)


def test_held_out_examples_are_given_no_value_that_does_not_occur():
    """Values at -2 and 2 occur; the row of the one that does not lies between, at their mean."""
    offsets = torch.tensor([[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    y = torch.tensor([0, 2]).repeat(300)
    truth = torch.where(torch.arange(600) % 10 < 2, 2 - y, y)
    z = offsets[truth] + 5.0 * y[:, None] + 0.8 * torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    train, test = slice(0, 480), slice(480, 600)
    scores = attribute_scores(z[test], fit_reader(z[train], y[train], truth[train], offsets)[1])
    assert set(scores.argmax(1).tolist()) == {0, 2}
    metrics = selection_metrics(truth[test] == y[test], y[test], scores, min_cell=1)
    assert metrics["inferred_conflicting_share"] == pytest.approx(
        float((truth[test] != y[test]).float().mean()), abs=0.05
    )
    unseen = torch.ones(120, dtype=torch.long)  # a class that training lacked
    assert selection_metrics(truth[test] == y[test], unseen, scores, min_cell=1)["inferred_conflicting_share"] == 1.0


def test_discovery_that_gives_a_class_nobody_as_value_keeps_no_direction_of_it(monkeypatch):
    import numpy as np

    import aifs_peft.discovery as discovery
    from aifs_peft.discovery import Discovery

    groups = np.arange(300) % 2
    found = Discovery(
        found=True, classes_=np.arange(3), labels_=np.arange(300) % 3, groups_=groups,
        responsibilities_=np.eye(3)[groups],
        basis_=np.eye(4)[:, :2], displacements_=np.diag([1.0, 1.0, 1.0, 0.0])[:3], evidence_=1.0,
        class_displacements_=np.zeros((3, 4)),
    )  # fmt: skip
    monkeypatch.setattr(discovery, "discover", lambda *_args, **_options: found)
    state, labels = AIFSState(4), torch.arange(300) % 3
    context = EpochContext(
        head=nn.Linear(4, 3), state=state, num_labels=3, encoder_trains=False, device=torch.device("cpu")
    )
    make("aifs").start(Latents(torch.randn(300, 4), labels, torch.arange(300), 300), context)
    torch.testing.assert_close(state.displacements[:2], torch.tensor([[0.5, -0.5, 0, 0], [-0.5, 0.5, 0, 0]]))
    assert not state.displacements[2].any()
    assert state.basis.shape == (4, 1)


def test_training_with_a_gap_is_training_without_it():
    """A head with a class that never occurs learns what a head without it learns."""
    from shortcut_latents import fit, planted, worst_group

    z, y, groups = planted(2000)
    test = planted(4000, 0.5, seed=9)
    plain = worst_group(fit("aifs", (z, y, groups)).head, *test)
    gap = fit("aifs", (z, 2 * y, groups), num_labels=3).head
    assert worst_group(gap, test[0], 2 * test[1], test[2]) == pytest.approx(plain, abs=0.02)


def test_the_loss_runs_with_every_term_on_a_set_with_a_gap():
    labels = torch.tensor([0, 2] * 20)
    groups = torch.where(torch.arange(40) < 4, 2 - labels, labels)
    beta, alpha = torch.tensor([[-1.0, 0], [0, 0], [1, 0]]), torch.tensor([[0.0, -1], [0, 0], [0, 1]])
    state = state_with(beta, groups, alpha)
    method, context = prepared(state, labels, 3), step(state, labels, normals(40), 3)
    z = torch.randn(40, 2)
    moved = method.intervention(context)(z)
    output = LatentOutput(z, context.head(z), moved, context.head(moved))
    terms = method.loss(output, labels, context)
    assert set(terms) == {"cross_entropy", "invariance", "sensitivity", "synthetic"}
    assert all(bool(term.isfinite()) for term in terms.values())
