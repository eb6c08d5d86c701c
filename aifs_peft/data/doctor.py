"""Check a local copy of a data set: are its files there and the published ones, and what groups do they hold?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aifs_peft.data import describe, group_array, group_spec, is_own, load
from aifs_peft.data.groups import find_spec, render
from aifs_peft.data.images import damage_line, damaged
from aifs_peft.data.notes import DataWarning
from aifs_peft.data.own.sources import KINDS
from aifs_peft.data.sources import DataCard, md5
from aifs_peft.errors import AIFSError, InvalidInputError

if TYPE_CHECKING:
    from datasets import DatasetDict

UNLIKE = 0.1
"""Share of examples that must lie in other groups before a validation split is called unlike training."""
MOST = 10_000
"""Pictures of a split of own data that are decoded, evenly spread."""
LISTED = 20
"""Damaged pictures that are named one by one."""


@dataclass(frozen=True)
class DataReport:
    """What was found about a data set.

    Args:
        card: what it is, where it comes from and how it is laid out.
        table: counts per group and split, empty when it could not be loaded.
        problems: what must be mended, each with its remedy.
        notes: what one should know, such as checksums that agree and groups without examples.
        examples: how many each split has; empty when it could not be loaded.
    """

    card: DataCard
    table: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    examples: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the set can be used as it is."""
        return not self.problems

    def __str__(self) -> str:
        parts = [str(self.card)]
        parts += [self.table] if self.table else []
        parts += ["\n".join([*(f"note: {n}" for n in self.notes), *(f"problem: {p}" for p in self.problems)])]
        return "\n\n".join(part for part in parts if part)


def check_data_set(name: str, data_dir: str | Path | None = None, **options: Any) -> DataReport:
    """Load a data set, count its groups, look at its pictures, compare published checksums.

    Args:
        name: one of `aifs_peft.data.names()`, of which the first and the last picture of every split are decoded; or
            own data, as for `load_own`, of which all are, up to `MOST` of a split.
        data_dir: folder of a local copy, as for `load`.
        **options: of that set, or of `load_own`.

    Returns:
        The report; a missing or wrong file is among its problems.

    Raises:
        InvalidInputError: an unknown name.

    Example:
        >>> report = check_data_set("spurious_scenes", n_train=40, n_validation=20, n_test=20, image_size=16)
        >>> report.ok, report.table.splitlines()[0].split()
        (True, ['group', 'train', 'validation', 'test'])
    """
    own = is_own(name)
    card = _own_card(name) if own else describe(name)
    problems, notes = ([], []) if own else _checksums(card, data_dir)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            data: Any = load(name, data_dir, **options)
            if not own:
                _read_ends(data)
        except AIFSError as error:  # an example's picture is opened here for the first time, hence in the block
            data, problems = None, [*problems, str(error)]
    for warning in told:
        if issubclass(warning.category, DataWarning):
            notes.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if data is None:
        return DataReport(card, "", tuple(problems), tuple(notes))
    if own and "image" in data["train"].column_names:
        broken, note = _read_all(data)
        problems, notes = [*problems, *broken], [*notes, *note]
    grouped = find_spec(data) is not None
    notes += _group_notes(data) if grouped else []
    table = group_spec(data).table(data) if grouped else _class_table(data)
    examples = {split: len(part) for split, part in data.items()}
    return DataReport(card, table, tuple(problems), tuple(notes), examples)


def _own_card(name: str) -> DataCard:
    return DataCard(
        name=name,
        title="your own data",
        inputs=("image, text or features",),
        groups="label x attribute, where an attribute is named",
        source="you",
        layout=KINDS,
        terms="yours",
    )


def _class_table(data: DatasetDict) -> str:
    """Examples per class and split, of a set without groups."""
    names = data["train"].features["label"].names
    counts = {split: np.bincount(part["label"][:], minlength=len(names)) for split, part in data.items()}
    rows = [["class", *counts], *([name, *(str(c[i]) for c in counts.values())] for i, name in enumerate(names))]
    return render([*rows, ["examples", *(str(len(part)) for part in data.values())]])


def _read_all(data: DatasetDict) -> tuple[list[str], list[str]]:
    """Decode the pictures of own data: a line for each that cannot be read, and how many were looked at."""
    broken, looked = [], 0
    for split, part in data.items():
        rows = np.unique(np.linspace(0, len(part) - 1, min(MOST, len(part))).round().astype(int)).tolist()
        looked += len(rows)
        broken += [damage_line(split, *found) for found in damaged(part, rows)]
    total = sum(map(len, data.values()))
    if not broken:
        which = f"all {total}" if looked == total else f"{looked} of {total}"
        return [], [f"{which} pictures can be read"]
    more = [f"{len(broken) - LISTED} more pictures cannot be read"] if len(broken) > LISTED else []
    return [*broken[:LISTED], *more], [f"{len(broken)} of {looked} pictures that were looked at cannot be read"]


def _checksums(card: DataCard, data_dir: str | Path | None) -> tuple[list[str], list[str]]:
    """Published MD5 of the files that are there: those that differ, and those that agree."""
    if not card.md5:
        return [], [] if data_dir is None else ["the source publishes no checksums; files are checked by their content"]
    differing, agreeing = [], []
    for file, expected in card.md5.items() if data_dir is not None else ():
        # The same sub-folders in which the loaders look.
        places = [Path(str(data_dir)) / folder / file for folder in (".", "celeba", "mnist")]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            continue
        found = md5(path)
        if found == expected:
            agreeing.append(f"{file}: MD5 agrees with the published one")
        else:
            differing.append(
                f"{path} has MD5 {found}, the published file has {expected}: it was changed or cut off; fetch it again "
                f"from {card.source}"
            )
    return differing, agreeing


def _read_ends(data: DatasetDict) -> None:
    """Decode the first and the last picture of every split."""
    for split, part in data.items():
        if "image" not in part.column_names:
            continue
        for row, path, reason in damaged(part, sorted({0, len(part) - 1})):
            where = f": {path}" if path else ""
            raise InvalidInputError(f"example {row} of {split} cannot be read ({reason}); fetch its file again{where}")


def _group_notes(data: DatasetDict) -> list[str]:
    """Empty groups, and a validation split whose groups are not drawn like those of training."""
    spec = group_spec(data)
    counts = {split: spec.counts(group_array(part)) for split, part in data.items()}
    notes = [
        f"{split} has no example of {', '.join(n for n, c in zip(spec.names, found, strict=True) if c == 0)}"
        for split, found in counts.items()
        if (found == 0).any()
    ]
    if not spec.overlapping and {"train", "validation"} <= set(counts):
        shares = {split: counts[split] / counts[split].sum() for split in ("train", "validation")}
        apart = float(abs(shares["train"] - shares["validation"]).sum() / 2)
        if apart > UNLIKE:
            notes.append(
                f"validation is not drawn like train ({apart:.0%} of it lies in other groups): what is fitted or "
                "chosen on it learns about the groups"
            )
    return notes
