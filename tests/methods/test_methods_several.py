"""`aifs` with several shortcuts: one joint attribute in the state, balanced over, intervened on and refitted."""

import numpy as np
import pytest
import torch
from torch import nn

from aifs_peft import AIFSClassifier
from aifs_peft.methods import EpochContext, Latents, make
from aifs_peft.methods.aifs.offsets import basis_of, fit_offsets
from aifs_peft.training.selection import selection_metrics
from aifs_peft.tuner import AIFSState


def two_shortcuts(n=3000, share=0.95, seed=0):
    """Latents `(n, 16)`, labels and attribute values `(n, 2)` of two shortcuts, the first one stronger."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    values = np.where(rng.random((n, 2)) < share, y[:, None], 1 - y[:, None])
    Z = rng.normal(size=(n, 16))
    Z[:, :3] += np.column_stack([2.0 * y, 9.0 * values[:, 0], 5.0 * values[:, 1]])
    return Z.astype(np.float32), y, values


def started(num_labels=2, labels=(0, 1), **options):
    Z, y, values = two_shortcuts()
    state, places = AIFSState(16), torch.tensor(labels)
    context = EpochContext(
        head=nn.Linear(16, num_labels), state=state, num_labels=num_labels, encoder_trains=True,
        device=torch.device("cpu"),
    )  # fmt: skip
    latents = Latents(torch.as_tensor(Z), places[torch.as_tensor(y)], torch.arange(len(y)), len(y))
    method = make("aifs", **options)
    return method, method.start(latents, context), latents, context, torch.as_tensor(values)


def test_the_state_holds_the_joint_attribute():
    method, numbers, latents, context, values = started()
    state = context.state
    assert numbers["directions"] == 2
    assert numbers["conflicting_share"] == pytest.approx(0.0975, abs=0.01)
    assert state.displacements.shape == (4, 16)
    assert state.class_displacements.shape == (0, 16)
    joint = torch.tensor([[0, 2], [3, 1]])[values[:, 0], values[:, 1]]
    assert (state.groups == joint).float().mean() > 0.99
    cells = method.sampling(latents.labels, context).cells
    assert len(cells.unique()) == 8


def test_classes_that_do_not_occur_have_combinations_without_offsets():
    _, _, _, context, values = started(num_labels=4, labels=(1, 3))
    state = context.state
    assert state.displacements.shape == (16, 16)
    occurring = state.displacements.any(1).nonzero().squeeze(1)
    assert set(state.groups.tolist()) == set(occurring.tolist())
    assert len(occurring) == 4
    # Aligned examples carry their label.
    aligned = (values[:, 0] == values[:, 1]) & (values[:, 0] == 1)
    assert (state.groups[aligned] == 3).float().mean() > 0.95


def test_one_attribute_only_where_that_is_asked_or_the_head_has_many_classes():
    _, numbers, _, context, _ = started(discovery={"max_attributes": 1})
    assert numbers["directions"] == 1
    assert context.state.displacements.shape == (2, 16)
    _, numbers, _, context, _ = started(num_labels=20)
    assert context.state.displacements.shape == (20, 16)


def test_directions_of_a_trained_encoder_are_refitted_together():
    method, _, latents, context, _ = started()
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
    before = context.state.displacements.clone()
    moved = Latents(latents.z @ turn, latents.labels, latents.index, latents.total)
    numbers = method.end_of_epoch(moved, context)
    assert numbers["directions"] == 2
    torch.testing.assert_close(context.state.displacements, before @ turn, atol=0.1, rtol=0)
    assert context.state.class_displacements.shape == (0, 16)


def test_offsets_of_both_are_those_that_were_planted():
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(0, 2, (4000,), generator=generator)
    agree = torch.rand(4000, 2, generator=generator) < 0.8
    values = torch.where(agree, y[:, None], 1 - y[:, None])
    alpha, first, second = torch.randn(3, 2, 5, generator=generator)
    z = alpha[y] + first[values[:, 0]] + second[values[:, 1]] + 0.05 * torch.randn(4000, 5, generator=generator)
    joint = torch.tensor([[0, 2], [3, 1]])[values[:, 0], values[:, 1]]
    classes, found = fit_offsets(z, y, joint, 2, 4)
    torch.testing.assert_close(classes[1] - classes[0], (alpha[1] - alpha[0]).double(), atol=0.02, rtol=0)
    expected = torch.stack([first[0] + second[0], first[1] + second[1], first[0] + second[1], first[1] + second[0]])
    torch.testing.assert_close(found - found[0], (expected - expected[0]).double(), atol=0.02, rtol=0)
    assert basis_of(found).shape == (5, 2)


def test_a_model_is_selected_by_the_worst_joint_cell():
    labels = torch.tensor([0] * 16 + [1] * 16)
    groups = torch.tensor([0] * 10 + [1, 1, 2, 2, 3, 3] + [1] * 10 + [0, 0, 2, 2, 3, 3])
    scores = 20.0 * torch.nn.functional.one_hot(groups).double()
    correct = groups != 2
    metrics = selection_metrics(correct, labels, scores, min_cell=2)
    assert metrics["worst_inferred_group_accuracy"] == 0.0
    assert metrics["inferred_conflicting_share"] == pytest.approx(12 / 32)
    assert selection_metrics(groups != 9, labels, scores, min_cell=2)["worst_inferred_group_accuracy"] == 1.0


def test_training_turns_away_from_both():
    Z, y, _ = two_shortcuts()
    test_Z, test_y, values = two_shortcuts(share=0.5, seed=1)
    cells = 4 * test_y + values @ [2, 1]
    worst = {}
    for recipe in ("erm", "aifs"):
        hits = AIFSClassifier(recipe, random_state=0).fit(Z, y).predict(test_Z) == test_y
        worst[recipe] = min(hits[cells == c].mean() for c in range(8))
    assert worst["aifs"] > worst["erm"] + 0.3
