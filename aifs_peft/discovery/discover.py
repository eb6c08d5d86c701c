"""`discover`: find the spurious directions of latents without group labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from aifs_peft._checks import check_count
from aifs_peft.discovery.arrays import IntArray
from aifs_peft.discovery.assemble import join, nothing_found, tell_unused
from aifs_peft.discovery.claims import Claim
from aifs_peft.discovery.config import DEFAULT_CONFIG, DiscoveryConfig, GateThresholds
from aifs_peft.discovery.hints.known import groups_hint, metadata_hints
from aifs_peft.discovery.hints.named import named_hints
from aifs_peft.discovery.inputs import encode_labels, fit_rows, too_few
from aifs_peft.discovery.mixture.joint import most_attributes
from aifs_peft.discovery.principal_components import Reduction
from aifs_peft.discovery.reduced import ReducedLatents
from aifs_peft.discovery.result import Discovery
from aifs_peft.discovery.search.one_attribute import find_attribute
from aifs_peft.discovery.search.several_attributes import FurtherSearch, further_gate
from aifs_peft.discovery.streaming.batches import LatentBatches
from aifs_peft.discovery.streaming.columns import as_values
from aifs_peft.discovery.streaming.everywhere import HeldRows, everywhere
from aifs_peft.discovery.streaming.held import held_hints, reduce_source, search_rows
from aifs_peft.discovery.streaming.reading import as_source
from aifs_peft.discovery.streaming.source import LatentSource, check_finite, reduced
from aifs_peft.discovery.unlabelled.pool import as_pool


def discover(
    Z: ArrayLike | LatentSource,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    metadata: Any = None,
    attributes: Any = None,
    unlabelled: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
    gate: GateThresholds | None = None,
    max_fit_rows: int | None = None,
    max_attributes: int | None = None,
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> Discovery:
    """Find a spurious attribute in latents `Z` with labels `y`, without group labels.

    A spurious attribute that goes with the label for most examples leaves, inside each class, a small cluster that is
    displaced towards the other classes along the attribute's direction. All steps work in the leading principal
    components and with the additive model `z | y, a ~ N(alpha_y + beta_a, Sigma)` of label and attribute.

    *Two classes*: rough partitions are proposed (a trimmed discriminant of the label, held-out mistakes of a simple
    head, leading components cut in two), each is refined by EM in which every example is judged by a fit that did not
    see it, and of those that pass the gate the one whose attribute is clearest relative to the class is taken. *More
    classes*: the trimmed discriminant's partition must pass a gate of its own; a mixture then confirms it, or it is
    sharpened out of fold and marked as rough. Where one attribute was found, another is looked for in latents without
    its directions, and so on; several are told as one joint attribute, see `Discovery`.

    Attributes too weak for that can be found with a hint: values known for a few examples, metadata columns,
    directions that name the attribute, or unlabelled examples in which it goes with the label less. A hint is a claim
    that is tested; one that does not pass changes nothing but `message_` and `candidates_`. Time grows linearly in
    `n`. Latents are read in blocks of rows; of more than 200,000 rows the search looks at a random sample of that many,
    and one pass over all rows assigns the others. `docs/discovery.md` explains all of it.

    Args:
        Z: Latents, shape `(n, d)`, any float type, any rotation or common scale: NumPy array, memory map, torch tensor,
            a column of a `datasets.Dataset` (`dataset["latents"]`), or a `LatentSource`: `LatentBatches` and, for rows
            that lie on several processes, `ShardedLatents`.
        y: Labels, shape `(n,)`, integers or strings, at least two classes.
        groups: Attribute value of some examples, shape `(n,)`: whole numbers from 0 with -1 where unknown, or strings
            with `None` where unknown.
        metadata: `DataFrame` or mapping of names to `(n,)` values: each column may be the attribute.
        attributes: Mapping of names to directions, `(d,)` or one per attribute value `(A, d)`; see `embed_prompts`. The
            more are given, the more each must show.
        unlabelled: Latents without labels, shape `(m, d)` of the same encoder, at least 50, better some hundred: data
            from where the model will be used, or from another site, in which the attribute and the label are less tied.
        random_state: Seed of the folds and, for large data, of the sample.
        gate: Thresholds, instead of those in `config`, which are calibrated.
        max_fit_rows: Candidates are fitted on a random sample of this many rows (10,000 by default); the result covers
            all.
        max_attributes: How many attributes to look for, at least 1 (3 by default). At most two from 7 to 16 classes and
            one above, so that the joint attribute keeps at most 256 values. A hint that was not used for the first is
            judged again beside it, so that several hinted attributes can all be used.
        config: Every other number; see `DiscoveryConfig`.

    Returns:
        A `Discovery`; `found` is `False` where nothing passed, and also (with the reason in `message_`) for
        fewer than 50 examples or fewer than 5 in a class, which are too few to tell a minority from chance.

    Raises:
        InvalidInputError: For NaN or infinite latents, wrong shapes, one class only, latents that are all equal, or
            hints of another shape or type than is needed.
        InvalidConfigError: For `max_attributes` below 1, or `max_fit_rows` below 50.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> result = discover(Z, y, random_state=0)
        >>> result.found, bool(np.mean(result.groups_ == a) > 0.99), result.basis_.shape
        (True, True, (16, 1))
    """
    config = _with_arguments(config, gate, max_fit_rows, max_attributes)
    source = as_source(Z)
    check_finite(source)
    classes, labels = encode_labels(source.gather(as_values(y)), len(source))
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
    reduction = reduce_source(source, rng=rng, config=config.reduction)
    hints = collect_hints(
        reduction,
        len(source),
        groups=source.gather(groups),
        metadata=source.gather(metadata),
        attributes=attributes,
        unlabelled=unlabelled,
        config=config,
    )
    return discover_source(source, reduction, labels, classes, rng=rng, hints=hints, config=config)


def discover_stream(
    batches: Iterable[tuple[Any, Any]] | Callable[[], Iterable[tuple[Any, Any]]], **options: Any
) -> Discovery:
    """`discover` for latents and labels that come in batches and are never held whole.

    The same as `discover(source, source.labels, ...)` of `source = LatentBatches(batches)`, which also says what the
    batches are compared for. The batches are gone through three times, and once more where a sample was searched and
    something was found.

    Args:
        batches: Batches `(Z, y)`, see `LatentBatches`: an iterable that starts anew each time it is gone through, or a
            function that returns an iterator. A generator is refused: pass the function that makes it.
        options: As of `discover`.

    Returns:
        What `discover` returns for the same rows in one array.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000); a = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> Z = rng.normal(size=(1000, 16)); Z[:, 0] += 6 * a; Z[:, 1] += 2 * y
        >>> def batches():
        ...     for start in range(0, 1000, 250):
        ...         yield Z[start : start + 250], y[start : start + 250]
        >>> found = discover_stream(batches, random_state=0)
        >>> found.found, bool(np.all(found.groups_ == discover(Z, y, random_state=0).groups_))
        (True, True)
    """
    source = LatentBatches(batches)
    return discover(source, source.labels, **options)


def _with_arguments(
    config: DiscoveryConfig, gate: GateThresholds | None, max_fit_rows: int | None, max_attributes: int | None
) -> DiscoveryConfig:
    """The configuration with the three settings that `discover` takes directly."""
    if gate is not None:
        config = replace(config, gate=gate)
    if max_fit_rows is not None:
        rows = check_count("max_fit_rows", max_fit_rows, config.inputs.min_rows)
        config = replace(config, inputs=replace(config.inputs, fit_rows=rows))
    if max_attributes is not None:
        count = check_count("max_attributes", max_attributes)
        config = replace(config, several=replace(config.several, max_attributes=count))
    return config


def collect_hints(
    reduction: Reduction,
    n: int,
    *,
    groups: ArrayLike | None = None,
    metadata: Any = None,
    attributes: Any = None,
    unlabelled: ArrayLike | None = None,
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> list[Claim]:
    """The hints of `discover` for `n` examples, checked.

    Args:
        reduction: Of the latents.
        n: Number of examples.
        groups: See `discover`.
        metadata: See `discover`.
        attributes: See `discover`.
        unlabelled: See `discover`.
        config: Which columns can be used.

    Raises:
        InvalidInputError: For hints of another shape or type than is needed.
    """
    hints: list[Claim] = []
    if groups is not None:
        hints.append(groups_hint(groups, n, config=config.hints))
    if metadata is not None:
        hints += metadata_hints(metadata, n, config=config.hints)
    if attributes is not None:
        hints += named_hints(attributes, reduction)
    if unlabelled is not None:
        hints.append(as_pool(unlabelled, reduction, config=config))
    return hints


def discover_source(
    source: LatentSource,
    reduction: Reduction,
    labels: IntArray,
    classes: NDArray[Any],
    *,
    rng: np.random.Generator,
    hints: Sequence[Claim] = (),
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> Discovery:
    """`discover` for latents that are already checked: a search on the rows that are held, then one pass over all.

    Args:
        source: The latents of all rows.
        reduction: Of the latents.
        labels: Indices into `classes`, shape `(n,)`.
        classes: Labels as the user gave them, sorted, shape `(K,)`.
        rng: Source of folds and samples.
        hints: Candidates of the user, see `collect_hints`.
        config: All settings; up to `inputs.held_rows` rows are held, and all are searched.
    """
    rows = search_rows(labels, hints, rng=rng, config=config.inputs)
    X = reduced(source, reduction, rows)
    if rows is None:
        search = partial(discover_reduced, X, reduction, labels, classes, rng=rng, hints=hints, config=config)
        return source.processes.first(search)
    own = held_hints(hints, rows)
    search = partial(discover_reduced, X, reduction, labels[rows], classes, rng=rng, hints=own, config=config)
    found = source.processes.first(search)
    return everywhere(found, HeldRows(rows, X, reduction), source, labels, hints=hints, config=config)


def discover_reduced(
    X: ReducedLatents,
    reduction: Reduction,
    labels: IntArray,
    classes: NDArray[Any],
    *,
    rng: np.random.Generator,
    hints: Sequence[Claim] = (),
    config: DiscoveryConfig = DEFAULT_CONFIG,
) -> Discovery:
    """`discover` for latents that are already checked and reduced.

    Args:
        X: Reduced latents, shape `(n, k)`, or what computes their rows.
        reduction: Of the latents.
        labels: Indices into `classes`, shape `(n,)`.
        classes: Labels as the user gave them, sorted, shape `(K,)`.
        rng: Source of folds and samples.
        hints: Candidates of the user, see `collect_hints`.
        config: All settings.
    """
    why = too_few(labels, config.inputs)
    if why:
        return nothing_found(reduction.components.shape[1], labels, classes, [], why)
    rows = fit_rows(labels, config.inputs, rng)
    find = partial(find_attribute, labels=labels, classes=classes, rows=rows, rng=rng)
    try:
        first, rivals = find(X, reduction, hints=hints, config=config)
    except np.linalg.LinAlgError:
        # Of a handful of distinct latents no scatter is left within a class once some examples are set aside.
        why = (
            "within their classes the latents take too few distinct values to tell a minority (a collapsed or random "
            "encoder, or inputs that repeat)"
        )
        return nothing_found(reduction.components.shape[1], labels, classes, [], why)
    most = min(config.several.max_attributes, most_attributes(len(classes), config.several))
    if most == 1:
        return tell_unused(first, hints, most_told=config.hints.named_told)
    # A hint is a claim that is tested: it needs no more association beside another attribute than alone.
    gate = config.gate
    further = replace(config, gate=further_gate(gate, len(classes)))
    find_further = partial(find, config=further, hint_gate=gate)
    search = FurtherSearch(X, reduction, labels, rows, further, find_further, rng, hints)
    parts = search.extend([first], most) if first.found else []
    if len(parts) < 2:
        pairs = (search.pair(rival, first) for rival in rivals)
        pair = next((pair for pair in pairs if pair), None)
        parts = search.extend(pair, most) if pair else parts
    result = first
    if len(parts) > 1:
        result = join(parts, X, reduction, labels, alone=first, config=config.mixture)
    return tell_unused(result, hints, search.dropped, most_told=config.hints.named_told)
