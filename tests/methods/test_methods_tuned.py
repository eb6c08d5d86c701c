"""`aifs` on an encoder that is trained: balanced by logits, the last layer fitted anew at the end."""

import doctest
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods import EpochContext, Latents, StepContext, make
from aifs_peft.methods.aifs import tuned
from aifs_peft.training.losses import GivenLoss
from aifs_peft.tuner import AIFSState, LatentOutput

LABELS = torch.tensor([0, 0, 0, 0, 1, 1])
GROUPS = torch.tensor([0, 0, 0, 1, 1, 0])
SHARES = torch.tensor([[4 / 6, 2 / 6], [2 / 4, 2 / 4]]).log()  # one example added to every cell


def test_doctests():
    found = doctest.testmod(tuned)
    assert (found.failed, found.attempted) == (0, 11)


def context(head, state, encoder_trains=True, latents=None):
    return EpochContext(
        head=head, state=state, num_labels=2, encoder_trains=encoder_trains, device=torch.device("cpu"), labels=LABELS,
        encode=None if latents is None else lambda: latents,
    )  # fmt: skip


def prepared(encoder_trains=True, **settings):
    state = AIFSState(3)
    state.update(groups=GROUPS)
    method = make("aifs", alpha=0.0, beta=0.0, **settings)
    method.prepare(context(nn.Linear(3, 2), state, encoder_trains))
    return method, state


def step(head, state, given_loss=None):
    return StepContext(
        head=head, state=state, labels=LABELS, index=torch.arange(6), generator=torch.Generator(), step=0,
        draw=lambda width, kind: torch.zeros(6, width), given_loss=given_loss,
    )  # fmt: skip


def test_logits_carry_the_shares_of_the_classes_within_an_attribute_value():
    torch.manual_seed(0)
    head, z = nn.Linear(3, 2), torch.randn(6, 3)
    method, state = prepared()
    terms = method.loss(LatentOutput(z, head(z)), LABELS, step(head, state))
    assert set(terms) == {"cross_entropy"}
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(head(z) + SHARES[GROUPS], LABELS))
    assert method.sampling(LABELS, context(head, state)) is None


def test_a_loss_of_the_users_own_sees_the_same_logits():
    head, z = nn.Linear(3, 2), torch.randn(6, 3)
    method, state = prepared()
    outputs = {"logits": head(z)}
    given = GivenLoss(
        lambda seen, labels, num_items_in_batch: seen["logits"].sum() / num_items_in_batch, outputs, LABELS
    )
    terms = method.loss(LatentOutput(z, head(z)), LABELS, step(head, state, given))
    torch.testing.assert_close(terms["cross_entropy"], (head(z) + SHARES[GROUPS]).sum() / 6)
    assert torch.equal(outputs["logits"], head(z))  # the model's own outputs stay


@pytest.mark.parametrize(
    ("encoder_trains", "settings"),
    [(False, {}), (True, {"method_options": {"balance": "draws"}}), (True, {"balance_groups": False})],
)
def test_otherwise_logits_are_as_they_are(encoder_trains, settings):
    head, z = nn.Linear(3, 2), torch.randn(6, 3)
    method, state = prepared(encoder_trains, **settings)
    terms = method.loss(LatentOutput(z, head(z)), LABELS, step(head, state))
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(head(z), LABELS))
    balanced = method.sampling(LABELS, context(head, state, encoder_trains))
    assert (balanced is None) == ("balance_groups" in settings)


def shortcut(n=400):
    """Class along the first axis, a clearer attribute along the second, aligned for nine of ten."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    groups = torch.where(torch.rand(n, generator=generator) < 0.9, labels, 1 - labels)
    z = torch.randn(n, 8, generator=generator)
    z[:, 0] += 3 * labels
    z[:, 1] += 6 * groups
    return Latents(z, labels, torch.arange(n), n), groups


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_last_layer_is_fitted_anew_for_all_cells_alike(kind):
    torch.manual_seed(0)
    latents, groups = shortcut()
    head = nn.Linear(8, 2) if kind == "linear" else nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    kept = {name: value.clone() for name, value in head.state_dict().items()}
    state = AIFSState(8)
    state.update(groups=groups)
    numbers = make("aifs", method_options={"refit": 0.03}).finish(context(head, state, latents=latents))
    assert numbers == {"last_layer_refitted": 1.0}
    right = head(latents.z).argmax(1) == latents.labels
    cells = [right[(latents.labels == y) & (groups == a)].float().mean().item() for y in (0, 1) for a in (0, 1)]
    assert min(cells) > (0.85 if kind == "linear" else 0.6)
    if kind == "mlp":
        assert torch.equal(head[0].weight, kept["0.weight"])


@pytest.mark.parametrize("case", ["frozen", "off", "nothing found", "no bias", "a class is missing"])
def test_the_last_layer_stays_as_it_was_trained(case):
    latents, groups = shortcut()
    head = nn.Linear(8, 2, bias=case != "no bias")
    if case == "a class is missing":
        latents = Latents(latents.z, torch.zeros_like(latents.labels), latents.index, latents.total)
    before, state = head.weight.clone(), AIFSState(8)
    state.update(groups=torch.zeros(0) if case == "nothing found" else groups)
    method = make("aifs", method_options={"refit": 0.0} if case == "off" else {})
    assert method.finish(context(head, state, case != "frozen", latents)) == {}
    assert torch.equal(head.weight, before)


def test_options_out_of_range_are_refused():
    for options in ({"balance": "drawn"}, {"refit": -1.0}):
        with pytest.raises(InvalidConfigError, match=next(iter(options))):
            make("aifs", method_options=options)


def weak_shortcut(n, share, seed):
    """An attribute too weak to be found in labelled examples alone, aligned for `share` of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n,), generator=generator)
    groups = torch.where(torch.rand(n, generator=generator) < share, labels, 1 - labels)
    z = torch.randn(n, 16, generator=generator)
    z[:, 0] += 1.5 * labels
    z[:, 1] += 2.5 * groups
    return Latents(z, labels, torch.arange(n), n), groups


def started(head, pool=None, encoder_trains=True, **options):
    latents, _ = weak_shortcut(3000, 0.95, 0)
    state, method = AIFSState(16), make("aifs", method_options=options)
    where = replace(
        context(head, state, encoder_trains), labels=latents.labels, encode=lambda: latents,
        encode_unlabelled=None if pool is None else lambda: pool,
    )  # fmt: skip
    method.prepare(where)
    return method, state, where, method.start(latents, where)


@pytest.fixture(scope="module")
def pool():
    return weak_shortcut(400, 0.5, 1)[0].z


def test_what_rests_on_a_pool_is_left_to_the_fit_after_training(pool):
    torch.manual_seed(0)
    head = nn.Linear(16, 2)
    method, state, where, numbers = started(head, pool)
    assert (numbers["spurious_direction_found"], numbers["rests_on_unlabelled"]) == (1.0, 1.0)
    assert state.memory.tolist() == [1.0]
    latents, _ = weak_shortcut(3000, 0.95, 0)
    z, labels, index = latents.z[:6], latents.labels[:6], torch.arange(6)
    batch = replace(step(head, state), labels=labels, index=index)
    assert method.intervention(batch) is None
    terms = method.loss(LatentOutput(z, head(z)), labels, batch)
    classes = tuned.log_shares(latents.labels, None, 2)  # as where nothing was found, and the classes are unequal
    assert set(terms) == {"cross_entropy"}
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(head(z) + classes, labels))
    before = head.weight.clone()
    assert method.finish(where)["last_layer_refitted"] == 1.0
    assert not torch.equal(head.weight, before)
    new, values = weak_shortcut(2000, 0.5, 2)
    right = head(new.z).argmax(1) == new.labels
    plain = nn.Linear(16, 2)
    fitted = tuned.fit_last_layer(latents.z, latents.labels, latents.labels, 2, seed=0, penalty=0.3)
    plain.load_state_dict({"weight": fitted[0], "bias": fitted[1]})
    of_plain = plain(new.z).argmax(1) == new.labels
    conflicting = values != new.labels
    assert right[conflicting].float().mean() > of_plain[conflicting].float().mean() + 0.1


@pytest.mark.parametrize(
    "case", [{"encoder_trains": False}, {"balance": "logits"}, {"balance": "draws"}, {"refit": 0.0}, {"bias": False}],
    ids=str,
)  # fmt: skip
def test_without_that_fit_a_pool_is_trained_with_as_any_find(pool, case):
    case = dict(case)
    head = nn.Linear(16, 2, bias=case.pop("bias", True))
    _, state, _, numbers = started(head, pool, **case)
    assert numbers["rests_on_unlabelled"] == 1.0
    assert not state.memory.numel()
    assert state.mask.any()


def test_without_a_find_by_a_pool_nothing_is_remembered():
    _, state, _, numbers = started(nn.Linear(16, 2))
    assert numbers["spurious_direction_found"] == 0.0
    assert not state.memory.numel()
