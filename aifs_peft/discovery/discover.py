"""`discover`: find the spurious directions of latents without group labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from aifs_peft.discovery.gate import DEFAULT_GATE, GateThresholds
from aifs_peft.discovery.hints.known import Hint, groups_hint, metadata_hints
from aifs_peft.discovery.hints.named import Named, named_hints
from aifs_peft.discovery.mixture.joint import most_attributes
from aifs_peft.discovery.outcome import join, nothing_found, tell_unused
from aifs_peft.discovery.reduce import MAX_COMPONENTS, Reduction, principal_components
from aifs_peft.discovery.result import Array, Discovery, IntArray
from aifs_peft.discovery.several import FurtherSearch
from aifs_peft.discovery.single import find_attribute
from aifs_peft.discovery.validation import MIN_PER_CLASS, MIN_ROWS, as_latents, encode_labels
from aifs_peft.errors import InvalidConfigError

# Rows that the candidates are fitted on; the final assignment goes over all rows.
MAX_FIT_ROWS = 10_000
# Searches that find nothing cost the most; more shortcuts at once than this are rare.
MAX_ATTRIBUTES = 3


def discover(
    Z: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    metadata: Any = None,
    attributes: Any = None,
    random_state: int | np.random.RandomState | None = None,
    gate: GateThresholds = DEFAULT_GATE,
    max_fit_rows: int = MAX_FIT_ROWS,
    max_attributes: int = MAX_ATTRIBUTES,
) -> Discovery:
    """Find a spurious attribute in latents `Z` with labels `y`, without group labels.

    A spurious attribute that goes with the label for most examples leaves, inside each class, a small
    cluster that is displaced towards the other classes along the attribute's direction. Candidates for that
    cluster come from held-out mistakes of a simple head and from a trimmed discriminant, at several numbers
    of principal components; each is refined by an additive latent mixture, must pass one gate, and must be
    confirmed at another number of components. Time and memory grow linearly in `n`.

    Where one attribute was found, another is looked for without its directions, and so on. Several are told as one
    joint attribute, see `Discovery`.

    Attributes too weak for that can be found with a hint: values known for a few examples, metadata columns, or
    directions that name the attribute. Hints are candidates with a gate of their own, see `docs/discovery.md`; one
    that does not pass changes nothing.

    Args:
        Z: Latents, shape `(n, d)`: NumPy array or torch tensor, any float type. Any rotation or common scale.
        y: Labels, shape `(n,)`, integers or strings, at least two classes.
        groups: Attribute value of each example, integers from 0, -1 where unknown, shape `(n,)`.
        metadata: `DataFrame` or mapping of names to `(n,)` values: each column may be the attribute.
        attributes: Mapping of names to directions, `(d,)` or one per attribute value `(A, d)`; see `embed_prompts`.
        random_state: Seed of the folds and, above `max_fit_rows` rows, of the sample.
        gate: Thresholds; the defaults are calibrated.
        max_fit_rows: Candidates are fitted on a random sample of this many rows; the result covers all.
        max_attributes: How many attributes to look for, at least 1. At most two from 7 to 16 classes and one above, so
            that the joint attribute keeps at most 256 values. A hint that was not used for the first is judged again
            beside it, so that several hinted attributes can all be used.

    Returns:
        A `Discovery`; `found` is `False` where nothing passed, and also (with the reason in `message_`) for
        fewer than 50 examples or fewer than 5 in a class, which are too few to tell a minority from chance.

    Raises:
        InvalidInputError: For NaN or infinite latents, wrong shapes, one class only, or latents that are all
            equal.
        InvalidConfigError: For `max_attributes` below 1.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> result = discover(Z, y, random_state=0)
        >>> result.found, bool(np.mean(result.groups_ == a) > 0.99), result.basis_.shape
        (True, True, (16, 1))
    """
    if max_attributes < 1:
        raise InvalidConfigError(
            f"max_attributes={max_attributes} was given; needed is at least 1 ({MAX_ATTRIBUTES} by default)"
        )
    latents = as_latents(Z)
    classes, labels = encode_labels(y, len(latents))
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
    reduction = principal_components(latents, MAX_COMPONENTS, rng=rng)
    X = reduction.transform(latents)
    hints = collect_hints(reduction, len(latents), groups=groups, metadata=metadata, attributes=attributes)
    return discover_reduced(
        X, reduction, labels, classes, rng=rng, hints=hints, gate=gate, max_fit_rows=max_fit_rows,
        max_attributes=max_attributes,
    )  # fmt: skip


def collect_hints(
    reduction: Reduction, n: int, *, groups: ArrayLike | None = None, metadata: Any = None, attributes: Any = None
) -> list[Hint | Named]:
    """The hints of `discover` for `n` examples, checked."""
    hints: list[Hint | Named] = []
    if groups is not None:
        hints.append(groups_hint(groups, n))
    if metadata is not None:
        hints += metadata_hints(metadata, n)
    if attributes is not None:
        hints += named_hints(attributes, reduction)
    return hints


def discover_reduced(
    X: Array,
    reduction: Reduction,
    labels: IntArray,
    classes: NDArray[Any],
    *,
    rng: np.random.Generator,
    hints: Sequence[Hint | Named] = (),
    gate: GateThresholds = DEFAULT_GATE,
    max_fit_rows: int = MAX_FIT_ROWS,
    max_attributes: int = MAX_ATTRIBUTES,
) -> Discovery:
    """`discover` for latents that are already checked and reduced: `X (n, k)` by `reduction`, labels as indices."""
    d, smallest = reduction.components.shape[1], int(np.bincount(labels).min())
    if smallest < MIN_PER_CLASS or len(labels) < MIN_ROWS:
        why = f"too few examples to tell: {len(labels)} in all (needs {MIN_ROWS}), smallest class {smallest} "
        return nothing_found(d, labels, classes, [], why + f"(needs {MIN_PER_CLASS})")
    rows = _fit_rows(labels, max_fit_rows, rng)
    find = partial(find_attribute, labels=labels, classes=classes, rows=rows, rng=rng)
    first, rivals = find(X, reduction, hints=hints, gate=gate)
    most = min(max_attributes, most_attributes(len(classes)))
    if most == 1:
        return tell_unused(first, hints)
    # A hint is a claim that is tested: it needs no more association beside another attribute than alone.
    further = replace(gate, association=max(gate.association, gate.further_association))
    find_further = partial(find, gate=further, hint_gate=gate)
    search = FurtherSearch(X, reduction, labels, rows, further, find_further, rng, hints)
    parts = search.extend([first], most) if first.found else []
    if len(parts) < 2:
        pairs = (search.pair(rival, first) for rival in rivals)
        pair = next((pair for pair in pairs if pair), None)
        parts = search.extend(pair, most) if pair else parts
    result = join(parts, X, reduction, labels, alone=first) if len(parts) > 1 else first
    return tell_unused(result, hints, search.dropped)


def _fit_rows(y: IntArray, limit: int, rng: np.random.Generator) -> IntArray:
    """Rows to fit on: all, or a sample that keeps at least 50 of each class."""
    if len(y) <= limit:
        return np.arange(len(y))
    chosen = rng.permutation(len(y))[:limit]
    rare = np.flatnonzero(np.bincount(y[chosen], minlength=y.max() + 1) < 50)
    missing = [np.flatnonzero(y == c)[:50] for c in rare]
    return np.unique(np.concatenate([chosen, *missing]))
