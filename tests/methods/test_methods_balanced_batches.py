"""Balanced sampling over classes and over true groups."""

from types import SimpleNamespace

import pytest
import torch
from shortcut_latents import fit, planted, worst_group

from aifs_peft.errors import InvalidConfigError, InvalidInputError
from aifs_peft.methods import make
from aifs_peft.methods.common.true_groups import read_groups
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents
from aifs_peft.training.sampling import EpochSampler

TEST = planted(2000, 0.5, seed=9)


def test_draws_have_equal_shares_of_every_group():
    _, y, groups = planted(800)
    method = make("reweight-oracle")
    context = SimpleNamespace(columns={"group": groups})
    order = torch.tensor(list(EpochSampler(800, lambda epoch: method.sampling(y, context), seed=0)))
    assert torch.bincount(groups[order]).tolist() == [200] * 4


def test_reweighting_takes_the_shortcut_away_and_erm_leans_on_it():
    data = planted()
    erm, oracle = (worst_group(fit(name, data).head, *TEST) for name in ("erm", "reweight-oracle"))
    assert erm < 0.65
    assert oracle > 0.85


def test_the_oracle_is_the_classifier_that_weights_examples_by_their_group():
    z, y, groups = planted(600)
    sizes = torch.bincount(groups).float()
    weights = (1 / sizes[groups]) / 4
    closed = torch.zeros(2, 11, requires_grad=True)
    optimizer = torch.optim.LBFGS([closed], max_iter=200, line_search_fn="strong_wolfe")
    ones = torch.cat([z, torch.ones(600, 1)], 1)

    def closure():
        optimizer.zero_grad()
        value = (weights * torch.nn.functional.cross_entropy(ones @ closed.T, y, reduction="none")).sum()
        value.backward()
        return value

    optimizer.step(closure)
    plan = LatentSchedule(epochs=60, learning_rate=0.02, weight_decay=0.0)
    head = fit("reweight-oracle", (z, y, groups), schedule=plan).head
    wanted = (ones @ closed.T).detach().diff(dim=1)
    got = head(z).diff(dim=1)
    assert torch.corrcoef(torch.stack([wanted[:, 0], got[:, 0]]))[0, 1] > 0.995
    assert ((wanted > 0) == (got > 0)).float().mean() > 0.97


def test_class_balance_lifts_the_rare_class_and_not_the_shortcut():
    z, y, groups = planted(4000)
    keep = (y == 0) | (torch.arange(4000) % 10 == 0)
    rare = (z[keep], y[keep], groups[keep])
    z, y, groups = TEST

    def recall(head):
        return float((head(z).argmax(1) == y)[y == 1].float().mean())

    erm, balanced = (fit(name, rare).head for name in ("erm", "erm-balanced"))
    assert recall(balanced) > recall(erm) + 0.05
    assert worst_group(balanced, *TEST) < 0.65


@pytest.mark.parametrize("name", ["erm-balanced", "reweight-oracle"])
def test_it_repeats_itself(name):
    plan = LatentSchedule(epochs=2)
    first, again = (fit(name, planted(200), schedule=plan).head.weight for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", ["erm-balanced", "reweight-oracle"])
def test_without_balanced_batches_it_says_what_to_use(name):
    with pytest.raises(InvalidConfigError, match="leave balance_groups=True, or use method 'erm'"):
        fit(name, planted(50), balance_groups=False)


def test_missing_groups_are_refused_before_training():
    z, y, _ = planted(50)
    with pytest.raises(InvalidConfigError, match=r"reads 'group' .* pass columns="):
        fit_on_latents("reweight-oracle", z, y, num_labels=2)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (torch.zeros(4, 2, dtype=torch.long), "one integer per example"),
        (torch.zeros(4), "one integer per example"),
        (torch.tensor([0, 1, 1]), "one integer per example"),
        (torch.tensor([-1, 0, 1, 1]), "none below 0"),
        (torch.tensor([2, 2, 2, 2]), "at least two different"),
    ],
)
def test_columns_that_are_no_groups_are_refused(groups, message):
    z, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(InvalidInputError, match=message):
        fit_on_latents("reweight-oracle", z, y, num_labels=2, columns={"group": groups})


def test_groups_below_the_smallest_size_are_named():
    with pytest.raises(InvalidInputError, match=r"group 5 of the validation set has 1 example\(s\), at least 2"):
        read_groups({"group": torch.tensor([0, 0, 5])}, 3, "validation", smallest=2)
