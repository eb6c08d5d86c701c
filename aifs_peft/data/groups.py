"""Groups of examples (class x attribute): their names, their numbering and their counts per split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aifs_peft._checks import check_ids
from aifs_peft.errors import InvalidInputError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset

_MARK = "GroupSpec: "


@dataclass(frozen=True)
class GroupSpec:
    """What the numbers in a `group` column mean. Groups are for evaluation: no training method reads them.

    Two kinds exist. In a partition every example lies in exactly one group, `group = class * attributes +
    attribute`, an integer column. Overlapping groups (a comment can mention several identities) are a boolean
    matrix with one column per group: such a set cannot be written as one integer per example. In a partition, -1 says
    that the attribute of an example is missing: it lies in no group.

    Args:
        definition: name of this definition of the groups; two definitions on one data set have two names.
        classes: class names, in the order of the `label` column.
        attributes: names of the attribute values, or of the identities when `overlapping`.
        overlapping: whether an example may lie in several groups, or in none.

    Example:
        >>> spec = GroupSpec("birds", ("landbird", "waterbird"), ("land", "water"))
        >>> spec.names
        ('landbird x land', 'landbird x water', 'waterbird x land', 'waterbird x water')
        >>> spec.encode([0, 1], [1, 1])
        array([1, 3])
        >>> spec.counts([1, 3, 3]).tolist()
        [0, 1, 0, 2]
    """

    definition: str
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    overlapping: bool = False

    def __post_init__(self) -> None:
        if not self.classes or not self.attributes:
            raise InvalidInputError(
                f"a GroupSpec needs at least one class and one attribute value; got classes={self.classes}, "
                f"attributes={self.attributes}"
            )
        if len(set(self.names)) != len(self.names):
            raise InvalidInputError(f"group names must differ; got {self.names}: rename the classes or attributes")

    @property
    def names(self) -> tuple[str, ...]:
        """One name per group, `class x attribute`, in the order of the group numbers."""
        return tuple(f"{c} x {a}" for c in self.classes for a in self.attributes)

    @property
    def num_groups(self) -> int:
        """How many groups there are, the empty ones included."""
        return len(self.classes) * len(self.attributes)

    def encode(self, labels: ArrayLike, attributes: ArrayLike) -> NDArray[np.int64]:
        """Number the groups of examples.

        Args:
            labels: class indices or class names, shape `(n,)`.
            attributes: attribute indices or names, shape `(n,)`; refused for overlapping groups.

        Returns:
            Group numbers `label * len(attributes) + attribute`, int64, shape `(n,)`.

        Raises:
            InvalidInputError: shapes differ, an index is out of range, or the groups overlap.
        """
        if self.overlapping:
            raise InvalidInputError(f"the groups of {self.definition!r} overlap: use membership(labels, matrix)")
        label = _numbered("labels", np.asarray(labels), self.classes)
        attribute = _numbered("attributes", np.asarray(attributes), self.attributes)
        if label.shape != attribute.shape or label.ndim != 1:
            raise InvalidInputError(
                f"labels and attributes must both have shape (n,); got {label.shape} and {attribute.shape}"
            )
        check_ids("labels", label, len(self.classes))
        check_ids("attributes", attribute, len(self.attributes))
        return np.asarray(label * len(self.attributes) + attribute, dtype=np.int64)

    def membership(self, labels: ArrayLike, attributes: ArrayLike) -> NDArray[np.bool_]:
        """Boolean membership of overlapping groups.

        Args:
            labels: class indices or class names, shape `(n,)`.
            attributes: boolean, shape `(n, len(attributes))`: which identities an example carries.

        Returns:
            Boolean matrix `(n, num_groups)`, columns in the order of `names`.

        Raises:
            InvalidInputError: a shape does not fit.
        """
        label, carried = _numbered("labels", np.asarray(labels), self.classes), np.asarray(attributes, dtype=bool)
        if carried.shape != (len(label), len(self.attributes)):
            raise InvalidInputError(
                f"attributes must be boolean of shape ({len(label)}, {len(self.attributes)}); got {carried.shape}"
            )
        check_ids("labels", label, len(self.classes))
        of_class = label[:, None] == np.arange(len(self.classes))
        cells = of_class[:, :, None] & carried[:, None, :]
        return np.asarray(cells.reshape(len(label), self.num_groups), dtype=np.bool_)

    def class_of(self, groups: ArrayLike) -> NDArray[np.int64]:
        """Class index of each group number, shape as given; -1 stays -1."""
        return np.asarray(groups, dtype=np.int64) // len(self.attributes)

    def attribute_of(self, groups: ArrayLike) -> NDArray[np.int64]:
        """Attribute index of each group number, shape as given; -1 stays -1."""
        numbers = np.asarray(groups, dtype=np.int64)
        return np.where(numbers < 0, -1, numbers % len(self.attributes))

    def counts(self, groups: ArrayLike) -> NDArray[np.int64]:
        """Count examples per group; a group without an example counts 0 and stays in the list.

        Args:
            groups: group numbers `(n,)` (-1 is in no group) or names, or the boolean matrix `(n, num_groups)` of
                overlapping groups.

        Returns:
            Counts, int64, shape `(num_groups,)`. With overlapping groups they need not add up to `n`.

        Raises:
            InvalidInputError: the shape or a group number does not fit this definition.
        """
        array = np.asarray(groups)
        if self.overlapping:
            if array.size == 0:
                return np.zeros(self.num_groups, dtype=np.int64)
            if array.ndim != 2 or array.shape[1] != self.num_groups:
                raise InvalidInputError(
                    f"{self.definition!r} has overlapping groups: need a boolean matrix "
                    f"(n, {self.num_groups}), got shape {array.shape}"
                )
            return np.asarray(array.astype(bool).sum(axis=0), dtype=np.int64)
        if array.ndim != 1:
            raise InvalidInputError(f"{self.definition!r} is a partition: need groups of shape (n,), got {array.shape}")
        array = _numbered("groups", array, self.names)
        array = array[array != -1]
        check_ids("groups", array, self.num_groups)
        return np.bincount(array.astype(np.int64), minlength=self.num_groups).astype(np.int64)

    def table(self, splits: Mapping[str, Dataset] | Dataset, *, markdown: bool = False) -> str:
        """Render the counts per group and split as text.

        Args:
            splits: a `DatasetDict` or a single `Dataset` with a `group` column.
            markdown: a Markdown table rather than aligned columns.

        Returns:
            One line per group and a last line with the number of examples.
        """
        named = dict(splits) if isinstance(splits, Mapping) else {"all": splits}
        columns = {split: self.counts(group_array(part)) for split, part in named.items()}
        rows = [["group", *columns]]
        rows += [[name, *(str(c[i]) for c in columns.values())] for i, name in enumerate(self.names)]
        if not self.overlapping:
            outside = [len(part) - int(columns[split].sum()) for split, part in named.items()]
            rows += [["in no group", *map(str, outside)]] if any(outside) else []
        rows.append(["examples", *(str(len(part)) for part in named.values())])
        return render(rows, markdown)

    def to_json(self) -> str:
        """One line of JSON from which `from_json` gives an equal object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> GroupSpec:
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        return cls(raw["definition"], tuple(raw["classes"]), tuple(raw["attributes"]), bool(raw["overlapping"]))

    def __str__(self) -> str:
        kind = "overlapping groups" if self.overlapping else "groups"
        return f"{self.definition}: {self.num_groups} {kind}\n" + "\n".join(
            f"  {i}: {name}" for i, name in enumerate(self.names)
        )


def group_array(dataset: Dataset) -> NDArray[Any]:
    """The `group` column as an array, `(n,)` int64 or `(n, groups)` bool, without decoding other columns.

    Raises:
        InvalidInputError: the data set has no `group` column, or is a stream.
    """
    if not hasattr(dataset, "__len__"):
        raise InvalidInputError(
            f"a {type(dataset).__name__} has no length, so its groups cannot be listed; load it without streaming=True"
        )
    if "group" not in dataset.column_names:
        raise InvalidInputError(
            f"no 'group' column among {dataset.column_names}; load the set with aifs_peft.data.load, "
            "or keep the column (TrainingArguments(remove_unused_columns=False))"
        )
    return np.asarray(dataset.with_format("numpy", columns=["group"])["group"][:])


def describe_spec(spec: GroupSpec, text: str) -> str:
    """The description stored in a data set: human-readable text, then the definition of its groups."""
    return f"{text}\n{_MARK}{spec.to_json()}"


def spec_of(dataset: Dataset | IterableDataset | DatasetDict) -> GroupSpec:
    """The definition of the groups of a loaded data set.

    Args:
        dataset: a `DatasetDict`, or one of its splits, also after `map`, `filter` or `select`; streamed or not.

    Returns:
        As `find_spec`.

    Raises:
        InvalidInputError: the set does not say what its groups mean.
    """
    spec = find_spec(dataset)
    if spec is None:
        part: Any = next(iter(dataset.values())) if isinstance(dataset, Mapping) else dataset
        raise InvalidInputError(
            "this data set does not say what its groups mean: it needs ClassLabel columns 'label' and 'group' "
            f"whose group names read 'class x attribute' in class order; its features are {list(part.features or {})}"
        )
    return spec


def find_spec(dataset: Dataset | IterableDataset | DatasetDict) -> GroupSpec | None:
    """The definition of the groups of a data set, `None` where it carries none.

    Args:
        dataset: a `DatasetDict` or one of its splits.

    Returns:
        The definition that was stored with the set; without one (a set built elsewhere) it is read from the
        `ClassLabel` names of `label` and `group`, each group named `class x attribute`.
    """
    part: Any = next(iter(dataset.values())) if isinstance(dataset, Mapping) else dataset
    for line in (part.info.description or "").splitlines():
        if line.startswith(_MARK):
            return GroupSpec.from_json(line[len(_MARK) :])
    features = part.features or {}
    classes = getattr(features.get("label"), "names", None)
    groups = getattr(features.get("group"), "names", None)
    if classes and groups and len(groups) % len(classes) == 0:
        attributes = _strip(groups[: len(groups) // len(classes)], classes[0])
        spec = GroupSpec("groups named in the data set", tuple(classes), attributes)
        if spec.names == tuple(groups):
            return spec
    return None


def _strip(names: Sequence[str], first_class: str) -> tuple[str, ...]:
    return tuple(name.removeprefix(f"{first_class} x ") for name in names)


def _numbered(role: str, values: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
    """Names as the numbers they stand for; numbers as they are."""
    if values.dtype.kind not in "OUST" or not values.size:
        return values
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted({str(value) for value in values.ravel().tolist() if str(value) not in numbers})
    if unknown:
        raise InvalidInputError(f"{role} hold {', '.join(map(repr, unknown[:5]))}; known are {', '.join(names)}")
    return np.asarray([numbers[str(value)] for value in values.ravel().tolist()]).reshape(values.shape)


def render(rows: list[list[str]], markdown: bool = False) -> str:
    """Rows of cells, the first the header, as aligned text or as a Markdown table."""
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|---|" + "---:|" * (len(rows[0]) - 1))
        return "\n".join(lines)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
