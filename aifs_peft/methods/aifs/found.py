"""What AIFS knows of a shortcut, as tensors for the adapter's state: searched for, followed, and its share measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aifs_peft.discovery.mixture.joint import count_attributes, most_attributes, values_of_classes
from aifs_peft.explain.reading import fit_reader
from aifs_peft.explain.share import mean_share
from aifs_peft.latent.state import AIFSState
from aifs_peft.methods.aifs.offsets import basis_of, centred_on, fit_offsets
from aifs_peft.methods.context import EpochContext, Latents

if TYPE_CHECKING:
    from aifs_peft.discovery import Discovery

logger = logging.getLogger(__name__)

# Examples that the share of decisions along the directions is measured on, at each epoch's end.
SHARE_SAMPLES = 2048
# Cramér's V of label and attribute below which an attribute is hardly a shortcut: what natural pictures of two classes
# show by themselves had 0.2, shortcuts of which one in twenty examples is an exception 0.8 and more.
LEAST_TIE = 0.4


def search_latents(
    latents: Latents,
    num_labels: int,
    known: Tensor | None,
    pool: Tensor | None,
    options: Mapping[str, Any],
    seed: int,
) -> tuple[dict[str, Tensor] | None, float]:
    """Search the training set's latents for spurious directions.

    Args:
        latents: of all training examples.
        num_labels: classes of the head.
        known: attribute values that are known, `(n,)` int64, -1 where unknown; None without any.
        pool: latents of unlabelled examples, `(m, dim)`; None without any.
        options: of `discover`.
        seed: of the search.

    Returns:
        What fills the state, None where nothing was found; and how much of it rests on unlabelled examples.

    Example:
        >>> y = torch.arange(1000) % 2
        >>> a = torch.where(torch.arange(1000) < 50, 1 - y, y)
        >>> z = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
        >>> z[:, 0] += 6 * a
        >>> z[:, 1] += 2 * y
        >>> state, _ = search_latents(Latents(z, y, torch.arange(1000), 1000), 2, None, None, {}, seed=0)
        >>> int((state["groups"] != a).sum()) < 5, state["basis"].shape
        (True, torch.Size([16, 1]))
    """
    from aifs_peft.discovery import discover
    from aifs_peft.discovery.config import DEFAULT_CONFIG
    from aifs_peft.discovery.unlabelled.words import rests_on_unlabelled

    # The state has a row per combination of all the head's classes, whether they occur or not.
    wanted = options.get("max_attributes", DEFAULT_CONFIG.several.max_attributes)
    result = discover(
        latents.z.numpy(),
        latents.labels.numpy(),
        groups=None if known is None else known.numpy(),
        unlabelled=None if pool is None else pool.numpy(),
        random_state=seed,
        **{**options, "max_attributes": min(wanted, most_attributes(num_labels))},
    )
    if pool is not None:
        logger.info("%s", result.message_)
    if not result.found:
        return None, 0.0
    return state_of(result, latents, num_labels), rests_on_unlabelled(result)


def state_of(result: Discovery, latents: Latents, num_labels: int) -> dict[str, Tensor]:
    """What was found, as tensors of the adapter's state.

    Args:
        result: with spurious directions.
        latents: that were searched.
        num_labels: classes of the head, of which the search saw those that occur.

    Returns:
        By the name of the buffer.

    Example:
        >>> from types import SimpleNamespace
        >>> y, a = torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 0, 1])
        >>> latents = SimpleNamespace(z=torch.stack([y + 0.0, 4.0 * a], dim=1), labels=y)
        >>> beta = np.array([[0.0, -2.0], [0.0, 2.0]])
        >>> found = SimpleNamespace(classes_=[0, 2], displacements_=beta, class_displacements_=beta[:, ::-1].copy(),
        ...                         groups_=a.numpy(), basis_=beta[1:].T / 2, rough_=False, parts_=[], evidence_=0.9)
        >>> state = state_of(found, latents, num_labels=3)  # class 1 does not occur
        >>> state["groups"].tolist(), state["displacements"].tolist()
        ([0, 2, 0, 2], [[0.0, -2.0], [0.0, 0.0], [0.0, 2.0]])
    """
    # Attribute values count the classes that occur; the state counts all classes of the head.
    classes = np.asarray(result.classes_, dtype=np.int64)
    m = count_attributes(len(result.displacements_), len(classes))
    values = torch.as_tensor(values_of_classes(classes, m, num_labels))
    dim = latents.z.shape[1]
    alpha, beta = torch.zeros(num_labels, dim), torch.zeros(num_labels**m, dim)
    beta[values] = torch.as_tensor(result.displacements_).float()
    alpha[classes] = torch.as_tensor(result.class_displacements_).float()
    groups = values[torch.as_tensor(result.groups_)]
    basis = torch.as_tensor(result.basis_).float().contiguous()
    occurring = torch.unique(groups)
    if len(occurring) < len(values):
        # A value that no example has is known as nothing but noise, and so are directions that only it spans.
        beta = centred_on(beta, occurring)
        basis = basis_of(beta)
    centre, reader = fit_reader(latents.z, latents.labels, groups, beta)
    return {
        "centre": centre,
        "reader": reader,
        "basis": basis,
        "displacements": beta,
        # Offsets of a rough partition bend synthetic examples, and those of several attributes do not add up on
        # real latents: none are made.
        "class_displacements": alpha[:0] if result.rough_ or result.parts_ else alpha,
        "groups": groups,
        "evidence": torch.as_tensor(float(result.evidence_)),
    }


def search_layers(
    layers: Latents, last: Latents, num_labels: int, known: Tensor | None, options: Mapping[str, Any], seed: int
) -> dict[str, Tensor] | None:
    """Search latents of several layers, and estimate what was found there on the last one, which the head reads.

    Args:
        layers: of all training examples, several layers side by side.
        last: the same examples' latents.
        num_labels: classes of the head.
        known: attribute values that are known, `(n,)` int64, -1 where unknown; None without any.
        options: of `discover`.
        seed: of the search.

    Returns:
        What fills the state; None where nothing was found that is tied to the label, or nothing of it reaches the
        last latent.

    Example:
        >>> y = torch.arange(1000) % 2
        >>> a = torch.where(torch.arange(1000) < 50, 1 - y, y)
        >>> z = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
        >>> z[:, 1] += 2 * y
        >>> inside = z.clone()
        >>> inside[:, 0] += 6 * a
        >>> z[:, 2] += 1.0 * a  # too weak to be found there
        >>> parts = [Latents(x, y, torch.arange(1000), 1000) for x in (torch.cat([inside, z], dim=1), z)]
        >>> state = search_layers(*parts, 2, None, {}, seed=0)
        >>> int((state["groups"] != a).sum()) < 5, state["basis"].shape
        (True, torch.Size([16, 1]))
    """
    found, _ = search_latents(layers, num_labels, known, None, options, seed)
    if found is None or tie(layers.labels, found["groups"]) < LEAST_TIE:
        return None
    rows = len(found["displacements"]), len(found["class_displacements"])
    estimated = directions_of(last, found["groups"], num_labels, *rows)
    return None if estimated is None else {**found, **estimated}


def tie(labels: Tensor, groups: Tensor) -> float:
    """How closely an attribute goes with the label: Cramér's V, 0 for not at all and 1 for always.

    Args:
        labels: `(n,)` int64.
        groups: attribute values, `(n,)` int64.

    Example:
        >>> y = torch.tensor([0, 0, 1, 1])
        >>> tie(y, y), tie(y, torch.tensor([0, 1, 0, 1])), tie(y, torch.zeros_like(y))
        (1.0, 0.0, 0.0)
    """
    from scipy.stats.contingency import association, crosstab

    counts = crosstab(labels.numpy(), groups.numpy()).count
    return float(association(counts, method="cramer")) if min(counts.shape) > 1 else 0.0


def nothing_known(dim: int) -> dict[str, Tensor]:
    """The tensors of a state without spurious directions.

    Args:
        dim: of the latents.

    Example:
        >>> nothing_known(4)["basis"].shape
        torch.Size([4, 0])
    """
    nothing = torch.zeros(0)
    return {
        "mask": torch.zeros(dim),
        "basis": torch.zeros(dim, 0),
        "displacements": torch.zeros(0, dim),
        "class_displacements": torch.zeros(0, dim),
        "centre": nothing,
        "reader": torch.zeros(0, dim + 1),
        "groups": nothing,
        "evidence": nothing,
        "memory": nothing,
    }


def followed_directions(latents: Latents, state: AIFSState, num_labels: int) -> dict[str, Tensor] | None:
    """The directions estimated anew on the latents of a trained encoder, with the partition that was found before.

    Args:
        latents: of this epoch.
        state: with what was found.
        num_labels: classes of the head.

    Returns:
        What changes in the state, by the name of the buffer; None where no direction is left.

    Example:
        >>> from types import SimpleNamespace
        >>> y, a = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
        >>> latents = SimpleNamespace(z=torch.stack([y + 0.0, 4.0 * a], dim=1), labels=y, index=torch.arange(4))
        >>> state = SimpleNamespace(groups=a, displacements=torch.zeros(2, 2), class_displacements=torch.zeros(2, 2))
        >>> followed_directions(latents, state, 2)["basis"].abs().round(decimals=2).tolist()
        [[0.0], [1.0]]
    """
    groups, rows = state.groups.cpu()[latents.index], (len(state.displacements), len(state.class_displacements))
    followed = directions_of(latents, groups, num_labels, *rows)
    return None if followed is None else {**followed, "mask": torch.ones(followed["basis"].shape[1])}


def directions_of(
    latents: Latents, groups: Tensor, num_labels: int, num_values: int, classes_shown: int
) -> dict[str, Tensor] | None:
    """The directions of a partition that is known, estimated on some latents.

    Args:
        latents: of some examples.
        groups: their attribute values, `(m,)` int64.
        num_labels: classes of the head.
        num_values: attribute values that the state has a row for.
        classes_shown: classes whose offsets are kept; 0 for a rough partition or several attributes.

    Returns:
        Tensors by the name of the buffer; None where no direction is left.

    Example:
        >>> from types import SimpleNamespace
        >>> y, a = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
        >>> latents = SimpleNamespace(z=torch.stack([y + 0.0, 4.0 * a], dim=1), labels=y)
        >>> sorted(directions_of(latents, a, 2, 2, 0))
        ['basis', 'centre', 'class_displacements', 'displacements', 'reader']
    """
    alpha, beta = fit_offsets(latents.z, latents.labels, groups, num_labels, num_values)
    basis = basis_of(beta)
    if basis.shape[1] == 0:
        return None
    centre, reader = fit_reader(latents.z, latents.labels, groups, beta)
    return {
        "basis": basis,
        "displacements": beta,
        "class_displacements": alpha[:classes_shown],
        "centre": centre,
        "reader": reader,
    }


def share_of_decisions(z: Tensor, context: EpochContext) -> dict[str, float]:
    """Which share of the head's decisions on some latents runs along the spurious directions, as a number to log.

    Args:
        z: latents `(n, dim)`.
        context: of this epoch's end.

    Example:
        >>> from types import SimpleNamespace
        >>> head = torch.nn.Linear(2, 2, bias=False)
        >>> _ = head.weight.data.copy_(torch.tensor([[0.0, -1.0], [0.0, 1.0]]))
        >>> state = SimpleNamespace(has_basis=True, centre=torch.zeros(2), basis=torch.tensor([[0.0], [1.0]]))
        >>> share_of_decisions(torch.randn(9, 2), SimpleNamespace(state=state, head=head, device="cpu"))
        {'spurious_attribution': 1.0}
    """
    state = context.state
    if not state.has_basis or not state.centre.numel():
        return {}
    some = z[:: -(-len(z) // SHARE_SAMPLES)].to(context.device)
    return {"spurious_attribution": mean_share(context.head, some, state.centre, state.basis)}
