"""What if the attribute's value were another one: a run's test predictions with it toggled, beside plain training's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from aifs_peft._plain import plain as to_plain
from aifs_peft.discovery.mixture.joint import count_attributes, values_of_classes
from aifs_peft.errors import AIFSError
from aifs_peft.explain import Side, fit_reader, what_if
from aifs_peft.methods.aifs.offsets import basis_of, fit_offsets

if TYPE_CHECKING:
    from aifs_peft.audit import Audit
    from aifs_peft.latent.state import AIFSState

NOTHING = "No shortcut was found, so there is no attribute whose value could be changed."
NOT_LOOKED = "The training set was not audited in this run, so there is no attribute whose value could be changed."
ONE_VALUE = "All training examples carry one value of the attribute, so there is no other one to change to."
FAILED = "What would change with another attribute value was not worked out: {reason}"
LIMIT = (
    "Each latent is moved by the mean difference between the values: what a real input with another value would "
    "change beside that is not in these numbers."
)
TRAINED_AGAINST = (
    "This model was trained not to react to this very change: how it does on conflicting examples says more than that "
    "it does not."
)
_NOUNS = {"image": "images", "text": "texts"}


@dataclass(frozen=True)
class LatentModel:
    """A head, and how the latents it reads are had.

    Args:
        head: on latents `(n, d)`.
        latents: of a split by its name, `(n, d)`.
    """

    head: nn.Module
    latents: Callable[[str], Tensor]


@dataclass(frozen=True)
class Attribute:
    """The attribute that a run found: its inferred values, in the head's order of classes.

    Args:
        train: of the training examples, `(n,)` int64.
        test: of the test examples, `(m,)` int64.
        number: of values there are, `A`.
    """

    train: Tensor
    test: Tensor
    number: int


def values_of_audit(audit: Audit, values: Any, num_labels: int) -> tuple[Tensor, int]:
    """Attribute values of an audit, which count the classes that occur, in the head's order, and how many there are.

    Args:
        audit: that found something.
        values: `(n,)` integers, as the audit's discovery counts them.
        num_labels: number of classes of the head.
    """
    classes = np.asarray(audit.discovery.classes_, dtype=np.int64)
    m = count_attributes(len(audit.discovery.displacements_), len(classes))
    return torch.as_tensor(values_of_classes(classes, m, num_labels)[np.asarray(values)]), num_labels**m


def toggle(
    models: Mapping[str, LatentModel],
    labels: Mapping[str, Tensor],
    attribute: Attribute | None,
    names: list[str],
    modality: str,
    *,
    known: Mapping[str, AIFSState] | None = None,
    looked: bool = True,
) -> dict[str, Any]:
    """What `what_if.json` holds: numbers, examples, and sentences for people; why not, where there are none.

    Args:
        models: "method", and "plain" where there is plain training to compare with.
        labels: of the splits train and test.
        attribute: what was found; None for nothing.
        names: of the classes.
        modality: of the inputs.
        known: states that hold the displacements in the latents of a model, "method" where it was trained against
            them; for the others they are fitted on its training latents with the inferred values.
        looked: whether anybody looked for an attribute.

    Returns:
        As `aifs_peft.explain.what_if`, with "sentences".
    """
    nothing = NOTHING if looked else NOT_LOOKED
    if attribute is None:
        return {"rows": [], "examples": [], "sentences": [nothing]}
    occurring = torch.unique(attribute.train)
    if len(occurring) < 2:
        return {"rows": [], "examples": [], "sentences": [ONE_VALUE]}
    sides = {
        name: _side(model, labels["train"], attribute, len(names), (known or {}).get(name))
        for name, model in models.items()
    }
    told = what_if(sides, labels["test"], attribute.test, occurring, names)
    trained = [TRAINED_AGAINST] if "method" in (known or {}) else []
    return dict(to_plain({**told, "sentences": [*sentences(told, modality), *trained]}))


def toggled_or_reason(work: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> dict[str, Any]:
    """What `work` gives; where it fails in a way we know, why: the run is done anyway.

    Args:
        work: calls `toggle`.
        say: told the reason.
    """
    try:
        return work()
    except AIFSError as error:
        say(f"no what-if: {error}")
        return {"rows": [], "examples": [], "sentences": [FAILED.format(reason=str(error).rstrip(".") + ".")]}


def _side(model: LatentModel, labels: Tensor, attribute: Attribute, num_labels: int, state: AIFSState | None) -> Side:
    z = model.latents("test").to(next(model.head.parameters()).device)
    if state is not None and state.centre.numel():
        return Side(model.head, z, state.displacements, state.centre, state.basis)
    train = model.latents("train")
    beta = fit_offsets(train, labels, attribute.train, num_labels, attribute.number)[1].float()
    centre, _ = fit_reader(train, labels, attribute.train, beta)
    return Side(model.head, z, beta, centre, basis_of(beta))


def sentences(told: Mapping[str, Any], modality: str) -> list[str]:
    """What the numbers say, for people.

    Args:
        told: of `what_if`.
        modality: of the inputs.

    Example:
        >>> rows = [{"cell": "all", "n": 8, "method": {"changed": 0.25, "moved": -0.125}}]
        >>> sentences({"n": 8, "rows": rows, "share": {"method": 0.5}}, "text")[1]
        'Share of the decisions that runs along the attribute: 50 % in this model.'
    """
    rows = {row["cell"]: row for row in told["rows"][:3]}
    sides = [(key, name) for key, name in (("plain", "plain training"), ("method", "this model")) if key in rows["all"]]
    noun = f"{told['n']:,} test {_NOUNS.get(modality, 'rows')}"
    changed = [f"{100 * rows['all'][key]['changed']:.1f} % of the predictions of {name}" for key, name in sides]
    out = [
        "With the attribute given another value in the latents and nothing else changed, "
        f"{' and '.join(changed)} change ({noun})."
    ]
    for cell, how in (
        ("aligned", "Where it goes with the true class, taking it away"),
        ("conflicting", "Where it goes against the true class, giving it the true class's value"),
    ):
        if cell in rows:
            moved = [f"{_points(rows[cell][key]['moved'])} in {name}" for key, name in sides]
            out.append(f"{how} moves the probability of the true class by {' and '.join(moved)}.")
    share = [f"{100 * told['share'][key]:.0f} % in {name}" for key, name in sides if key in told["share"]]
    if share:
        out.append(f"Share of the decisions that runs along the attribute: {' and '.join(share)}.")
    return [*out, LIMIT]


def _points(change: float) -> str:
    """A change of probability, in points, with its sign."""
    return f"{100 * change:+.1f} points".replace("-", "\u2212")
