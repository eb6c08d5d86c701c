"""Synthetic examples of `aifs`: which are made, what they weigh, and what they are for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aifs_peft.classifier import AIFSClassifier
from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods import EpochContext, Latents, StepContext, make
from aifs_peft.training.latent_trainer import LatentSchedule
from aifs_peft.tuner import AIFSState, LatentOutput

ALPHA = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]])
BETA = torch.tensor([[0, -2.0, 0], [0, 2.0, 0]])


def state_with(alpha=ALPHA, beta=BETA, groups=(0, 1, 1, 0)):
    state = AIFSState(3)
    state.update(displacements=beta, class_displacements=alpha, groups=torch.tensor(groups))
    return state


def step(head, state, labels, draw):
    return StepContext(
        head=head,
        state=state,
        labels=labels,
        index=torch.arange(len(labels)),
        generator=torch.Generator().manual_seed(0),
        # The first number is the counterfactual's.
        draw=lambda width, kind: torch.cat([torch.full((len(labels), 1), 9.0), draw], dim=1)[:, :width],
        step=0,
    )


def prepared(encoder_trains=False, labels=(0, 0, 1, 1), balance_groups=False, **options):
    method = make("aifs", method_options=options, alpha=0.0, beta=0.0, balance_groups=balance_groups)
    context = EpochContext(
        head=nn.Linear(3, 2),
        state=AIFSState(3),
        num_labels=2,
        encoder_trains=encoder_trains,
        device=torch.device("cpu"),
        labels=torch.as_tensor(labels),
    )
    method.prepare(context)
    return method


def test_each_latent_is_moved_to_the_cell_that_was_drawn():
    """Normal numbers below zero draw the first value, above it the second: all four cells, label first."""
    torch.manual_seed(0)
    head, z, labels = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True), torch.tensor([0, 0, 1, 1])
    draw = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    terms = prepared(synthetic=2.0).loss(LatentOutput(z, head(z)), labels, step(head, state_with(), labels, draw))
    own = z.detach().clone()
    own[:, 1] += torch.tensor([0.0, 0, -4, 4])  # 0 -> 0, 1 -> 1, 1 -> 0, 0 -> 1
    torch.testing.assert_close(terms["synthetic"], 2 * F.cross_entropy(head(own), torch.tensor([0, 0, 1, 1])))
    torch.testing.assert_close(terms["cross_entropy"], 0.2 * F.cross_entropy(head(z), labels))
    gradient = torch.autograd.grad(terms["synthetic"], z)[0]
    assert gradient.abs().sum() > 0


def test_the_class_moves_with_its_label():
    head, z, labels = nn.Linear(3, 2), torch.zeros(4, 3), torch.tensor([0, 0, 1, 1])
    draw = torch.tensor([[1.0, -1], [1, 1], [-1, -1], [-1, 1]])
    terms = prepared().loss(LatentOutput(z, head(z)), labels, step(head, state_with(), labels, draw))
    moved = torch.tensor([[2.0, 0, 0], [2, 0, 0], [-2, -4, 0], [-2, 4, 0]])
    torch.testing.assert_close(terms["synthetic"], F.cross_entropy(head(moved), torch.tensor([1, 1, 0, 0])))


def test_a_head_in_half_precision_is_served():
    head, z, labels = nn.Linear(3, 2).to(torch.bfloat16), torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    output = LatentOutput(z, head(z.to(torch.bfloat16)))
    prepared().loss(output, labels, step(head, state_with(), labels, torch.zeros(4, 2)))["synthetic"].backward()
    assert head.weight.grad.isfinite().all()


def test_classes_that_do_not_occur_are_never_drawn():
    head, labels = nn.Linear(3, 3), torch.tensor([0, 2] * 50)
    alpha, beta = (torch.stack([v[0], torch.zeros(3), v[1]]) for v in (ALPHA, BETA))
    context = step(head, state_with(alpha, beta, (0, 2) * 50), labels, torch.linspace(-9, 9, 200).view(100, 2))
    z, label = prepared(labels=labels)._synthetic(torch.zeros(100, 3), labels, context)
    assert set(label.tolist()) == {0, 2}
    assert set(z[:, 0].tolist()) == {-2.0, 0.0, 2.0}


@pytest.mark.parametrize(("encoder_trains", "weight"), [(False, 0.2), (True, 1.0)])
def test_observed_examples_weigh_less_where_the_encoder_is_frozen(encoder_trains, weight):
    head, z, labels = nn.Linear(3, 2), torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    context = step(head, state_with(), labels, torch.zeros(4, 2))
    terms = prepared(encoder_trains).loss(LatentOutput(z, head(z)), labels, context)
    torch.testing.assert_close(terms["cross_entropy"], weight * F.cross_entropy(head(z), labels))
    given = prepared(encoder_trains, observed=0.7).loss(LatentOutput(z, head(z)), labels, context)
    torch.testing.assert_close(given["cross_entropy"], 0.7 * F.cross_entropy(head(z), labels))


def test_repeated_examples_do_not_count_more_in_the_synthetic_population():
    """90 aligned and 10 conflicting examples in balanced batches: drawn 0.56 times and 5 times each."""
    labels = torch.tensor([0, 1] * 50)
    groups = torch.where(torch.arange(100) < 10, 1 - labels, labels)
    state, head, z = state_with(groups=groups.tolist()), nn.Linear(3, 2), torch.randn(100, 3)
    method = prepared(labels=labels, balance_groups=True)
    draw = torch.randn(100, 2)
    term = method.loss(LatentOutput(z, head(z)), labels, step(head, state, labels, draw))["synthetic"]
    label, value = (draw > 0).long().unbind(1)
    moved = z + ALPHA[label] - ALPHA[labels] + BETA[value] - BETA[groups]
    losses = F.cross_entropy(head(moved), label, reduction="none")
    weights = torch.where(groups == labels, 90 / 50, 10 / 50)
    torch.testing.assert_close(term, (weights * losses).mean())


@pytest.mark.parametrize(
    "state",
    [
        AIFSState(3),
        state_with(alpha=torch.zeros(0, 3)),
        state_with(alpha=torch.zeros(2, 3)),
    ],
    ids=["nothing found", "rough partition", "no class signal"],
)
def test_without_offsets_it_is_plain_cross_entropy(state):
    head, z, labels = nn.Linear(3, 2), torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    terms = prepared().loss(LatentOutput(z, head(z)), labels, step(head, state, labels, torch.zeros(4, 2)))
    assert set(terms) == {"cross_entropy"}
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(head(z), labels))


def test_a_rough_partition_gives_no_class_offsets(monkeypatch):
    import aifs_peft.discovery as discovery
    from aifs_peft.discovery import Discovery

    rough = Discovery(
        found=True, classes_=np.arange(2), labels_=np.array([0, 0, 1, 1]), groups_=np.zeros(4, dtype=int),
        responsibilities_=np.eye(2)[[0] * 4],
        basis_=np.eye(3)[:, :1], displacements_=BETA.numpy(), class_displacements_=ALPHA.numpy(), evidence_=1.0,
        rough_=True,
    )  # fmt: skip
    monkeypatch.setattr(discovery, "discover", lambda *_args, **_options: rough)
    state, labels = AIFSState(3), torch.tensor([0, 0, 1, 1])
    context = EpochContext(
        head=nn.Linear(3, 2), state=state, num_labels=2, encoder_trains=False, device=torch.device("cpu")
    )
    make("aifs").start(Latents(torch.randn(4, 3), labels, torch.arange(4), 4), context)
    assert state.displacements.shape == (2, 3)
    assert state.class_displacements.shape == (0, 3)


def test_options_out_of_range_are_refused():
    for options, message in (
        ({"synthetic": -1.0}, "synthetic"),
        ({"observed": -1.0}, "observed"),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            make("aifs", method_options=options)
    with pytest.raises(InvalidConfigError, match="head must be 'auto', 'linear' or 'mlp'; got 'tree'"):
        LatentSchedule(head="tree")


def test_an_mlp_head_does_not_memorise_rare_conflicts(shared_dir):
    """Dominoes at an aligned share of 0.99: balancing alone repeats 40 examples until they are learned by heart."""
    with np.load(shared_dir / "data" / "dominoes_latents" / "train.npz") as file:
        z, y = file["z"].astype(np.float32), file["y"].astype(np.int64)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(y))
    train, test = rows[:4000], rows[4000:]
    a = np.where(rng.random(4000) < 0.99, y[train], 1 - y[train])
    accuracy = {}
    for synthetic in (0.0, 1.0):
        schedule = LatentSchedule(epochs=40, head="mlp")
        clf = AIFSClassifier("aifs", recipe_options={"synthetic": synthetic}, schedule=schedule, random_state=0)
        clf.fit(z[train, a], y[train])
        accuracy[synthetic] = float((clf.predict(z[test, 1 - y[test]]) == y[test]).mean())
    assert accuracy[1.0] > accuracy[0.0] + 0.1
