"""The two parts of a decision: exact for a linear head, complete for any, and blind to nothing."""

import pytest
import torch
from torch import nn

from aifs_peft.errors import InvalidInputError
from aifs_peft.explain import mean_share, shares, split_decision


def lead(head, z):
    """Of the class that is predicted at `z`, at `z` and at any other latent."""
    top = head(z).topk(2).indices

    def at(points):
        of = head(points).gather(1, top)
        return of[:, 0] - of[:, 1]

    return at


@pytest.mark.parametrize("kind", ["linear", "mlp", "bound"])
def test_the_parts_add_up_to_the_lead(kind: str) -> None:
    torch.manual_seed(0)
    head = {"linear": nn.Linear(6, 3)}.get(kind, nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)))
    given = head.forward if kind == "bound" else head
    z, centre = torch.randn(20, 6), torch.randn(6)
    basis = torch.linalg.qr(torch.randn(6, 2))[0]
    split = split_decision(given, z, centre, basis, steps=64)
    at = lead(head, z)
    expected = (at(z) - at(centre.expand(20, 6))).detach()
    torch.testing.assert_close(split.along + split.rest, expected, atol=1e-3, rtol=1e-3)
    assert not split.along.requires_grad


def test_a_linear_head_is_split_exactly() -> None:
    torch.manual_seed(0)
    head, z, centre = nn.Linear(5, 2), torch.randn(9, 5), torch.randn(5)
    basis = torch.eye(5)[:, :2]
    split = split_decision(head, z, centre, basis)
    sign = torch.where(head(z).argmax(1) == 1, 1.0, -1.0)
    by_dimension = (head.weight[1] - head.weight[0]) * (z - centre) * sign[:, None]
    torch.testing.assert_close(split.along, by_dimension[:, :2].sum(1).detach())
    torch.testing.assert_close(split.rest, by_dimension[:, 2:].sum(1).detach())


def test_a_head_that_reads_the_attribute_alone_has_a_share_of_one() -> None:
    head = nn.Linear(3, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]))
    z = torch.randn(30, 3)
    assert mean_share(head, z, torch.zeros(3), torch.eye(3)[:, :1]) == 1.0
    assert mean_share(head, z, torch.zeros(3), torch.eye(3)[:, 1:]) == 0.0


def test_a_head_that_decides_nothing_has_no_share() -> None:
    head = nn.Linear(3, 2)
    nn.init.zeros_(head.weight)
    assert mean_share(head, torch.randn(4, 3), torch.zeros(3), torch.eye(3)[:, :1]) == 0.0
    assert shares([0.0], [0.0]).tolist() == [0.0]


def test_modes_come_back_and_dropout_is_off() -> None:
    head = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)).train()
    z = torch.randn(10, 4)
    first, second = (split_decision(head, z, torch.zeros(4), torch.eye(4)[:, :1]) for _ in range(2))
    assert torch.equal(first.along, second.along)
    assert all(module.training for module in head.modules())


def test_shapes_that_do_not_fit_are_told() -> None:
    with pytest.raises(InvalidInputError, match=r"centre must have shape \(3,\)"):
        split_decision(nn.Linear(3, 2), torch.zeros(2, 3), torch.zeros(4), torch.eye(3))
    with pytest.raises(InvalidInputError, match=r"basis must have shape \(3, 4\)"):
        split_decision(nn.Linear(3, 2), torch.zeros(2, 3), torch.zeros(3), torch.eye(4))
