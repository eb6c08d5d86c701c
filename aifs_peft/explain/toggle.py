"""What if the attribute's value were another one: latents moved along the found directions, and the head's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aifs_peft.errors import InvalidInputError
from aifs_peft.explain.share import mean_share
from aifs_peft.latent import counterfactual
from aifs_peft.latent._support import Head, evaluating, run_head

Bools = NDArray[np.bool_]
MOST_EXAMPLES = 200
"""Examples that are told one by one; the numbers are of all."""


@dataclass(frozen=True)
class Side:
    """A head and the latents it reads, with what is known of the attribute in them.

    Attributes:
        head: latents `(batch, dim)` to logits.
        z: held-out latents, `(n, dim)`.
        displacements: one per attribute value, in the same latents, `(A, dim)`.
        centre: see `split_decision`; None where the share of the decision is not wanted.
        basis: of the span of the displacements, `(dim, r)`; with `centre`.
    """

    head: Head
    z: Tensor
    displacements: Tensor
    centre: Tensor | None = None
    basis: Tensor | None = None


def other_values(labels: Tensor, values: Tensor, occurring: Tensor) -> Tensor:
    """The attribute value that each example is given in place of its own.

    A conflicting example gets the value of its own class. An aligned one gets another value: of several, each in turn,
    so that all of them are tried equally often.

    Args:
        labels: `(n,)` int64.
        values: attribute values, `(n,)` int64; equal to the label where aligned.
        occurring: values that occur in training, `(v,)` int64, at least two: nothing is known of the others.

    Returns:
        `(n,)` int64, different from `values` everywhere.

    Raises:
        InvalidInputError: for fewer than two occurring values.

    Example:
        >>> other_values(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2]))
        tensor([1, 2, 0, 0])
    """
    if len(occurring) < 2:
        raise InvalidInputError(f"there is no other value to change to: only {occurring.tolist()} occur in training")
    known = sorted(set(occurring.tolist()))
    out, turn = torch.empty_like(values), dict.fromkeys(known, 0)
    for i, (label, value) in enumerate(zip(labels.tolist(), values.tolist(), strict=True)):
        if value != label and label in turn:
            out[i] = label
            continue
        others = [other for other in known if other != value]
        out[i] = others[turn.get(value, 0) % len(others)]
        turn[value] = turn.get(value, 0) + 1
    return out


@torch.no_grad()
def toggled_probabilities(side: Side, values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Class probabilities as the examples are, and with another attribute value.

    Args:
        side: head and latents.
        values: attribute values, `(n,)`.
        targets: those given instead, `(n,)`.

    Returns:
        Two times `(n, classes)` float64, on the CPU.
    """
    z = side.z.float()
    moved = counterfactual(z, values, side.displacements.to(z.device).float(), target=targets)
    with evaluating(side.head):
        pair = [run_head(side.head, part).double().softmax(dim=1).cpu() for part in (z, moved)]
    return pair[0], pair[1]


def what_if(
    sides: Mapping[str, Side], labels: Tensor, values: Tensor, occurring: Tensor, names: Sequence[str]
) -> dict[str, Any]:
    """Predictions with the attribute toggled in the latents and nothing else changed, side by side.

    Args:
        sides: "method", and "plain" where there is plain training to compare with; both of the same examples.
        labels: of the examples, `(n,)` int64.
        values: their inferred attribute values, `(n,)` int64.
        occurring: values that occur in training, `(v,)` int64.
        names: of the classes.

    Returns:
        Plain JSON: `n`, `rows` (all, aligned, conflicting, each class: `changed`, the share of predictions that change,
        and `moved`, the mean change of the probability of the true class, per side), `share` of the decisions along
        the directions per side, and up to 200 `examples`.

    Raises:
        InvalidInputError: for fewer than two occurring values.

    Example:
        >>> head = torch.nn.Linear(1, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        >>> side = Side(head, torch.tensor([[-2.0], [2.0]]), torch.tensor([[-2.0], [2.0]]))
        >>> told = what_if({"method": side}, torch.tensor([0, 1]), torch.tensor([0, 1]), torch.arange(2), ["a", "b"])
        >>> told["rows"][0]["method"]["changed"], told["examples"][0]["predicted_toggled"]
        (1.0, 'b')
    """
    targets = other_values(labels, values, occurring)
    results = {name: toggled_probabilities(side, values, targets) for name, side in sides.items()}
    y, aligned = labels.numpy(), (values == labels).numpy()
    parts = [("all", np.ones(len(y), dtype=bool)), ("aligned", aligned), ("conflicting", ~aligned)]
    parts += [(str(name), y == k) for k, name in enumerate(names)]
    rows = [
        {"cell": name, "n": int(of.sum()), **{side: _numbers(pair, y, of) for side, pair in results.items()}}
        for name, of in parts
        if of.any()
    ]
    shares = {
        name: mean_share(side.head, side.z.float(), side.centre, side.basis)
        for name, side in sides.items()
        if side.centre is not None and side.basis is not None
    }
    told_values = value_names(len(next(iter(sides.values())).displacements), names)
    examples = _examples(results, y, values.numpy(), targets.numpy(), names, told_values)
    return {"n": len(y), "rows": rows, "share": shares, "examples": examples}


def _numbers(pair: tuple[Tensor, Tensor], y: NDArray[Any], of: Bools) -> dict[str, float]:
    before, after = (part.numpy()[of] for part in pair)
    own = np.arange(len(before)), y[of]
    return {
        "changed": float(np.mean(before.argmax(axis=1) != after.argmax(axis=1))),
        "moved": float(np.mean(after[own] - before[own])),
    }


def value_names(number: int, names: Sequence[str]) -> list[str]:
    """Attribute values by the class or, of several attributes, the classes that each goes with.

    Args:
        number: of values: that of the classes, or a power of it for several attributes.
        names: of the classes.

    Example:
        >>> value_names(2, ["cat", "dog"]), value_names(4, ["cat", "dog"])
        (['cat', 'dog'], ['cat', 'dog', 'cat + dog', 'dog + cat'])
    """
    from aifs_peft.discovery.mixture.joint import count_attributes, joint_values

    told = [str(name) for name in names]
    table = joint_values(len(told), count_attributes(number, len(told)))
    return [told[row[0]] if len(set(row)) == 1 else " + ".join(told[k] for k in row) for row in table.tolist()]


def _examples(
    results: Mapping[str, tuple[Tensor, Tensor]],
    y: Any,
    values: Any,
    targets: Any,
    names: Sequence[str],
    told_values: Sequence[str],
) -> list[dict[str, Any]]:
    """Examples one by one: conflicting ones first, as far as there are any, then aligned ones, in their order."""
    order = np.argsort(values == y, kind="stable")
    few = [*order[: MOST_EXAMPLES // 2], *order[::-1][: MOST_EXAMPLES // 2][::-1]] if len(y) > MOST_EXAMPLES else order
    out = []
    for i in (int(row) for row in few):
        told: dict[str, Any] = {
            "row": i, "label": str(names[y[i]]), "inferred": told_values[int(values[i])],
            "toggled_to": told_values[int(targets[i])],
        }  # fmt: skip
        for side, (before, after) in results.items():
            ending = "" if side == "method" else f"_{side}"
            for state, p in (("", before[i]), ("_toggled", after[i])):
                told[f"predicted{state}{ending}"] = str(names[int(p.argmax())])
                told[f"probability{state}{ending}"] = float(p[y[i]])
        out.append(told)
    return out
