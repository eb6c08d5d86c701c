"""The MLP head, and which heads are known to be linear."""

import pytest
import torch
from torch import nn

from aifs_peft.errors import InvalidConfigError
from aifs_peft.latent import MLPHead, linear_parameters


def test_shapes_layers_and_state() -> None:
    head = MLPHead(6, 4, hidden=(8, 5), activation="relu", dropout=0.2)
    assert head(torch.zeros(3, 6)).shape == (3, 4)
    assert list(head.state_dict()) == [
        f"{name}.{kind}" for name in ("hidden_0", "hidden_1", "output") for kind in ("weight", "bias")
    ]
    assert sum(isinstance(layer, nn.Dropout) for layer in head) == 2


def test_generator_decides_alone() -> None:
    state = torch.get_rng_state()
    first, second = (MLPHead(6, 4, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    bound = 6**-0.5
    weight = first.hidden_0.weight.detach()
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "Relu"}, "did you mean 'relu'"),
        ({"hidden": ()}, "hidden must name at least one layer"),
        ({"hidden": (0,)}, "hidden must be an integer of at least 1; got 0"),
        ({"dim": 0}, "dim must be an integer of at least 1"),
        ({"num_classes": 1}, "num_classes must be an integer of at least 2"),
        ({"dropout": 1.0}, r"dropout must be a finite number in \[0, 1\); got 1"),
        ({"dropout": -0.1}, r"dropout must be a finite number in \[0, 1\); got"),
    ],
)
def test_rejects(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        MLPHead(**{"dim": 4, "num_classes": 2, **arguments})


def test_linear_heads_are_recognised() -> None:
    layer = nn.Linear(4, 2)
    for head in (
        layer,
        nn.Sequential(nn.Dropout(0.5), layer),
        nn.Sequential(nn.Identity(), nn.Sequential(layer)),
    ):
        found = linear_parameters(head)
        assert found is not None
        assert found[0] is layer.weight
        assert found[1] is layer.bias
    found = linear_parameters(nn.Linear(4, 2, bias=False))
    assert found is not None
    assert found[1] is None


def test_other_heads_are_not() -> None:
    class Doubled(nn.Linear):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(z)

    class Twice(nn.Sequential):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return super().forward(super().forward(z))

    hooked, inner = nn.Linear(4, 2), nn.Linear(4, 2)
    hooked.register_forward_hook(lambda module, args, output: output * 2)
    inner.register_forward_pre_hook(lambda module, args: None)
    parametrised = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
    for head in (
        Doubled(4, 2),
        Twice(nn.Linear(4, 4)),
        hooked,
        nn.Sequential(inner),
        parametrised,
        nn.ReLU(),
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        lambda z: z,
        None,
    ):
        assert linear_parameters(head) is None
