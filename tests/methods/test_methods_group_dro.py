"""Group DRO's recursion against NumPy, and what it refuses."""

import numpy as np
import pytest
import torch

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods import StepContext
from aifs_peft.methods.common.worst_group_loss import group_dro_loss, size_adjustment, uniform_weights, updated_weights
from aifs_peft.tuner import AIFSState


def step(groups, **options):
    index, generator = torch.arange(len(groups)), torch.Generator()
    return StepContext(lambda z: z, AIFSState(1), groups, index, generator, lambda w, k: groups, 0, **options)


def test_weights_follow_the_recursion_over_many_batches():
    rng = np.random.default_rng(0)
    everyone = np.repeat([0, 1, 3], [50, 20, 5])  # group 2 does not occur
    eta, strength = 0.3, 2.0
    q = np.array([1, 1, 0, 1]) / 3
    weights = uniform_weights(torch.as_tensor(everyone), 4)
    np.testing.assert_allclose(weights.numpy(), q)
    sizes = np.bincount(everyone, minlength=4)
    adjustment = size_adjustment(torch.as_tensor(everyone), 4, strength)
    absent = 0
    for _ in range(30):
        groups = rng.choice(everyone, 6)
        losses = rng.exponential(2.0, 6)
        loss, weights = group_dro_loss(
            torch.as_tensor(losses), torch.as_tensor(groups), weights, step(torch.as_tensor(groups)), eta=eta,
            adjustment=adjustment,
        )  # fmt: skip
        means = {g: losses[groups == g].mean() for g in np.unique(groups)}
        for g, mean in means.items():
            q[g] *= np.exp(eta * (mean + strength / np.sqrt(sizes[g])))
        absent += 3 - len(means)
        q /= q.sum()
        np.testing.assert_allclose(weights.numpy(), q, rtol=1e-10)
        np.testing.assert_allclose(float(loss), sum(q[g] * mean for g, mean in means.items()), rtol=1e-10)
    assert absent > 0  # some batches lacked a group
    assert weights[2] == 0


def test_gradient_is_the_weighted_mean_of_group_gradients():
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    groups = torch.tensor([0, 1, 1, 1])
    loss, q = group_dro_loss(losses, groups, torch.tensor([0.25, 0.75]), step(groups), eta=0.1)
    loss.backward()
    torch.testing.assert_close(losses.grad, torch.stack([q[0], q[1] / 3, q[1] / 3, q[1] / 3]).float())
    assert not q.requires_grad


def test_two_processes_give_the_loss_weights_and_gradient_of_one():
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0])
    groups = torch.tensor([0, 1, 1, 0])
    start = torch.tensor([0.5, 0.5])
    one = losses.clone().requires_grad_()
    loss, q = group_dro_loss(one, groups, start, step(groups), eta=0.5)
    loss.backward()
    gradient = torch.zeros(4)
    for rank in range(2):
        rows = slice(2 * rank, 2 * rank + 2)
        leaf = losses.clone().requires_grad_()

        def gather(x):
            return losses if x.is_floating_point() else groups

        context = step(groups[rows], rank=rank, world_size=2, gather=gather)
        value, weights = group_dro_loss(leaf[rows], groups[rows], start, context, eta=0.5)
        value.backward()
        torch.testing.assert_close(value, loss)
        torch.testing.assert_close(weights, q)
        gradient += leaf.grad / 2
    torch.testing.assert_close(gradient, one.grad)


def test_a_huge_loss_takes_all_weight_without_overflow():
    q = updated_weights(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([1e6, 1.0, 9e9]), torch.ones(3, dtype=bool), 1.0)
    assert q.tolist() == [1.0, 0.0, 0.0]


def test_what_it_refuses():
    groups = torch.tensor([0, 2])
    with pytest.raises(InvalidConfigError, match=r"groups \[0, 2\], the weights know 2"):
        group_dro_loss(torch.ones(2), groups, torch.ones(2) / 2, step(groups), eta=0.1)
    groups = torch.tensor([0, 1])
    with pytest.raises(InvalidConfigError, match="one value per group, 2; got 3"):
        group_dro_loss(torch.ones(2), groups, torch.ones(2) / 2, step(groups), eta=0.1, adjustment=torch.ones(3))
    with pytest.raises(InvalidConfigError, match="adjustment must be a finite number"):
        size_adjustment(groups, 2, -1.0)
