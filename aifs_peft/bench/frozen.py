"""One fit on the latents of a frozen encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight

from aifs_peft._checks import check_names
from aifs_peft.bench.draws import Draw, Part
from aifs_peft.bench.experiment import CLOSED, MethodEntry
from aifs_peft.bench.measuring import Measured, measured
from aifs_peft.classifier import AIFSClassifier
from aifs_peft.classifier.trained import train_head
from aifs_peft.discovery.config import DEFAULT_CONFIG, DiscoveryConfig
from aifs_peft.discovery.discover import discover_reduced
from aifs_peft.discovery.linear_heads.choice import choose_head
from aifs_peft.discovery.linear_heads.families import ADDITIVE, HeadSetting, fit_head
from aifs_peft.discovery.linear_heads.logistic import LinearHead
from aifs_peft.discovery.linear_heads.plain import fit_even
from aifs_peft.discovery.mixture.joint import marginals
from aifs_peft.discovery.principal_components import principal_components
from aifs_peft.methods import MethodSettings, get
from aifs_peft.training.latent_trainer import LatentSchedule, fit_on_latents

Array = NDArray[np.float64]
Setting = Mapping[str, Mapping[str, Any]]
# A group of which fewer validation examples are labelled cannot be fitted and judged.
_SMALLEST_GROUP = 2
# Of heads that are fitted without being chosen, where the configuration has no default of their own.
_L2 = 0.1


@dataclass(frozen=True)
class Fitted:
    """What one fit gives.

    Args:
        logits: of the splits validation and test, `(n, K)`.
        took: its time and memory.
        notes: what there is to know of it beside its numbers.
    """

    logits: dict[str, Array]
    took: Measured
    notes: dict[str, Any] = field(default_factory=dict)


def fit_frozen(entry: MethodEntry, draw: Draw, setting: Setting) -> Fitted:
    """Fit a method to the training latents of a draw; group labels are given to oracles alone.

    Args:
        entry: the method.
        draw: what to fit it to.
        setting: its numbers, by part: "schedule", "options", "settings".

    Raises:
        AIFSError: what the method raises where it cannot work with these data.
    """
    train, held = draw.parts["train"], {name: draw.parts[name] for name in ("validation", "test")}
    with measured() as took:
        if entry.config or entry.head:
            predict, notes = _fit_changed(entry, train, draw.seed)
        elif entry.closed:
            predict, notes = _fit_closed(entry, train, draw.seed)
        elif entry.group_labels is not None:
            predict, notes = _fit_few_groups(entry, draw, setting)
        else:
            predict, notes = _fit_trained(entry, train, draw.seed, setting)
    return Fitted({name: predict(part.Z) for name, part in held.items()}, took, notes)


def _fit_closed(entry: MethodEntry, train: Part, seed: int) -> tuple[Any, dict[str, Any]]:
    """`AIFSClassifier` as users have it."""
    clf = AIFSClassifier(CLOSED[entry.method], random_state=seed).fit(train.Z, train.y)
    notes = {} if clf.discovery_ is None else {"found": bool(clf.discovery_.found)}
    return clf.predict_log_proba, notes


def _fit_trained(entry: MethodEntry, train: Part, seed: int, setting: Setting) -> tuple[Any, dict[str, Any]]:
    """A method trained by gradient, as `AIFSClassifier(recipe=NAME)` trains it."""
    method = get(entry.method)
    inner = int(check_random_state(seed).randint(2**31))
    made = method(_settings(entry, setting, inner))
    reduction = principal_components(train.Z, rng=np.random.default_rng(inner))
    columns = {"group": torch.as_tensor(train.groups)} if method.supervision == "groups" else {}
    head = train_head(
        made, reduction.transform(train.Z), train.y, _classes(train), reduction,
        schedule=LatentSchedule(**setting["schedule"]), columns=columns,
    )  # fmt: skip
    found = bool(head.fit.state.groups.numel()) if method.recipe == "discovery" else None
    return head.logits, {} if found is None else {"found": found}


def _settings(entry: MethodEntry, setting: Setting, seed: int) -> MethodSettings:
    return MethodSettings.for_method(
        entry.method, seed=seed, method_options=dict(setting["options"]), **setting["settings"]
    )


def _fit_few_groups(entry: MethodEntry, draw: Draw, setting: Setting) -> tuple[Any, dict[str, Any]]:
    """A plain head, and its last layer again on the validation examples whose group is told.

    Where these lack a group, or have one example of it, nobody would fit to them: the plain head stays.
    """
    train, held = draw.parts["train"], draw.parts["validation"]
    inner = int(check_random_state(draw.seed).randint(2**31))
    rows = np.random.default_rng([draw.seed, 2]).permutation(len(held.y))[: entry.group_labels]
    counts = np.bincount(held.groups[rows], minlength=int(held.groups.max()) + 1)
    usable = bool(entry.group_labels) and bool((counts[np.unique(held.groups)] >= _SMALLEST_GROUP).all())
    reduction = principal_components(train.Z, rng=np.random.default_rng(inner))
    scale = reduction.scale / np.sqrt(np.mean(reduction.scale**2))

    def latents(Z: NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(reduction.transform(Z) * scale, dtype=np.float32))

    plain = MethodSettings.for_method("erm", seed=inner)
    schedule = LatentSchedule(**setting["schedule"])
    Z, y = latents(train.Z), torch.as_tensor(train.y)
    if not usable:
        fit = fit_on_latents("erm", Z, y, num_labels=_classes(train), settings=plain, schedule=schedule)
    else:
        known, groups = latents(held.Z[rows]), torch.as_tensor(held.groups[rows])
        labels, settings = torch.as_tensor(held.y[rows]), _settings(entry, setting, inner)
        told = {"group": groups}
        if entry.method == "dfr-oracle":
            fit = fit_on_latents(
                entry.method, Z, y, num_labels=_classes(train), settings=settings, schedule=schedule,
                validation=(known, labels, told),
            )  # fmt: skip
        else:
            fit = fit_on_latents(
                entry.method, known, labels, num_labels=_classes(train), settings=settings, schedule=schedule,
                columns=told,
            )  # fmt: skip

    def predict(part: NDArray[Any]) -> Array:
        with torch.no_grad():
            return np.asarray(fit.head(latents(part)).double().numpy())

    return predict, {"labelled": len(rows), "labelled_per_group": counts.tolist(), "refitted": usable}


def _fit_changed(entry: MethodEntry, train: Part, seed: int) -> tuple[Any, dict[str, Any]]:
    """`AIFSClassifier`'s own steps with other numbers of discovery, or one family of heads without a choice."""
    config = changed(DEFAULT_CONFIG, entry.config)
    inner = int(check_random_state(seed).randint(2**31))
    reduction = principal_components(train.Z, rng=np.random.default_rng(inner))
    X, y, K = reduction.transform(train.Z), train.y, _classes(train)
    found = discover_reduced(X, reduction, y, np.arange(K), rng=np.random.default_rng(inner), config=config)
    rng = np.random.default_rng(inner)
    head: LinearHead
    if not found.found:
        weights = np.asarray(compute_sample_weight("balanced", y))
        head = fit_even(X, y, K, rng=rng, weights=weights, scale=reduction.scale, config=config.heads).head
    else:
        R = marginals(found.responsibilities_, K)
        if entry.head:
            value = config.heads.default_shrinkage if entry.head in ADDITIVE else _L2
            head = fit_head(X, y, R, HeadSetting(entry.head, value), rng=rng, config=config)
        else:
            choice = choose_head(X, y, R, rng=rng, rough=found.rough_, config=config)
            head = choice.shifted(fit_head(X, y, R, choice.setting, rng=rng, config=config))
    return lambda Z: head.logits(reduction.transform(Z)), {"found": bool(found.found)}


def changed(config: DiscoveryConfig, changes: Mapping[str, Any]) -> DiscoveryConfig:
    """A configuration with other numbers.

    Args:
        config: to begin with; left as it is.
        changes: by part and name; lists become tuples.

    Raises:
        InvalidConfigError: a part or name that it does not have.

    Example:
        >>> changed(DEFAULT_CONFIG, {"mixture": {"folds": 2}}).mixture.folds
        2
    """
    result: DiscoveryConfig = _changed(config, changes, "config has no part")
    return result


def _changed(part: Any, changes: Mapping[str, Any], what: str) -> Any:
    check_names(changes, [entry.name for entry in fields(part)], what)
    values = {}
    for name, value in changes.items():
        old = getattr(part, name)
        if is_dataclass(old) and isinstance(value, Mapping):
            values[name] = _changed(old, value, f"config[{name!r}] has no number")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return replace(part, **values)


def _classes(part: Part) -> int:
    return int(part.y.max()) + 1
