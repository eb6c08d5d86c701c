"""Classification heads on latents, and what a head reveals about itself."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn

from aifs_peft._checks import check_choice, check_count, check_number
from aifs_peft.errors import HeadError, InvalidConfigError

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class MLPHead(nn.Sequential):
    """A multi-layer perceptron from latents to logits.

    Linear, activation and dropout for each hidden layer, then linear.

    A plain `nn.Sequential`, so every attribution of this package (`lrp` included) can walk through it. Layers
    are named `hidden_0`, `activation_0`, `dropout_0`, ..., `output`.

    Args:
        dim: size of a latent.
        num_classes: number of logits, at least 2.
        hidden: sizes of the hidden layers, at least one; each at least 1.
        activation: "gelu", "relu" or "tanh".
        dropout: probability in `[0, 1)`; with 0 there is no dropout layer.
        generator: source of the initial weights; None draws from torch's global generator.

    Raises:
        InvalidConfigError: when an argument is out of its range.

    Example:
        >>> import torch
        >>> head = MLPHead(8, 3, hidden=(16,), generator=torch.Generator().manual_seed(0))
        >>> head(torch.zeros(5, 8)).shape
        torch.Size([5, 3])
        >>> [name for name, _ in head.named_children()]
        ['hidden_0', 'activation_0', 'output']
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        hidden: tuple[int, ...] = (256,),
        activation: str = "gelu",
        dropout: float = 0.0,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        check_choice("activation", activation, tuple(ACTIVATIONS))
        if not hidden:
            raise InvalidConfigError("hidden must name at least one layer size, got none; use nn.Linear instead")
        sizes = [check_count("dim", dim), *(check_count("hidden", size) for size in hidden)]
        check_count("num_classes", num_classes, 2)
        check_number("dropout", dropout, 0, 1, below=True)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            layers[f"hidden_{index}"] = _linear(fan_in, fan_out, generator)
            layers[f"activation_{index}"] = ACTIVATIONS[activation]()
            if dropout:
                layers[f"dropout_{index}"] = nn.Dropout(dropout)
        layers["output"] = _linear(sizes[-1], num_classes, generator)
        super().__init__(layers)


def _linear(fan_in: int, fan_out: int, generator: torch.Generator | None) -> nn.Linear:
    """`nn.Linear` with its usual initial distribution, drawn from `generator` alone."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
    bound = fan_in**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def linear_parameters(head: object) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a head that is linear in evaluation mode, or None.

    Recognised: an `nn.Linear` itself (not a subclass, a quantised layer or a LoRA wrapper, whose forward does
    something else), alone or in an `nn.Sequential` beside dropout and identity layers; without forward hooks
    and with floating-point weights.

    Args:
        head: anything.

    Returns:
        `(weight (classes, dim), bias (classes,) or None)`, the parameters themselves; None when the head is
        not known to be linear.

    Example:
        >>> from torch import nn
        >>> weight, bias = linear_parameters(nn.Sequential(nn.Dropout(0.1), nn.Linear(4, 2)))
        >>> weight.shape, bias.shape
        (torch.Size([2, 4]), torch.Size([2]))
        >>> linear_parameters(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))) is None
        True
    """
    layers = leaf_layers(head)
    if layers is None:
        return None
    linear = [layer for layer in layers if not isinstance(layer, (nn.Dropout, nn.Identity))]
    if len(linear) != 1 or type(linear[0]) is not nn.Linear or not linear[0].weight.is_floating_point():
        return None
    return linear[0].weight, linear[0].bias


def leaf_layers(head: object) -> list[nn.Module] | None:
    """The layers of `head` in order, with nested `nn.Sequential` opened; None when their order is unknown.

    Also None when a forward hook is registered anywhere: it may change what the layers compute.
    """
    if not isinstance(head, nn.Module) or head._forward_hooks or head._forward_pre_hooks:
        return None
    if not isinstance(head, nn.Sequential):
        return [head]
    if type(head).forward is not nn.Sequential.forward:
        return None
    layers: list[nn.Module] = []
    for child in head:
        inner = leaf_layers(child)
        if inner is None:
            return None
        layers += inner
    return layers


def linear_layers(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Names and linear layers of a head in the order of definition; the head itself is `("", head)`."""
    return [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]


def head_sizes(head: nn.Module) -> tuple[int, int]:
    """Latent width and number of classes of a head.

    Args:
        head: a linear layer, or a block that begins and ends with one.

    Returns:
        `(dim, classes)`.

    Raises:
        HeadError: if it holds no linear layer.

    Example:
        >>> head_sizes(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)))
        (4, 2)
    """
    layers = linear_layers(head)
    if not layers:
        raise HeadError(
            f"the head is a {type(head).__name__} without a linear layer, so its sizes are unknown; name a linear "
            "layer in AIFSConfig(target_modules=[...])."
        )
    return layers[0][1].in_features, layers[-1][1].out_features
